"""Conceptual Captions: CC3M and CC12M."""

import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmslip.datasets.base import CaptionedDataset
from mmslip.datasets.io.captions import captions_of
from mmslip.datasets.io.presence import keep_usable
from mmslip.datasets.io.record_table import RecordTable
from mmslip.registry import DATASETS

__all__ = ['ConceptualCaptionsDataset']


@DATASETS.register_module()
class ConceptualCaptionsDataset(CaptionedDataset):
    r"""The published table of captions and links, with the images that a downloader saved. ::

        data/cc3m/
        |-- Train_GCC-training.tsv            caption<TAB>url; in cc12m.tsv: url<TAB>caption
        `-- images/00000/000000012.jpg, ...   named after the row, 0 is the first

    Rows whose image is absent, because its link has died, are left out; the log says how many.
    Quotation marks mean nothing in these tables. A first line with the columns' names is passed
    over.

    Args:
        ann_file: The table; relative to ``data_root`` if that is given.
        image_name: How image files are named: a format string of ``row`` (counted from 0),
            ``folder`` (``row // rows_per_folder``) and ``crc32`` (of the link).
            ``'{folder:05d}/{row:09d}.jpg'`` is what img2dataset writes with
            ``output_format='files'``; ``'{row}_{crc32}'`` and ``'{crc32}'`` are other common ones.
        columns: Names of the table's columns: ``('caption', 'url')`` for CC3M,
            ``('url', 'caption')`` for CC12M.
        rows_per_folder: See ``image_name``.
        data_root: Folder that ``ann_file`` and ``data_prefix`` are relative to.
        data_prefix: ``dict(img_path=FOLDER)``, the folder that ``image_name`` is relative to.
        **kwargs: Arguments of :class:`CaptionedDataset` (``captions`` above all) and of mmengine's
            ``BaseDataset``.

    Raises:
        FileNotFoundError: There is no such table, or none of the images exists.
        ValueError: ``image_name``, ``columns`` or a line of the table is malformed; the message
            names file and line.
    """

    def __init__(
        self,
        ann_file: str,
        image_name: str,
        columns: Sequence[str] = ('caption', 'url'),
        rows_per_folder: int = 10_000,
        data_root: str = '',
        data_prefix: dict | None = None,
        **kwargs: object,
    ) -> None:
        self.columns = list(columns)
        self.image_name = image_name
        self.rows_per_folder = rows_per_folder
        if (self.columns.count('caption'), self.columns.count('url')) != (1, 1):
            raise ValueError(f"columns must hold 'caption' and 'url' once each, not {columns}.")
        try:
            names = {self._name(row, '') for row in (0, 1)} | {self._name(0, 'url')}
        except (LookupError, ValueError, TypeError) as error:
            raise ValueError(
                f'image_name {image_name!r} is not a format string of row, folder and crc32 '
                f"({error!r}), such as '{{folder:05d}}/{{row:09d}}.jpg'."
            ) from error
        if len(names) == 1:
            raise ValueError(
                f'image_name {image_name!r} needs {{row}} or {{crc32}} to tell images.'
            )
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix or dict(img_path=''),
            serialize_data=False,  # the table is packed already
            **kwargs,
        )

    def load_data_list(self) -> RecordTable:
        """Read the table."""
        remedy = (
            f'check `image_name` ({self.image_name!r}), `data_root` and `data_prefix` of the data '
            'set against the names of the files.'
        )
        return RecordTable(keep_usable(self._records(), self.ann_file, remedy, self.captions))

    def _records(self) -> Iterator[dict]:
        folder = self.data_prefix['img_path'] or ''
        for row, cells in enumerate(self._rows()):
            yield dict(
                img_path=os.path.join(folder, self._name(row, cells['url'])),
                text=captions_of(cells, ['caption'], f'{self.ann_file}, row {row}'),
            )

    def _name(self, row: int, url: str) -> str:
        return self.image_name.format(
            row=row, folder=row // self.rows_per_folder, crc32=zlib.crc32(url.encode('utf-8'))
        )

    def _rows(self) -> Iterator[dict[str, str]]:
        path = Path(self.ann_file)
        if not path.is_file():
            raise FileNotFoundError(
                f'There is no table {path}: check `ann_file` and `data_root` of the data set.'
            )
        with path.open('rb') as file:  # as text, other characters than \n would end lines, too
            for line, content in enumerate(file, 1):
                try:
                    cells = content.decode('utf-8').rstrip('\r\n').split('\t')
                except UnicodeDecodeError as error:
                    raise ValueError(f'{path}, line {line} is not UTF-8 ({error}).') from error
                if cells == [''] or (line == 1 and cells == self.columns):
                    continue
                if len(cells) != len(self.columns):
                    raise ValueError(
                        f'{path}, line {line} has {len(cells)} cells between tabs, not '
                        f'{", ".join(self.columns)}: set `columns` of the data set, or correct the '
                        'line.'
                    )
                yield dict(zip(self.columns, cells, strict=True))
