"""Karpathy's splits of COCO and Flickr30k, on which retrieval is judged."""

from pathlib import Path

from mmengine.dataset import BaseDataset

from mmslip.datasets.io.captions import text_of
from mmslip.datasets.io.json_text import read_json
from mmslip.datasets.io.presence import missing_files
from mmslip.registry import DATASETS

__all__ = ['KarpathyDataset']


@DATASETS.register_module()
class KarpathyDataset(BaseDataset):
    """Images with their captions, in the splits of Karpathy and Fei-Fei (arXiv 1412.2306).

    An item has ``img_path``, ``text`` (the captions), ``task`` and ``role``. ::

        data/coco/
        |-- dataset_coco.json
        `-- val2014/COCO_val2014_000000391895.jpg, ...

    Args:
        task: Name of the set in results.
        data_root: Folder that the other paths are relative to.
        ann_file: ``dataset_coco.json`` or ``dataset_flickr30k.json``.
        img_path: Folder of the images; those of COCO lie in ``val2014`` and ``train2014`` there.
        split: ``'test'``, ``'val'``, ``'train'`` or ``'restval'``.
        num_captions: The first so many captions of an image count: five is customary, where some
            images of COCO have six or seven.
        samples: The number of images of the complete split; another number is an error.
        pipeline: Transforms of a sample.

    Raises:
        FileNotFoundError: The annotations or images are missing; the message has the path.
        ValueError: The split is empty or of another size, or an image has no caption.
    """

    def __init__(
        self,
        task: str,
        data_root: str,
        ann_file: str,
        img_path: str = '',
        split: str = 'test',
        num_captions: int = 5,
        samples: int | None = None,
        pipeline: list | tuple = (),
    ) -> None:
        self.split = split
        self.num_captions = num_captions
        self._given = dict(task=task, role='query')
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=dict(img_path=img_path),
            pipeline=list(pipeline),
            test_mode=True,
        )
        # Not as the `metainfo` argument, whose strings mmengine tries to open as files.
        self._metainfo.update(self._given)
        if samples is not None and len(self) != samples:
            raise ValueError(
                f'{self.ann_file}: split {split!r} has {len(self):,} images, not {samples:,}: it '
                'is another version. Replace it, or change `samples` if this is what you want.'
            )

    def load_data_list(self) -> list[dict]:
        """Take the images of the split."""
        entries = [e for e in read_json(self.ann_file)['images'] if e['split'] == self.split]
        if not entries:
            raise ValueError(f'{self.ann_file} has no images of split {self.split!r}.')
        root = Path(self.data_prefix['img_path'])
        records = []
        for entry in entries:
            path = root / entry.get('filepath', '') / entry['filename']
            raw = [sentence['raw'] for sentence in entry['sentences']]
            fields = text_of(dict(sentences=raw), ['sentences'], f'{self.ann_file}: {path}')
            captions = fields['text'][: self.num_captions]
            records.append(dict(self._given, img_path=str(path), text=captions))
        missing = missing_files(record['img_path'] for record in records)
        if missing:
            raise FileNotFoundError(
                f'{len(missing):,} of the {len(records):,} images of {self.ann_file} are missing, '
                f'such as {missing[0]}: complete the folder.'
            )
        return records
