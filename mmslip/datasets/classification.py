"""Classification sets in their published layout that mmpretrain does not read."""

import csv
from pathlib import Path
from typing import ClassVar

import numpy as np
from mmengine.dataset import BaseDataset

from mmslip.datasets.io.cifar import read_batch, read_names
from mmslip.datasets.io.json_text import read_json
from mmslip.datasets.io.rows import read_rows
from mmslip.registry import DATASETS

__all__ = [
    'CIFAR',
    'FER2013',
    'GTSRB',
    'STL10',
    'CLEVRCounts',
    'HatefulMemes',
    'KITTIDistance',
]


class _PublishedDataset(BaseDataset):
    """Base of the sets of this file.

    Args:
        data_root: Folder that the other paths are relative to.
        ann_file: File that lists the samples.
        img_path: Folder of the images.
        **kwargs: Arguments of mmengine's ``BaseDataset``.
    """

    def __init__(
        self, data_root: str, ann_file: str = '', img_path: str = '', **kwargs: object
    ) -> None:
        super().__init__(
            data_root=data_root, ann_file=ann_file, data_prefix=dict(img_path=img_path), **kwargs
        )

    def _image(self, name: str) -> str:
        return str(Path(self.data_prefix['img_path'], name))


@DATASETS.register_module()
class CIFAR(_PublishedDataset):
    """CIFAR-10 or CIFAR-100 (Krizhevsky, 2009) in its "Python version", 32 x 32.

    Its pickles are read as data, never executed. ::

        data/cifar10/cifar-10-batches-py/      data/cifar100/cifar-100-python/
        |-- batches.meta                       |-- meta
        |-- data_batch_1, ... data_batch_5     |-- train
        `-- test_batch                         `-- test

    Args:
        data_root: Folder of the files.
        split: ``'test'`` (10,000) or ``'train'`` (50,000).
        **kwargs: Arguments of mmengine's ``BaseDataset``.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is not in this layout.
    """

    def __init__(self, data_root: str, split: str = 'test', **kwargs: object) -> None:
        self.split = split
        super().__init__(data_root=data_root, **kwargs)

    @staticmethod
    def kind_of(folder: Path) -> int | None:
        """10 or 100 for a folder of these files, else None."""
        if (folder / 'test_batch').is_file():
            return 10
        return 100 if all((folder / name).is_file() for name in ('train', 'test')) else None

    def load_data_list(self) -> list[dict]:
        """RGB uint8 images ``(32, 32, 3)`` under ``img``."""
        folder = Path(self.data_root)
        kind = self.kind_of(folder)
        if kind is None:
            raise FileNotFoundError(
                f'{folder} has neither CIFAR-10 (test_batch) nor CIFAR-100 (train, test).'
            )
        files, meta = [self.split], 'meta'
        if kind == 10:
            training = [f'data_batch_{number}' for number in range(1, 6)]
            files, meta = (training if self.split == 'train' else ['test_batch']), 'batches.meta'
        if (folder / meta).is_file():
            self._metainfo['classes'] = read_names(folder / meta)
        batches = (read_batch(folder / name, kind) for name in files)
        return [
            dict(img=image, gt_label=label)
            for images, labels in batches
            for image, label in zip(images, labels, strict=True)
        ]


@DATASETS.register_module()
class FER2013(_PublishedDataset):
    """Faces of the Facial Expression Recognition challenge (Goodfellow et al., 2013).

    ::

        data/fer2013/
        `-- fer2013.csv   emotion,pixels,Usage; 48 x 48 grey pixels in a row

    Args:
        data_root: Folder of the file.
        usage: Rows to take: ``'PrivateTest'`` (3,589), ``'PublicTest'`` or ``'Training'``.
        ann_file: Name of the file.
        **kwargs: Arguments of mmengine's ``BaseDataset``.
    """

    METAINFO: ClassVar = dict(
        classes=('angry', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral')
    )

    def __init__(
        self,
        data_root: str,
        usage: str = 'PrivateTest',
        ann_file: str = 'fer2013.csv',
        **kwargs: object,
    ) -> None:
        self.usage = usage
        super().__init__(data_root=data_root, ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Grey uint8 images ``(48, 48)`` under ``img``."""
        with open(self.ann_file, newline='', encoding='utf-8') as file:
            return [
                dict(
                    img=np.array(row['pixels'].split(), np.uint8).reshape(48, 48),
                    gt_label=int(row['emotion']),
                )
                for row in csv.DictReader(file)
                if row['Usage'] == self.usage
            ]


@DATASETS.register_module()
class STL10(_PublishedDataset):
    """STL-10 (Coates et al., 2011) as published, 96 x 96.

    ::

        data/stl10/stl10_binary/
        |-- test_X.bin     images, channels first, each column by column
        `-- test_y.bin     labels from 1

    Args:
        data_root: Folder of the files.
        split: ``'test'`` (8,000) or ``'train'``.
        **kwargs: Arguments of mmengine's ``BaseDataset``.
    """

    METAINFO: ClassVar = dict(
        classes=(
            'airplane', 'bird', 'car', 'cat', 'deer', 'dog', 'horse', 'monkey', 'ship', 'truck',
        )
    )  # fmt: skip

    def __init__(self, data_root: str, split: str = 'test', **kwargs: object) -> None:
        self.split = split
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """RGB uint8 images ``(96, 96, 3)`` under ``img``."""
        pixels = np.fromfile(Path(self.data_root, f'{self.split}_X.bin'), np.uint8)
        labels = np.fromfile(Path(self.data_root, f'{self.split}_y.bin'), np.uint8)
        images = pixels.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)  # (N, 3, W, H) -> (N, H, W, 3)
        return [
            dict(img=image, gt_label=int(label) - 1)
            for image, label in zip(images, labels, strict=True)
        ]


@DATASETS.register_module()
class GTSRB(_PublishedDataset):
    """Test images of the German Traffic Sign Recognition Benchmark (Stallkamp et al., 2012).

    The training images are a folder for each class, which ``FolderDataset`` reads. ::

        data/gtsrb/
        |-- GT-final_test.csv                       Filename;...;ClassId
        `-- GTSRB/Final_Test/Images/00000.ppm, ...
    """

    METAINFO: ClassVar = dict(classes=tuple(f'{number:05d}' for number in range(43)))

    def load_data_list(self) -> list[dict]:
        """Join the names of the images to their classes."""
        with open(self.ann_file, newline='', encoding='utf-8') as file:
            return [
                dict(img_path=self._image(row['Filename']), gt_label=int(row['ClassId']))
                for row in csv.DictReader(file, delimiter=';')
            ]


@DATASETS.register_module()
class KITTIDistance(_PublishedDataset):
    """Distance of the nearest vehicle in the pictures of KITTI's object detection benchmark.

    The classes are those of VTAB (Zhai et al., arXiv 1910.04867): the smallest depth of a car, van
    or truck. ::

        data/kitti/training/
        |-- image_2/000000.png, ...
        `-- label_2/000000.txt, ...
    """

    METAINFO: ClassVar = dict(classes=('up to 8 m', '8 m to 20 m', 'beyond 20 m', 'no vehicle'))

    def load_data_list(self) -> list[dict]:
        """Read the labels of every picture."""
        files = sorted(Path(self.data_root, 'label_2').glob('*.txt'))
        return [
            dict(
                img_path=self._image(f'{file.stem}.png'),
                gt_label=self._class_of(file.read_text(encoding='ascii')),
            )
            for file in files
        ]

    @staticmethod
    def _class_of(objects: str) -> int:
        rows = [line.split() for line in objects.splitlines()]
        depths = [float(row[13]) for row in rows if row[0] in ('Car', 'Van', 'Truck')]  # metres
        return sum(min(depths) > limit for limit in (8, 20)) if depths else 3


@DATASETS.register_module()
class CLEVRCounts(_PublishedDataset):
    """Number of objects in the scenes of CLEVR (Johnson et al., 2017).

    ::

        data/CLEVR_v1.0/
        |-- scenes/CLEVR_val_scenes.json
        `-- images/val/CLEVR_val_000000.png, ...
    """

    METAINFO: ClassVar = dict(classes=('3', '4', '5', '6', '7', '8', '9', '10'))

    def load_data_list(self) -> list[dict]:
        """Count the objects of every scene."""
        return [
            dict(
                img_path=self._image(scene['image_filename']),
                gt_label=self.METAINFO['classes'].index(str(len(scene['objects']))),
            )
            for scene in read_json(self.ann_file)['scenes']
        ]


@DATASETS.register_module()
class HatefulMemes(_PublishedDataset):
    """Hateful Memes (Kiela et al., arXiv 2005.04790): harmless is class 0, hateful class 1.

    ::

        data/hateful_memes/
        |-- dev.jsonl       {"id": 8291, "img": "img/08291.png", "label": 1, "text": "..."}
        `-- img/08291.png, ...
    """

    def load_data_list(self) -> list[dict]:
        """Read the lines of the file."""
        return [
            dict(img_path=self._image(row['img']), gt_label=int(row['label']))
            for _, row in read_rows(Path(self.ann_file))
        ]
