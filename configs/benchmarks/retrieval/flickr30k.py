"""Image-text retrieval on the 1000 test images of Flickr30k (Karpathy's split), five captions each.

::

    data/flickr30k/
    |-- dataset_flickr30k.json
    `-- flickr30k-images/1007129816.jpg, ...
"""

_base_ = ['coco.py']

test_dataloader = dict(
    dataset=dict(
        task='flickr30k',
        data_root='data/flickr30k',
        ann_file='dataset_flickr30k.json',
        img_path='flickr30k-images',
        samples=1000,
    )
)
