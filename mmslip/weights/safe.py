"""Loading checkpoints as data, never as code."""

import argparse
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmslip.weights.torchscript import is_torchscript

__all__ = ['load_checkpoint_file']


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
    """The functions and types that rebuild NumPy values, under the names of NumPy 1 and 2."""
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
    if is_torchscript(path):
        raise RuntimeError(
            f'{path} was refused: it is a TorchScript archive, which is a program. mmslip never '
            'runs code from a checkpoint: name one that was saved in training.'
        )
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
