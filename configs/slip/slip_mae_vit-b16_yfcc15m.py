"""SLIP with ViT-B/16 and mmpretrain's MAE instead of SimCLR, on YFCC15M, 25 epochs."""

_base_ = ['slip_vit-b16_yfcc15m.py']

init_cfg = dict(type='Xavier', layer='Linear', distribution='uniform')  # of encoder and decoder

# A starting point, not tuned: batch and learning rate are those of SLIP.
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
        _delete_=True,
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
)

# One view, cropped and flipped only.
mae_view = [
    dict(type='mmslip.RandomResizedCrop', scale=224, crop_ratio_range=(0.2, 1.0)),
    dict(type='mmslip.RandomFlip', prob=0.5),
]
train_pipeline = [
    _base_.load_image,
    dict(type='mmslip.MultiView', num_views=[1, 1], transforms=[_base_.clip_view, mae_view]),
    dict(type='mmslip.TokenizeCaption', tokenizer=dict(type='mmslip.CLIPTokenizer')),
    dict(type='mmslip.PackSLIPInputs', ssl_views=1),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
