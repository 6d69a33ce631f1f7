"""CLIP's model and mmpretrain's MAE, on a ViT that can leave patches out."""

_base_ = ['../models/clip_vit-b16.py']

init_cfg = dict(type='Xavier', layer='Linear', distribution='uniform')  # of encoder and decoder

model = dict(
    # Masks three quarters of the patches of the self-supervised half's view, and nothing of the
    # language half's. Its position embedding is fixed.
    backbone=dict(
        _delete_=True,
        type='MAEViT',
        arch='base',
        img_size=224,
        patch_size=16,
        mask_ratio=0.75,
        init_cfg=init_cfg,
    ),
    ssl=dict(
        type='MAE',
        neck=dict(
            type='MAEPretrainDecoder',
            num_patches=196,  # 14 x 14
            patch_size=16,
            embed_dim=768,
            decoder_embed_dim=512,
            decoder_depth=8,
            decoder_num_heads=16,
        ),
        head=dict(
            type='MAEPretrainHead',
            norm_pix=True,
            patch_size=16,
            loss=dict(type='PixelReconstructionLoss', criterion='L2'),
        ),
        init_cfg=init_cfg,
    ),
    ssl_weight=1.0,
)
del init_cfg  # `model` has it
