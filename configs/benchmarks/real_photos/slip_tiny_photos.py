"""SLIP on photographs of 32 x 32: `python tools/benchmarks/real_photos.py` makes and judges all.

All four experiments of this folder have the tower, the optimiser and the schedule of this one. An
epoch is a tenth of a training and as long as the comparison makes it (`length`), so that all take
the same processor time. Sizes are for a quarter of an hour of a CPU.
"""

_base_ = [
    '../../_base_/default_runtime.py',
    '../../_base_/ssl/simclr.py',
    '../../_base_/views/slip.py',
    '../../_base_/schedules/slip.py',
]

# Whole photographs are batched; a batch is cut and coloured at once.
warp = dict(type='mmslip.DeviceWarp', flip_prob=0.5, samples=1, fill=116.0)
colour = dict(type='mmslip.DeviceAugment', blur_prob=0.0)
# Batch norm takes away what all images, or all captions, share: it would fill the cosines at first.
projection = dict(_delete_=True, type='LinearNeck', out_channels=128, norm_cfg=dict(type='BN1d'))
model = dict(
    data_preprocessor=dict(
        image_augment=[dict(warp, size=32, area=(0.3, 1.0)), dict(colour, gray_prob=0.0)],
        view_augment=[dict(warp, size=16, area=(0.3, 1.0)), colour],
    ),
    backbone=dict(_delete_=True, type='mmslip.ConvTower', width=64, out_channels=256),
    neck=projection,
    # 200 names need no more, nor a vocabulary of more than 4,000 merges.
    text_backbone=dict(vocab_size=4514, context_length=16, width=64, num_layers=1, num_heads=2),
    text_neck=projection,
    head=dict(max_scale=20.0),
    ssl=dict(neck=dict(hid_channels=512, out_channels=128)),  # 256 -> 512 -> 512 -> 128
    ssl_weight=0.3,
)

tokenizer = dict(type='mmslip.CLIPTokenizer', context_length=16, num_merges=4000)
train_dataloader = dict(
    batch_size=128,  # of 200 names: in larger ones too many rows share a name
    num_workers=0,
    sampler=dict(shuffle=False),  # the mixture is in random order
    dataset=dict(
        _delete_=True,
        type='mmslip.MixedDataset',
        stratified=True,
        weights=[1],
        length=9600,
        datasets=[
            dict(
                type='mmslip.ImageTextDataset',
                keep_decoded=True,
                data_root='data/real_photos',
                ann_file='10_seed0/captioned.jsonl',
                pipeline=[
                    dict(type='mmslip.LoadImage'),
                    dict(type='mmslip.SLIPViews', image=[], ssl=[]),
                    dict(type='mmslip.TokenizeCaption', tokenizer=tokenizer),
                    dict(type='mmslip.PackSLIPInputs'),
                ],
            ),
        ],
    ),
)

optim_wrapper = dict(optimizer=dict(lr=2e-3))  # for a batch of 128
param_scheduler = [
    dict(type='mmslip.WarmupLR', start=2e-6, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=1, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=10)
auto_scale_lr = dict(base_batch_size=128)

labelled = dict(type='CustomDataset', data_root='data/real_photos')
judged = dict(type='mmslip.EvaluationDataset', task='data/real_photos/task/photos.json')
test_dataloader = dict(
    batch_size=500,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmslip.EvaluationSuite',
        datasets=dict(
            val=dict(judged, dataset=dict(labelled, ann_file='task/val.txt')),
            # What kNN and the linear probe learn from.
            reference=dict(
                judged, dataset=dict(labelled, ann_file='10_seed0/labelled.txt'), role='reference'
            ),
        ),
        pipeline=[
            dict(type='mmslip.LoadImage'),
            dict(type='Resize', scale=(32, 32), interpolation='area'),
            dict(type='mmslip.PackSLIPInputs'),
        ],
    ),
)
test_evaluator = [
    dict(type='mmslip.ZeroShotAccuracy', topk=(1, 5)),
    dict(type='mmslip.KNNAccuracy', k=20, temperature=0.07),
    dict(type='mmslip.LinearProbe', l2=(0.1, 0.01)),
]
test_cfg = dict()

custom_hooks = [
    *(hook for hook in _base_.custom_hooks if hook['type'] != 'mmslip.EvaluationRecordHook'),
    dict(type='mmslip.EvaluationRecordHook', pictures=False),
    dict(type='mmslip.ZeroShotHook', tokenizer=tokenizer),
]
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=1), step_checkpoint=None)
del (
    warp,
    colour,
    projection,
    tokenizer,
    labelled,
    judged,
)  # the model, the loaders and the hook have them
