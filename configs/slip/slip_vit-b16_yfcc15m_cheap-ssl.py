"""SLIP with ViT-B/16 on YFCC15M for about the cost of CLIP: fewer patches, smaller SSL views.

The recipe is that of `slip_vit-b16_yfcc15m.py`. It has not been trained: what the savings cost in
accuracy is not known.
"""

_base_ = ['slip_vit-b16_yfcc15m.py']

view_size = 112  # of the self-supervised views: 49 patches, a quarter of those of 224 pixels

# FLIP (arXiv 2212.00794): every training pass sees half of the patches, drawn for each image: 98 of
# the image-text view, 24 of a self-supervised one. To end with whole images, load the checkpoint
# (`load_from`) and train a little longer with 0.
model = dict(backbone=dict(patch_dropout=0.5))

ssl_view = [
    dict(type='mmslip.RandomResizedCrop', scale=view_size, crop_ratio_range=(0.08, 1.0)),
    dict(
        type='mmslip.ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, prob=0.8
    ),
    dict(type='mmslip.RandomGrayscale', prob=0.2),
    dict(type='mmslip.GaussianBlur', sigma=(0.05, 1.0), prob=0.5),  # of half as many pixels
    dict(type='mmslip.RandomFlip', prob=0.5),
]
train_pipeline = [
    _base_.load_image,
    dict(type='mmslip.MultiView', num_views=[1, 2], transforms=[_base_.clip_view, ssl_view]),
    dict(type='mmslip.TokenizeCaption', tokenizer=dict(type='mmslip.CLIPTokenizer')),
    dict(type='mmslip.PackSLIPInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
