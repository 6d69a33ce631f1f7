"""YFCC15M: 14,689,580 photographs with a title, a description or both."""

_base_ = ['../views/slip.py']

train_dataloader = dict(
    dataset=dict(
        type='mmslip.YFCC15MDataset',
        data_root='data/yfcc15m/',
        # Title and description, of which one is drawn at every visit. Made by
        # tools/dataset_converters/yfcc15m.py (or official_pickle.py, from the authors' list).
        ann_file='train.table',
        data_prefix=dict(img_path='images'),  # 00/000.zip to 99/999.zip
    ),
)
