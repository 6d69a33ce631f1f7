from mmslip.models.backbones.text_transformer import TextTransformer
from mmslip.models.backbones.vision_transformer import VisionTransformer

__all__ = ['TextTransformer', 'VisionTransformer']
