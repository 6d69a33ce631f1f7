"""Loading checkpoints as data, never as code."""

import argparse
import logging
import pickle
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader

__all__ = ['load_checkpoint_file', 'newest_checkpoint', 'whole_checkpoints']


class _Inert:
    """Stands for an object that a checkpoint names and that training does not need."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _inert_getattr(*args: Any) -> type[_Inert]:
    """Replaces ``getattr`` while unpickling: with the real one a file could reach any function."""
    return _Inert


def _numpy_globals() -> list:
    """What NumPy scalars and arrays are rebuilt from, under the names of NumPy 1 and 2."""
    multiarray = np._core.multiarray if hasattr(np, '_core') else np.core.multiarray
    rebuild = [
        (getattr(multiarray, function), f'numpy.{core}.multiarray.{function}')
        for core in ('core', '_core')
        for function in ('_reconstruct', 'scalar')
    ]
    dtypes = [type(np.dtype(kind)) for kind in '?bBhHiIlLqQefdSU']
    return [*rebuild, np.ndarray, np.dtype, *dtypes]


# Files of stock mmengine hold its log buffers, files of research code their command line; neither
# can act: buffers become inert, a Namespace is a bag of values.
_ALLOWED = [
    (_Inert, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (_inert_getattr, 'builtins.getattr'),
    argparse.Namespace,
    *_numpy_globals(),
]


def load_checkpoint_file(
    filename: str | Path, map_location: Any = 'cpu', mmap: bool = False
) -> dict:
    """Load a checkpoint without executing anything it contains.

    Takes the checkpoints of mmslip, of stock mmengine (without their log history) and of the
    official SLIP repository.

    Args:
        filename: A local file.
        map_location: As in :func:`torch.load`.
        mmap: Read tensors from the file when they are used, as in :func:`torch.load`.

    Raises:
        FileNotFoundError: There is no such file.
        RuntimeError: The file is damaged, is no checkpoint, or holds objects that would have to run
            code.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'There is no checkpoint {path}: check the path and the work_dir.')
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            return torch.load(path, map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        reason = next((line for line in str(error).splitlines() if 'nsupported' in line), '')
        raise RuntimeError(
            f'{path} was refused: it is no PyTorch checkpoint, or holds objects other than tensors '
            f'and plain values. {reason.strip()} mmslip never runs code from a checkpoint; if you '
            'trust the file, extract its state_dict into a new file in its own environment.'
        ) from error
    except Exception as error:  # a damaged file fails in many ways, all of which mean this
        raise RuntimeError(
            f'{path} cannot be read: it is damaged, perhaps truncated by a full disk. '
            f'Use an earlier checkpoint of the same folder. ({error})'
        ) from error


def newest_checkpoint(folders: Iterable[str | Path]) -> Path | None:
    """The checkpoint saved last that a run can be resumed from, or None where there are none.

    Args:
        folders: Where ``*.pth`` files are looked for, not in folders below.

    Raises:
        RuntimeError: There are checkpoints, but none is whole. Starting anew would overwrite what
            may be worth saving.
    """
    folders = list(folders)
    newest = next(whole_checkpoints(folders), None)
    damaged = [] if newest else _candidates(folders)
    if damaged:
        names = ', '.join(path.name for path in damaged)
        raise RuntimeError(
            f'No checkpoint in {damaged[0].parent} is whole ({names}). Move these files away to '
            'start anew, or name a checkpoint elsewhere: --resume PATH.'
        )
    return newest


def whole_checkpoints(folders: Iterable[str | Path]) -> Iterator[Path]:
    """Checkpoints that a run can be resumed from, the one saved last first.

    A file counts if the safe loader takes it, if it holds what mmengine's ``resume`` reads, and if
    every byte fits its checksum. Others are passed by with a warning. Which one is newer is read
    from the files (``meta.saved_at``), since copying may change their dates. Checkpoints of the
    best score (``best_*``) hold no optimiser and are left alone.
    """
    found = []
    for path in _candidates(folders):
        try:
            found.append((*_saved_at(path), path))
        except (FileNotFoundError, RuntimeError) as error:
            print_log(f'Not resumed from: {error}', 'current', level=logging.WARNING)
    for *_, path in sorted(found, reverse=True):
        if _checksums_fit(path):
            yield path
        else:
            message = f'Not resumed from: {path} is damaged, its checksums do not fit.'
            print_log(message, 'current', level=logging.WARNING)


def _candidates(folders: Iterable[str | Path]) -> list[Path]:
    paths = {path.absolute() for folder in folders for path in Path(folder).glob('*.pth')}
    # A dot begins the name of a file that is being written.
    return sorted(path for path in paths if not path.name.startswith(('best_', '.')))


def _saved_at(path: Path) -> tuple[float, int]:
    """When a checkpoint was saved, in seconds since 1970, and at what step."""
    checkpoint = load_checkpoint_file(path, mmap=zipfile.is_zipfile(path))
    parts = checkpoint if isinstance(checkpoint, dict) else {}
    meta = parts.get('meta')
    if not {'meta', 'state_dict', 'message_hub'} <= set(parts) or 'iter' not in meta:
        raise RuntimeError(f'{path} is not the state of a run, but weights alone or something else')
    return float(meta.get('saved_at', path.stat().st_mtime)), meta['iter']


def _checksums_fit(path: Path) -> bool:
    """Whether a file of PyTorch's format, a zip archive, is whole; PyTorch does not look."""
    if not zipfile.is_zipfile(path):
        return True  # the older format, which has been read from end to end and has no checksums
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError):
        return False


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Replace mmengine's loader of local files, for ``resume``, ``load_from`` and ``init_cfg``.

    Takes folders and ``.safetensors`` files as well, and gives weights of the libraries that
    :mod:`mmslip.models.adapters` knows our names.

    mmengine names the backend in its log by cutting ten characters off this function's name.
    """
    from mmslip.models.adapters import adapt_checkpoint, read_weights  # which import this module

    checkpoint = adapt_checkpoint(read_weights(filename, map_location), filename)
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get('meta'), dict):
        # mmengine's `resume` would execute it, to compare numbers of GPUs.
        checkpoint['meta'].pop('config', None)
    return checkpoint
