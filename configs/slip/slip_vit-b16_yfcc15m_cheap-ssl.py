"""SLIP with ViT-B/16 on YFCC15M for about the cost of CLIP: fewer patches, smaller SSL views.

The recipe is that of `slip_vit-b16_yfcc15m.py`. It has not been trained: what the savings cost in
accuracy is not known.
"""

_base_ = ['slip_vit-b16_yfcc15m.py']

# FLIP (arXiv 2212.00794): every training pass sees half of the patches, drawn for each image: 98 of
# the image-text view, 24 of a self-supervised one. To end with whole images, load the checkpoint
# (`load_from`) and train a little longer with 0.
model = dict(backbone=dict(patch_dropout=0.5))

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='mmslip.LoadImage', defer=True),
            dict(
                type='mmslip.SLIPViews',
                size=224,
                ssl_size=112,  # 49 patches, a quarter of those of 224 pixels
                blur_sigma=(0.05, 1.0),  # of half as many pixels
            ),
            dict(type='mmslip.TokenizeCaption', tokenizer=dict(type='mmslip.CLIPTokenizer')),
            dict(type='mmslip.PackSLIPInputs'),
        ]
    )
)
