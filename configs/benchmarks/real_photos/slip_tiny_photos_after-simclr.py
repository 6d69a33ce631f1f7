"""SLIP from the weights of a SimCLR of all photographs, which `load_from` names."""

_base_ = ['slip_tiny_photos.py']

optim_wrapper = dict(optimizer=dict(lr=1e-3))  # half of a training's that starts anew
