"""Image-text retrieval on the 1000 test images of Flickr30k (Karpathy's split), five captions each.

::

    data/flickr30k/
    |-- dataset_flickr30k.json
    `-- flickr30k-images/1007129816.jpg, ...
"""

_base_ = ['../../slip/slip_vit-b16_yfcc15m.py']

test_dataloader = dict(
    batch_size=256,
    num_workers=8,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmslip.KarpathyDataset',
        task='flickr30k',
        data_root='data/flickr30k',
        ann_file='dataset_flickr30k.json',
        img_path='flickr30k-images',
        split='test',
        samples=1000,
        pipeline=[
            dict(type='mmslip.LoadImage'),
            dict(
                type='ResizeEdge',
                scale=224,
                edge='short',
                backend='pillow',
                interpolation='bilinear',
            ),
            dict(type='CenterCrop', crop_size=224),
            dict(type='mmslip.TokenizeCaptions'),
            dict(type='mmslip.PackSLIPInputs'),
        ],
    ),
)
test_evaluator = dict(type='mmslip.RetrievalRecall')
test_cfg = dict()
