"""LiT: CLIP with a frozen ViT-B/16 (Zhai et al., arXiv 2111.07991), on YFCC15M, 25 epochs."""

_base_ = ['clip_vit-b16_yfcc15m.py']

# A starting point, not tuned: batch and learning rate are those of CLIP.
model = dict(
    frozen=['backbone'],
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/simclr_vit-b16_yfcc15m/epoch_25.pth',
            prefix='backbone.',
        )
    ),
)
