"""CLIP of the comparison: SLIP's config without the self-supervised half and its views."""

_base_ = ['slip_tiny_emoji.py']

model = dict(ssl=None)

pipeline = _base_.train_dataloader.dataset.pipeline
pipeline[0].update(ssl_views=0)
train_dataloader = dict(dataset=dict(pipeline=pipeline))
del pipeline
