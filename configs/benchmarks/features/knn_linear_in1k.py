"""kNN and exact linear classification of ImageNet-1k on a checkpoint's features.

Here with SLIP's ViT-B/16; `--model CONFIG` takes another model, with a text tower or without.
"""

_base_ = ['../../slip/slip_vit-b16_yfcc15m.py']

imagenet = dict(type='mmslip.EvaluationDataset', task='imagenet')
test_dataloader = dict(
    batch_size=256,
    num_workers=8,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmslip.EvaluationSuite',
        datasets=dict(
            reference=dict(
                imagenet,
                role='reference',
                samples=1281167,
                dataset=dict(type='ImageNet', data_root='data/imagenet', split='train'),
            ),
            query=dict(
                imagenet,
                samples=50000,
                dataset=dict(type='ImageNet', data_root='data/imagenet', split='val'),
            ),
        ),
        pipeline=[
            dict(type='mmslip.LoadImage'),
            dict(type='mmslip.ResizeCenterCrop', size=224, edge=256),
            dict(type='mmslip.PackSLIPInputs'),
        ],
    ),
)
test_evaluator = [
    dict(type='mmslip.KNNAccuracy', k=20, temperature=0.07),
    dict(type='mmslip.LinearProbe'),
]
test_cfg = dict()
# The other processes wait while the first one learns, for hours rather than NCCL's ten minutes.
env_cfg = dict(dist_cfg=dict(timeout=4 * 3600))
del imagenet  # both sets have it
