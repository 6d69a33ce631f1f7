"""CC3M (Conceptual Captions): one caption for each image.

::

    data/cc3m/
    |-- Train_GCC-training.tsv            caption<TAB>url
    `-- images/00000/000000012.jpg, ...   row 12; rows are counted from 0

The images are where img2dataset leaves them with `output_format='files'` and its 10,000 samples a
folder; for other names, change `image_name`. Rows whose image could not be fetched are left out.
"""

_base_ = ['../views/slip.py']

train_dataloader = dict(
    dataset=dict(
        type='mmslip.ConceptualCaptionsDataset',
        data_root='data/cc3m/',
        ann_file='Train_GCC-training.tsv',
        columns=('caption', 'url'),
        data_prefix=dict(img_path='images'),
        image_name='{folder:05d}/{row:09d}.jpg',  # `folder` is row // 10,000
    ),
)
