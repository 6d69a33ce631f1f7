"""The 26 sets of zero-shot transfer, in the order of the paper, each where it was unpacked.

Sets that are not there are skipped and listed. `samples` is the size of the complete set: half of
it is an error. Layouts are in docs/evaluation.md, of mmpretrain's classes in its documentation.
"""

zero_shot_sets = dict(
    food101=dict(
        type='mmslip.EvaluationDataset',
        task='food101',
        samples=25250,
        dataset=dict(type='Food101', data_root='data/food-101', split='test'),
    ),
    cifar10=dict(
        type='mmslip.EvaluationDataset',
        task='cifar10',
        samples=10000,
        dataset=dict(type='mmslip.CIFAR', data_root='data/cifar10/cifar-10-batches-py'),
    ),
    cifar100=dict(
        type='mmslip.EvaluationDataset',
        task='cifar100',
        samples=10000,
        dataset=dict(type='mmslip.CIFAR', data_root='data/cifar100/cifar-100-python'),
    ),
    cub200=dict(
        type='mmslip.EvaluationDataset',
        task='cub200',
        samples=5794,
        dataset=dict(type='CUB', data_root='data/CUB_200_2011', split='test', test_mode=True),
    ),
    sun397=dict(
        type='mmslip.EvaluationDataset',
        task='sun397',
        samples=19850,  # the first of the published partitions
        dataset=dict(type='SUN397', data_root='data/SUN397', split='test'),
    ),
    cars=dict(
        type='mmslip.EvaluationDataset',
        task='cars',
        samples=8041,
        dataset=dict(type='StanfordCars', data_root='data/Stanford_Cars', split='test'),
    ),
    aircraft=dict(
        type='mmslip.EvaluationDataset',
        task='aircraft',
        samples=3333,
        dataset=dict(type='FGVCAircraft', data_root='data/fgvc-aircraft-2013b', split='test'),
    ),
    dtd=dict(
        type='mmslip.EvaluationDataset',
        task='dtd',
        samples=1880,  # the first of the published splits
        dataset=dict(type='DTD', data_root='data/dtd', split='test'),
    ),
    pets=dict(
        type='mmslip.EvaluationDataset',
        task='pets',
        samples=3669,
        dataset=dict(type='OxfordIIITPet', data_root='data/Oxford-IIIT_Pets', split='test'),
    ),
    caltech101=dict(
        type='mmslip.EvaluationDataset',
        task='caltech101',
        # Without `samples`: no split was published, and the lists in `meta` are mmpretrain's.
        dataset=dict(type='Caltech101', data_root='data/caltech-101', split='test'),
    ),
    flowers=dict(
        type='mmslip.EvaluationDataset',
        task='flowers',
        samples=6149,
        dataset=dict(type='Flowers102', data_root='data/Flowers102', split='test'),
    ),
    mnist=dict(
        type='mmslip.EvaluationDataset',
        task='mnist',
        samples=10000,
        dataset=dict(
            type='MNIST', data_root='data/mnist', split='test', test_mode=True, download=False
        ),
    ),
    fer2013=dict(
        type='mmslip.EvaluationDataset',
        task='fer2013',
        samples=3589,
        dataset=dict(type='mmslip.FER2013', data_root='data/fer2013', usage='PrivateTest'),
    ),
    stl10=dict(
        type='mmslip.EvaluationDataset',
        task='stl10',
        samples=8000,
        dataset=dict(type='mmslip.STL10', data_root='data/stl10_binary', split='test'),
    ),
    eurosat=dict(
        type='mmslip.EvaluationDataset',
        task='eurosat',
        samples=27000,  # all: no split was published
        dataset=dict(
            type='mmslip.FolderDataset',
            data_root='data/EuroSAT',
            data_prefix=dict(img_path='2750'),
            with_label=True,
        ),
    ),
    resisc45=dict(
        type='mmslip.EvaluationDataset',
        task='resisc45',
        samples=31500,  # all: no split was published
        dataset=dict(
            type='mmslip.FolderDataset',
            data_root='data/NWPU-RESISC45',
            with_label=True,
        ),
    ),
    gtsrb=dict(
        type='mmslip.EvaluationDataset',
        task='gtsrb',
        samples=12630,
        dataset=dict(
            type='mmslip.GTSRB',
            data_root='data/gtsrb',
            ann_file='GT-final_test.csv',
            img_path='GTSRB/Final_Test/Images',
        ),
    ),
    kitti_distance=dict(
        type='mmslip.EvaluationDataset',
        task='kitti_distance',
        samples=7481,  # all with published labels
        dataset=dict(
            type='mmslip.KITTIDistance', data_root='data/kitti/training', img_path='image_2'
        ),
    ),
    country211=dict(
        type='mmslip.EvaluationDataset',
        task='country211',
        samples=21100,
        dataset=dict(
            type='mmslip.FolderDataset',
            data_root='data/country211',
            data_prefix=dict(img_path='test'),
            with_label=True,
        ),
    ),
    patch_camelyon=dict(
        type='mmslip.EvaluationDataset',
        task='patch_camelyon',
        samples=32768,
        # Published as HDF5: save the images as PNG in folders `0` (no tumour) and `1`.
        dataset=dict(
            type='mmslip.FolderDataset',
            data_root='data/patch_camelyon',
            data_prefix=dict(img_path='test'),
            with_label=True,
        ),
    ),
    ucf101_frames=dict(
        type='mmslip.EvaluationDataset',
        task='ucf101_frames',
        samples=3783,  # the middle frames of the videos of testlist01.txt, a folder for each class
        dataset=dict(
            type='mmslip.FolderDataset',
            data_root='data/ucf101_frames',
            data_prefix=dict(img_path='test'),
            with_label=True,
        ),
    ),
    kinetics700_frames=dict(
        type='mmslip.EvaluationDataset',
        task='kinetics700_frames',
        # Middle frames, a folder for each class. Without `samples`: videos disappear over time.
        dataset=dict(
            type='mmslip.FolderDataset',
            data_root='data/kinetics700_frames',
            data_prefix=dict(img_path='val'),
            with_label=True,
        ),
    ),
    clevr_counts=dict(
        type='mmslip.EvaluationDataset',
        task='clevr_counts',
        samples=15000,
        dataset=dict(
            type='mmslip.CLEVRCounts',
            data_root='data/CLEVR_v1.0',
            ann_file='scenes/CLEVR_val_scenes.json',
            img_path='images/val',
        ),
    ),
    hateful_memes=dict(
        type='mmslip.EvaluationDataset',
        task='hateful_memes',
        samples=500,
        dataset=dict(
            type='mmslip.HatefulMemes', data_root='data/hateful_memes', ann_file='dev.jsonl'
        ),
    ),
    rendered_sst2=dict(
        type='mmslip.EvaluationDataset',
        task='rendered_sst2',
        samples=1821,
        dataset=dict(
            type='mmslip.FolderDataset',
            data_root='data/rendered-sst2',
            data_prefix=dict(img_path='test'),
            with_label=True,
        ),
    ),
    imagenet=dict(
        type='mmslip.EvaluationDataset',
        task='imagenet',
        samples=50000,
        dataset=dict(type='ImageNet', data_root='data/imagenet', split='val'),
    ),
)

test_dataloader = dict(
    batch_size=256,
    num_workers=8,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmslip.EvaluationSuite',
        datasets=zero_shot_sets,
        # As published: the short side to 224 by Pillow's antialiased bilinear filter, then the
        # centre.
        pipeline=[
            dict(type='mmslip.LoadImage'),
            dict(type='mmslip.ResizeCenterCrop', size=224),
            dict(type='mmslip.PackSLIPInputs'),
        ],
    ),
)
del zero_shot_sets  # `test_dataloader.dataset.datasets` has them
test_evaluator = dict(type='mmslip.ZeroShotAccuracy')
test_cfg = dict()
