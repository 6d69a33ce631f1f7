"""SimCLR's optimiser and schedule, 25 epochs."""

_base_ = ['slip.py']

optim_wrapper = dict(optimizer=dict(lr=3.2e-3))  # for 64 GPUs x 64 = 4096
