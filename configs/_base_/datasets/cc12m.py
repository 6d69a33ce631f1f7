"""CC12M (Conceptual 12M): one caption for each image.

::

    data/cc12m/
    |-- cc12m.tsv                         url<TAB>caption
    `-- images/00000/000000012.jpg, ...   row 12; rows are counted from 0

The images are where img2dataset leaves them with `output_format='files'` and its 10,000 samples a
folder; for other names, change `image_name`. Rows whose image could not be fetched are left out.
"""

_base_ = ['../views/slip.py']

train_dataloader = dict(
    dataset=dict(
        type='mmslip.ConceptualCaptionsDataset',
        data_root='data/cc12m/',
        ann_file='cc12m.tsv',
        columns=('url', 'caption'),
        data_prefix=dict(img_path='images'),
        image_name='{folder:05d}/{row:09d}.jpg',  # `folder` is row // 10,000
    ),
)
