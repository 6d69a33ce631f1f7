from mmslip.datasets import transforms  # noqa: F401  (registers the transforms)
from mmslip.datasets.base import CaptionedDataset
from mmslip.datasets.caption_table import CaptionTable
from mmslip.datasets.classification import (
    FER2013,
    GTSRB,
    STL10,
    CLEVRCounts,
    HatefulMemes,
    KITTIDistance,
)
from mmslip.datasets.coco_caption import COCOCaptionDataset
from mmslip.datasets.conceptual_captions import ConceptualCaptionsDataset
from mmslip.datasets.emoji import EmojiDataset
from mmslip.datasets.evaluation import EvaluationDataset, EvaluationSuite
from mmslip.datasets.image_text import ImageTextDataset
from mmslip.datasets.karpathy import KarpathyDataset
from mmslip.datasets.mixed import MixedDataset
from mmslip.datasets.parquet import ParquetDataset
from mmslip.datasets.redcaps import RedCapsDataset
from mmslip.datasets.sampler import Visit, VisitSampler
from mmslip.datasets.shards import ShardDataset
from mmslip.datasets.stream import StreamDataset
from mmslip.datasets.table import TableDataset, YFCC15MDataset
from mmslip.datasets.tokenizer import CLIPTokenizer

__all__ = [
    'FER2013',
    'GTSRB',
    'STL10',
    'CLEVRCounts',
    'CLIPTokenizer',
    'COCOCaptionDataset',
    'CaptionTable',
    'CaptionedDataset',
    'ConceptualCaptionsDataset',
    'EmojiDataset',
    'EvaluationDataset',
    'EvaluationSuite',
    'HatefulMemes',
    'ImageTextDataset',
    'KITTIDistance',
    'KarpathyDataset',
    'MixedDataset',
    'ParquetDataset',
    'RedCapsDataset',
    'ShardDataset',
    'StreamDataset',
    'TableDataset',
    'Visit',
    'VisitSampler',
    'YFCC15MDataset',
]
