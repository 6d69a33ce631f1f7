from mmslip.datasets.transforms.blur import GaussianBlur, RandomGrayscale
from mmslip.datasets.transforms.center_crop import ResizeCenterCrop
from mmslip.datasets.transforms.color_jitter import ColorJitter
from mmslip.datasets.transforms.crop import RandomFlip, RandomResizedCrop
from mmslip.datasets.transforms.load_image import LoadImage
from mmslip.datasets.transforms.packing import PackSLIPInputs
from mmslip.datasets.transforms.text import TokenizeCaption, TokenizeCaptions
from mmslip.datasets.transforms.views import SLIPViews
from mmslip.datasets.transforms.words import DropStopWords, DropWords, SwapWords

__all__ = [
    'ColorJitter',
    'DropStopWords',
    'DropWords',
    'GaussianBlur',
    'LoadImage',
    'PackSLIPInputs',
    'RandomFlip',
    'RandomGrayscale',
    'RandomResizedCrop',
    'ResizeCenterCrop',
    'SLIPViews',
    'SwapWords',
    'TokenizeCaption',
    'TokenizeCaptions',
]
