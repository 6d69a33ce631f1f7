"""COCO Captions."""

from pathlib import Path

from mmslip.datasets.annotations import read_json
from mmslip.datasets.base import CaptionedDataset
from mmslip.registry import DATASETS

__all__ = ['COCOCaptionDataset']


@DATASETS.register_module()
class COCOCaptionDataset(CaptionedDataset):
    r"""COCO Captions in its published JSON: one sample for each image, with all its captions.

    One of the five or so captions of an image is drawn at every visit. ::

        data/coco/
        |-- annotations/captions_train2017.json
        `-- train2017/000000000009.jpg, ...

    Args:
        ann_file: The JSON file; relative to ``data_root`` if that is given.
        data_root: Folder that ``ann_file`` and ``data_prefix`` are relative to.
        data_prefix: ``dict(img_path=FOLDER)``, the folder of the images.
        **kwargs: Arguments of mmengine's ``BaseDataset``, ``pipeline`` above all.

    Raises:
        FileNotFoundError: There is no such annotation file.
        ValueError: It is not a caption file, or an entry is malformed; the message names both.
    """

    def __init__(
        self, ann_file: str, data_root: str = '', data_prefix: dict | None = None, **kwargs: object
    ) -> None:
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix or dict(img_path=''),
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Join the captions to their images."""
        content = read_json(self.ann_file)
        tables = [content.get(key) for key in ('images', 'annotations')] if _is(content) else []
        if not tables or not all(isinstance(table, list) and table for table in tables):
            raise ValueError(
                f'{self.ann_file} needs lists `images` and `annotations` with entries: use '
                'captions_train2017.json or captions_val2017.json.'
            )
        images, annotations = tables
        folder = Path(self.data_prefix['img_path'] or '')
        records = {}
        for number, image in enumerate(images):
            self._check(image, dict(id=int, file_name=str), f'images[{number}]')
            records[image['id']] = dict(img_path=str(folder / image['file_name']), text=[])
        for number, entry in enumerate(annotations):
            where = f'annotations[{number}]'
            self._check(entry, dict(image_id=int, caption=str), where)
            if entry['image_id'] not in records:
                raise ValueError(
                    f'{self.ann_file}, {where} belongs to image {entry["image_id"]}, which is not '
                    'among `images`: remove the entry.'
                )
            if entry['caption'].strip():
                records[entry['image_id']]['text'].append(entry['caption'].strip())
        for key, record in records.items():
            if not record['text']:
                raise ValueError(
                    f'{self.ann_file}: image {key} ({record["img_path"]}) has no caption: add one '
                    'or remove the image.'
                )
        return list(records.values())

    def _check(self, entry: object, types: dict[str, type], where: str) -> None:
        for key, kind in types.items():
            if not _is(entry) or not isinstance(entry.get(key), kind):
                raise ValueError(
                    f'{self.ann_file}, {where} must be an object with {key!r} of type '
                    f'{kind.__name__}, not {entry!r:.80}.'
                )


def _is(value: object) -> bool:
    return isinstance(value, dict)
