from mmslip.models.backbones.conv_tower import ConvTower
from mmslip.models.backbones.hugging_face_text import HuggingFaceText
from mmslip.models.backbones.modern_text import ModernTextTransformer
from mmslip.models.backbones.patch_conv import PatchConv2d
from mmslip.models.backbones.patch_dropout import PatchDropout
from mmslip.models.backbones.siglip_text import SigLIPTextTransformer
from mmslip.models.backbones.text_transformer import TextTransformer
from mmslip.models.backbones.vision_transformer import VisionTransformer

__all__ = [
    'ConvTower',
    'HuggingFaceText',
    'ModernTextTransformer',
    'PatchConv2d',
    'PatchDropout',
    'SigLIPTextTransformer',
    'TextTransformer',
    'VisionTransformer',
]
