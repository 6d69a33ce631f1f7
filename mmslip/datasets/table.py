"""Pairs listed in a caption table: sets of many millions of images."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.dataset import force_full_init

from mmslip.datasets.base import CaptionedDataset
from mmslip.datasets.io.caption_table import CaptionTable
from mmslip.datasets.io.captions import text_of
from mmslip.datasets.io.faults import MissingImageError
from mmslip.datasets.io.zip_member import read_member
from mmslip.registry import DATASETS

__all__ = ['TableDataset', 'YFCC15MDataset']


@DATASETS.register_module()
class TableDataset(CaptionedDataset):
    """Images of a folder with the captions of a :class:`CaptionTable`.

    Nothing is loaded but what a sample needs: there is no Python object per row, so opening takes
    milliseconds and workers copy nothing. Where a row has several captions, one is drawn at every
    visit. ``tools/dataset_converters`` makes tables.

    Args:
        ann_file: Folder of the table; relative to ``data_root`` if that is given.
        data_root: Folder that ``ann_file`` and ``data_prefix`` are relative to.
        data_prefix: ``dict(img_path=FOLDER)``, the folder that keys are relative to.
        **kwargs: Arguments of :class:`CaptionedDataset` (``captions`` above all) and of mmengine's
            ``BaseDataset``; ``indices`` takes the first rows (an int), the last (a negative one) or
            those listed.

    Raises:
        FileNotFoundError: The table does not exist.
        ValueError: The table is damaged.
        IndexError: ``indices`` lists a row that the table does not have.

    Example:
        >>> dataset = dict(
        ...     type='mmslip.TableDataset',
        ...     data_root='data/mine',
        ...     ann_file='train.table',
        ...     data_prefix=dict(img_path='images'),
        ...     pipeline=pipeline)
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = '',
        data_prefix: dict | None = None,
        **kwargs: object,
    ) -> None:
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix or dict(img_path=''),
            **kwargs,
        )

    def load_all(self) -> None:
        """Open the table."""
        try:
            self._table = CaptionTable(self.ann_file)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'{error} In a config that is `ann_file` and `data_root` of the data set.'
            ) from None
        # The rows of this data set: a range, or int64 of (rows,) for a list. Neither has an object
        # per row whose reference count workers would write to.
        self._order: range | np.ndarray = range(len(self._table))
        self._fully_initialized = True
        if self._indices is not None:
            self.get_subset_(self._indices)

    @force_full_init
    def __len__(self) -> int:
        return len(self._order)

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Image and captions of one sample."""
        key, captions = self._table[int(self._order[idx])]
        where = f'Row {self._order[idx]} ({key}) of {self.ann_file}'
        return dict(
            text_of(dict(caption=captions), ['caption'], where, self.captions),
            **self.find_image(key),
            sample_idx=int(idx) if idx >= 0 else len(self) + int(idx),
        )

    @force_full_init
    def identify(self, index: int) -> str:
        """Key and captions of a sample."""
        return repr(self._table[int(self._order[index])])

    @force_full_init
    def identify_image(self, index: int) -> str:
        """Key of a sample."""
        return self._table[int(self._order[index])][0]

    def find_image(self, key: str) -> dict:
        """Make the pipeline's fields of an image out of its key in the table."""
        return dict(img_path=os.path.join(self.data_prefix['img_path'], key))

    @force_full_init
    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep the first, the last or the listed samples."""
        self._decoded = {}
        if isinstance(indices, int):
            self._order = self._order[:indices] if indices >= 0 else self._order[indices:]
            return
        listed = np.asarray(indices, dtype=np.int64)
        wrong = listed[(listed < -len(self)) | (listed >= len(self))]
        if listed.ndim != 1 or len(wrong):
            raise IndexError(
                f'`indices` must be an int or a list of rows of {self.ann_file}, of which there '
                f'are {len(self)}; not {wrong[:3].tolist() or indices}.'
            )
        listed = np.where(listed < 0, listed + len(self), listed)
        order = self._order
        self._order = listed + order.start if isinstance(order, range) else order[listed]

    @force_full_init
    def get_subset(self, indices: int | Sequence[int]) -> 'TableDataset':
        """A data set of the first, the last or the listed samples."""
        subset = copy.deepcopy(self)
        subset.get_subset_(indices)
        return subset


@DATASETS.register_module()
class YFCC15MDataset(TableDataset):
    """YFCC15M: the captioned part of YFCC100M (Thomee et al. 2016), in the layout SLIP reads.

    A key of the table is the row of the photograph in YFCC100M's metadata. Padded to eight digits,
    it says where the photograph is: 12345678 is ``678.jpg`` of ``12/345.zip`` in the image folder.
    ``tools/dataset_converters/yfcc15m.py`` makes the table.

    Args:
        **kwargs: Arguments of :class:`TableDataset`.

    Raises:
        FileNotFoundError: There is no such archive.
        ValueError: A key is no row number, an archive lacks the photograph or is damaged; the
            message names archive and member.
    """

    def find_image(self, key: str) -> dict:
        """Read the photograph."""
        if not (key.isascii() and key.isdecimal() and len(key) <= 8):
            raise ValueError(
                f'{self.ann_file} has the key {key!r}, which is no row of YFCC100M (0 to 99999999):'
                ' make the table with tools/dataset_converters/yfcc15m.py, or use '
                'mmslip.TableDataset for images in a folder.'
            )
        digits = key.zfill(8)
        path = Path(self.data_prefix['img_path'], digits[:2], f'{digits[2:5]}.zip')
        member = f'{digits[5:]}.jpg'
        where = f'{path}:{member}'
        # Nothing is kept open: in shuffled order hardly any archive is met again soon.
        try:
            return dict(img_bytes=read_member(path, member), img_name=where)
        except MissingImageError as error:
            raise ValueError(
                f'There is no {where}: fetch the photograph, or leave it out of the caption table '
                '(--downloaded of tools/dataset_converters/yfcc15m.py).'
            ) from error
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'There is no archive {path} (for {member}): check `data_root` and `data_prefix` '
                'of the data set.'
            ) from error
