"""Image-text retrieval on the 5000 test images of COCO (Karpathy's split), five captions each.

::

    data/coco/
    |-- dataset_coco.json
    `-- val2014/COCO_val2014_000000391895.jpg, ...
"""

_base_ = ['../../slip/slip_vit-b16_yfcc15m.py']

test_dataloader = dict(
    batch_size=256,
    num_workers=8,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmslip.KarpathyDataset',
        task='coco',
        data_root='data/coco',
        ann_file='dataset_coco.json',  # images in val2014
        split='test',
        samples=5000,
        pipeline=[
            dict(type='mmslip.LoadImage'),
            dict(type='mmslip.ResizeCenterCrop', size=224),
            dict(type='mmslip.TokenizeCaptions'),
            dict(type='mmslip.PackSLIPInputs'),
        ],
    ),
)
test_evaluator = dict(type='mmslip.RetrievalRecall')
test_cfg = dict()
