"""The CLIP of this folder with all five captions of an image in every batch."""

_base_ = ['clip_tiny_flickr.py']

source = _base_.train_dataloader.dataset.datasets[0]
source.pipeline[2].update(number=5)
train_dataloader = dict(dataset=dict(datasets=[source]))
del source
