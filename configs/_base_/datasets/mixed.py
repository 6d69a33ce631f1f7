"""CC3M and CC12M together, laid out as cc3m.py and cc12m.py beside this file say.

Every source has a pipeline of its own; here all have the same.
"""

_base_ = ['cc3m.py']

cc3m = _base_.train_dataloader.dataset
train_dataloader = dict(
    sampler=dict(shuffle=False),  # the mixture is in random order
    dataset=dict(
        _delete_=True,
        type='mmslip.MixedDataset',
        datasets=[
            cc3m,
            dict(cc3m, data_root='data/cc12m/', ann_file='cc12m.tsv', columns=('url', 'caption')),
        ],
        weights=[3, 12],  # about their sizes in millions: each image is as frequent as any other
        length=15_000_000,  # samples in an epoch
    ),
)
del cc3m  # the first of the sources
