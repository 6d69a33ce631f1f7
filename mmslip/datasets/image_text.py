"""Images and captions listed in a text file: JSON lines, JSON, CSV, TSV and others."""

from collections.abc import Sequence
from pathlib import Path

from mmslip.datasets.base import CaptionedDataset
from mmslip.datasets.io.captions import as_list, text_of
from mmslip.datasets.io.rows import read_rows
from mmslip.registry import DATASETS

__all__ = ['ImageTextDataset', 'read_pair']


@DATASETS.register_module()
class ImageTextDataset(CaptionedDataset):
    r"""Your own pairs: a table with an image path and one or more captions in each row.

    The kind of table follows from its name: ``.jsonl`` (one JSON object a line; a caption may be a
    string or a list of strings), ``.csv`` or ``.tsv`` (with a header line), ``.json`` (a list of
    objects, COCO's or Karpathy's annotations), ``.txt`` (Flickr8k's), see
    :func:`mmslip.datasets.io.rows.read_rows`. Rows of the same image become one sample, which has
    the captions of all of them: in one batch, they would be each other's negatives. Where a sample
    has several captions, one is drawn at every visit.

    Args:
        ann_file: The table; relative to ``data_root`` if that is given.
        data_root: Folder that ``ann_file`` and ``data_prefix`` are relative to.
        data_prefix: ``dict(img_path=FOLDER)``, the folder that image paths are relative to.
        image_key: Column of the image path.
        caption_keys: Columns of captions; empty cells are passed over as long as a row has one
            caption.
        **kwargs: Arguments of :class:`CaptionedDataset` (``captions='optional'`` for rows without a
            caption) and of mmengine's ``BaseDataset``, ``pipeline`` above all.

    Raises:
        FileNotFoundError: The table does not exist.
        ValueError: A column is unknown, or a row is malformed, has no image or has no caption; the
            message names file and row.

    Example:
        >>> dataset = dict(
        ...     type='mmslip.ImageTextDataset',
        ...     data_root='data/mine',
        ...     ann_file='train.jsonl',  # {"image": "a/1.jpg", "caption": "a red chair"}
        ...     data_prefix=dict(img_path='images'),
        ...     pipeline=pipeline)
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = '',
        data_prefix: dict | None = None,
        image_key: str = 'image',
        caption_keys: str | Sequence[str] = 'caption',
        **kwargs: object,
    ) -> None:
        self.image_key = image_key
        self.caption_keys = as_list(caption_keys)
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix or dict(img_path=''),
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Read the table."""
        path = Path(self.ann_file)
        if not path.is_file():
            raise FileNotFoundError(
                f'There is no table {path}: check `ann_file` and `data_root` of the data set.'
            )
        folder = Path(self.data_prefix['img_path'] or '')
        samples: dict[str, dict] = {}
        for where, row in read_rows(path):
            image, text = read_pair(row, self.image_key, self.caption_keys, where, self.captions)
            sample = samples.setdefault(image, dict(img_path=str(folder / image)))
            if text:
                sample['text'] = [*sample.get('text', ()), *text['text']]
        records = list(samples.values())
        if not records:
            raise ValueError(f'{path} has no rows.')
        if self.captions == 'optional' and not any('text' in record for record in records):
            raise ValueError(
                f'No row of {path} has a caption under {", ".join(self.caption_keys)}: correct '
                "`caption_keys` of the data set, or set captions='ignored'."
            )
        return records


def read_pair(
    row: dict, image_key: str, caption_keys: Sequence[str], where: str, use: str = 'required'
) -> tuple[str, dict[str, list[str]]]:
    """Image and ``text`` of a row of :func:`mmslip.datasets.io.rows.read_rows`.

    Args:
        row: The row.
        image_key: Column of the image path.
        caption_keys: Columns of captions.
        where: File and line, for messages.
        use: One of :data:`mmslip.datasets.io.captions.CAPTION_USES`; only required columns have to
            be there.

    Raises:
        ValueError: A column is unknown, has another type, or has nothing in it.
    """
    for key in (image_key, *(caption_keys if use == 'required' else ())):
        if key not in row:
            raise ValueError(
                f'{where} has no column {key!r}; it has {", ".join(map(repr, row))}. '
                'Set `image_key` and `caption_keys` of the data set to its names.'
            )
    image = row[image_key]
    if not isinstance(image, str) or not image.strip():
        raise ValueError(f'{where}: {image_key!r} must be the path of an image, not {image!r:.60}.')
    return image.strip(), text_of(row, caption_keys, where, use)
