from mmslip.datasets.transforms.blur import GaussianBlur, RandomGrayscale
from mmslip.datasets.transforms.color_jitter import ColorJitter
from mmslip.datasets.transforms.crop import RandomFlip, RandomResizedCrop
from mmslip.datasets.transforms.load_image import LoadImage
from mmslip.datasets.transforms.multi_view import MultiView
from mmslip.datasets.transforms.packing import PackSLIPInputs
from mmslip.datasets.transforms.text import TokenizeCaption, TokenizeCaptions

__all__ = [
    'ColorJitter',
    'GaussianBlur',
    'LoadImage',
    'MultiView',
    'PackSLIPInputs',
    'RandomFlip',
    'RandomGrayscale',
    'RandomResizedCrop',
    'TokenizeCaption',
    'TokenizeCaptions',
]
