from mmslip.datasets.transforms.color_jitter import ColorJitter
from mmslip.datasets.transforms.load_image import LoadImage
from mmslip.datasets.transforms.packing import PackSLIPInputs
from mmslip.datasets.transforms.text import TokenizeCaption

__all__ = ['ColorJitter', 'LoadImage', 'PackSLIPInputs', 'TokenizeCaption']
