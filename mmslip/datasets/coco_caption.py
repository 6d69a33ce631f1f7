"""COCO Captions."""

from pathlib import Path

from mmslip.datasets.base import CaptionedDataset
from mmslip.datasets.io.json_rows import coco_rows
from mmslip.datasets.io.json_text import read_json
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
        **kwargs: Arguments of :class:`CaptionedDataset` (``captions`` above all) and of mmengine's
            ``BaseDataset``.

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
        folder = Path(self.data_prefix['img_path'] or '')
        records = []
        for where, row in coco_rows(content if isinstance(content, dict) else {}, self.ann_file):
            record = dict(img_path=str(folder / row['image']), text=row['caption'])
            if not record['text'] and self.captions == 'required':
                raise ValueError(
                    f'{where} ({record["img_path"]}) has no caption: add one, remove the image, or '
                    "let the data set take it: captions='optional'."
                )
            if not record['text'] or self.captions == 'ignored':
                del record['text']
            records.append(record)
        return records
