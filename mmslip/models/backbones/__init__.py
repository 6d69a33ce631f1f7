from mmslip.models.backbones.patch_dropout import PatchDropout
from mmslip.models.backbones.text_transformer import TextTransformer, trim_text
from mmslip.models.backbones.vision_transformer import VisionTransformer

__all__ = ['PatchDropout', 'TextTransformer', 'VisionTransformer', 'trim_text']
