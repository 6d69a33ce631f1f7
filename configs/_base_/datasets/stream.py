"""Pairs of your own streamed from tar shards on a server; for shards on a disk see shards.py.

::

    https://example.org/pairs/
    `-- 00000.tar, 00001.tar, ...   members 000000012.jpg and 000000012.json (or .txt), ...

Needs `pip install 'mmslip[stream]'`. `shards` may be paths or commands (`pipe:...`), too. Every
worker of every process fetches all of them, so let there be few. A stream takes the iteration loop,
`train_cfg=dict(by_epoch=False, max_iters=...)`: docs/data.md.
"""

_base_ = ['../views/slip.py']

train_dataloader = dict(
    sampler=None,  # the stream splits and shuffles itself
    drop_last=False,
    dataset=dict(
        type='mmslip.StreamDataset',
        shards='https://example.org/pairs/{00000..00127}.tar',
        length=1_000_000,  # samples in an epoch
        caption_keys='caption',
        shuffle_buffer=1000,
    ),
)
