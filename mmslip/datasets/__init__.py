from mmslip.datasets import transforms  # noqa: F401  (registers the transforms)
from mmslip.datasets.base import CaptionedDataset
from mmslip.datasets.classification import (
    CIFAR,
    FER2013,
    GTSRB,
    STL10,
    CLEVRCounts,
    HatefulMemes,
    KITTIDistance,
)
from mmslip.datasets.coco_caption import COCOCaptionDataset
from mmslip.datasets.collate import collate, count_rows
from mmslip.datasets.conceptual_captions import ConceptualCaptionsDataset
from mmslip.datasets.emoji import EmojiDataset
from mmslip.datasets.evaluation import EvaluationDataset, EvaluationSuite, RetrievalDataset
from mmslip.datasets.folder import FolderDataset
from mmslip.datasets.image_text import ImageTextDataset
from mmslip.datasets.io.caption_table import CaptionTable
from mmslip.datasets.karpathy import KarpathyDataset
from mmslip.datasets.mixed import MixedDataset
from mmslip.datasets.parquet import ParquetDataset
from mmslip.datasets.redcaps import RedCapsDataset
from mmslip.datasets.sampler import Visit, VisitSampler
from mmslip.datasets.shards import ShardDataset
from mmslip.datasets.stream import StreamDataset
from mmslip.datasets.table import TableDataset, YFCC15MDataset
from mmslip.datasets.text.base import BaseTokenizer
from mmslip.datasets.text.fit import require_fit, tokenizer_faults
from mmslip.datasets.text.hugging_face import HuggingFaceTokenizer
from mmslip.datasets.text.tokenizer import CLIPTokenizer

__all__ = [
    'CIFAR',
    'FER2013',
    'GTSRB',
    'STL10',
    'BaseTokenizer',
    'CLEVRCounts',
    'CLIPTokenizer',
    'COCOCaptionDataset',
    'CaptionTable',
    'CaptionedDataset',
    'ConceptualCaptionsDataset',
    'EmojiDataset',
    'EvaluationDataset',
    'EvaluationSuite',
    'FolderDataset',
    'HatefulMemes',
    'HuggingFaceTokenizer',
    'ImageTextDataset',
    'KITTIDistance',
    'KarpathyDataset',
    'MixedDataset',
    'ParquetDataset',
    'RedCapsDataset',
    'RetrievalDataset',
    'ShardDataset',
    'StreamDataset',
    'TableDataset',
    'Visit',
    'VisitSampler',
    'YFCC15MDataset',
    'collate',
    'count_rows',
    'require_fit',
    'tokenizer_faults',
]
