from mmslip.datasets import transforms  # noqa: F401  (registers the transforms)
from mmslip.datasets.base import CaptionedDataset
from mmslip.datasets.emoji import EmojiDataset
from mmslip.datasets.image_text import ImageTextDataset
from mmslip.datasets.sampler import Visit, VisitSampler
from mmslip.datasets.shards import ShardDataset
from mmslip.datasets.tokenizer import CLIPTokenizer

__all__ = [
    'CLIPTokenizer',
    'CaptionedDataset',
    'EmojiDataset',
    'ImageTextDataset',
    'ShardDataset',
    'Visit',
    'VisitSampler',
]
