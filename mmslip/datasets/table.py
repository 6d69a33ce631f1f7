"""Pairs listed in a caption table: sets of many millions of images."""

import copy
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.dataset import force_full_init

from mmslip.datasets.base import CaptionedDataset
from mmslip.datasets.caption_table import CaptionTable
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
        **kwargs: Arguments of mmengine's ``BaseDataset``, ``pipeline`` above all; ``indices`` takes
            the first rows (an int), the last (a negative one) or those listed.

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
        ...     pipeline=train_pipeline)
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

    def full_init(self) -> None:
        """Open the table."""
        if self._fully_initialized:
            return
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
        return dict(
            **self.find_image(key),
            text=captions,
            sample_idx=int(idx) if idx >= 0 else len(self) + int(idx),
        )

    def find_image(self, key: str) -> dict:
        """Make the pipeline's fields of an image out of its key in the table."""
        return dict(img_path=os.path.join(self.data_prefix['img_path'], key))

    @force_full_init
    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep the first, the last or the listed samples."""
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
        """The same as a data set of its own."""
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
        max_open_zips: Archives that a process keeps open, about 0.5 MB each. In shuffled order
            hardly any is met again soon, so there is no use in many.
        **kwargs: Arguments of :class:`TableDataset`.

    Raises:
        FileNotFoundError: There is no such archive.
        ValueError: A key is no row number, an archive lacks the photograph or is damaged; the
            message names archive and member.
    """

    def __init__(self, *args: object, max_open_zips: int = 8, **kwargs: object) -> None:
        self._zips = _OpenZips(max_open_zips)
        super().__init__(*args, **kwargs)

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
        return dict(img_bytes=self._zips.read(path, member), img_name=f'{path}:{member}')


class _OpenZips:
    """The archives read last, kept open.

    A process opens its own: an archive has one file offset, which a fork would share.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f'`max_open_zips` must be at least 1, not {limit}.')
        self.limit = limit
        self._owner = os.getpid()
        self._archives: dict[Path, zipfile.ZipFile] = {}  # the one used last comes last

    def read(self, path: Path, member: str) -> bytes:
        """Content of a member of an archive."""
        where = f'{path}:{member}'
        try:
            return self._archive(path).read(member)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'There is no archive {path} (for {member}): check `data_root` and `data_prefix` '
                'of the data set.'
            ) from error
        except KeyError as error:
            raise ValueError(
                f'There is no {where}: fetch the photograph, or leave it out of the caption table '
                '(--downloaded of tools/dataset_converters/yfcc15m.py).'
            ) from error
        # RuntimeError: encrypted, NotImplementedError among them: packed in an unknown way.
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise ValueError(
                f'{where} cannot be read ({error}): copy the archive again.'
            ) from error

    def _archive(self, path: Path) -> zipfile.ZipFile:
        if self._owner != os.getpid():
            self._owner, self._archives = os.getpid(), {}
        archive = self._archives.pop(path, None) or zipfile.ZipFile(path)
        self._archives[path] = archive
        if len(self._archives) > self.limit:
            self._archives.pop(next(iter(self._archives))).close()
        return archive

    def __reduce__(self) -> tuple:
        return type(self), (self.limit,)
