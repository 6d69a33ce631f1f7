"""CLIP's optimiser and schedule, 25 epochs."""

_base_ = ['slip.py']

optim_wrapper = dict(optimizer=dict(lr=5e-4, weight_decay=0.5))  # lr for 64 GPUs x 64 = 4096
