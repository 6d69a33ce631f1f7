"""CLIP as the paper trains it: ViT-B/16 and a text transformer. `_base_/ssl/` adds a method to it.

Widths of projections (`in_channels`) are those of the towers, and are read from them.
"""

model = dict(
    type='mmslip.SLIP',
    data_preprocessor=dict(type='mmslip.SLIPDataPreprocessor'),
    backbone=dict(
        type='mmslip.VisionTransformer',
        arch='base',  # 768 wide, 12 layers, 12 heads
        img_size=224,
        patch_size=16,  # 14 x 14 patches and the class token: 197 tokens
    ),
    neck=dict(type='mmslip.LinearProjection', out_channels=512),
    text_backbone=dict(
        type='mmslip.TextTransformer',
        vocab_size=49408,
        context_length=77,
        width=512,
        num_layers=12,
        num_heads=8,
    ),
    text_neck=dict(type='mmslip.LinearProjection', out_channels=512),
    head=dict(type='mmslip.CLIPHead', init_temperature=0.07, max_scale=100.0),
)
