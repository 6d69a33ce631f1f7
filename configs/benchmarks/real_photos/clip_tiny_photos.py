"""CLIP: the SLIP of this folder without the self-supervised half and its views."""

_base_ = ['slip_tiny_photos.py']

model = dict(ssl=None)

source = _base_.train_dataloader.dataset.datasets[0]
source.pipeline[1].update(ssl_views=0)
train_dataloader = dict(dataset=dict(datasets=[source]))
del source
