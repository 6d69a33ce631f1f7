from mmslip.models.backbones import (
    ConvTower,
    HuggingFaceText,
    ModernTextTransformer,
    SigLIPTextTransformer,
    TextTransformer,
    VisionTransformer,
)
from mmslip.models.data_preprocessor import SLIPDataPreprocessor
from mmslip.models.device_augment import DeviceAugment
from mmslip.models.device_warp import DeviceWarp
from mmslip.models.heads import CLIPHead, SigLIPHead, SimCLRHead
from mmslip.models.necks import AttentionPooling, LinearProjection, MLPProjection
from mmslip.models.selfsup import SimCLR
from mmslip.models.slip import SLIP

__all__ = [
    'SLIP',
    'AttentionPooling',
    'CLIPHead',
    'ConvTower',
    'DeviceAugment',
    'DeviceWarp',
    'HuggingFaceText',
    'LinearProjection',
    'MLPProjection',
    'ModernTextTransformer',
    'SLIPDataPreprocessor',
    'SigLIPHead',
    'SigLIPTextTransformer',
    'SimCLR',
    'SimCLRHead',
    'TextTransformer',
    'VisionTransformer',
]
