"""Pairs of your own streamed from tar shards on a server; for shards on a disk see shards.py.

::

    https://example.org/pairs/
    `-- 00000.tar, 00001.tar, ...   members 000000012.jpg and 000000012.json (or .txt), ...

Needs `pip install 'mmslip[stream]'`. `shards` may be paths or commands (`pipe:...`), too; there
must be at least as many as workers of all processes. A stream has no end, so it takes the iteration
loop, `train_cfg=dict(by_epoch=False, max_iters=...)`: docs/data.md.
"""

train_dataloader = dict(
    num_workers=8,
    sampler=None,  # the stream splits and shuffles itself
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmslip.StreamDataset',
        shards='https://example.org/pairs/{00000..00127}.tar',
        length=1_000_000,  # samples in an epoch
        caption_keys='caption',
        shuffle_buffer=1000,
    ),
)
