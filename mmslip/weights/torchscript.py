"""Weights of TorchScript archives, taken out without running the code that lies beside them."""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ['is_torchscript', 'read_torchscript']

_DTYPES = dict(
    FloatStorage=torch.float32,
    HalfStorage=torch.float16,
    BFloat16Storage=torch.bfloat16,
    DoubleStorage=torch.float64,
    LongStorage=torch.int64,
    IntStorage=torch.int32,
    BoolStorage=torch.bool,
)


class _Module:
    """Stands for any module of an archive: a bag of its attributes."""

    state: dict = {}  # noqa: RUF012  (never changed)

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}

    def tensors(self, prefix: str = '') -> Iterator[tuple[str, Tensor]]:
        """Tensors of this module and those in it, by their names in a state dict."""
        for name, value in self.state.items():
            if isinstance(value, Tensor):
                yield f'{prefix}{name}', value
            elif isinstance(value, _Module):
                yield from value.tensors(f'{prefix}{name}.')


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)  # which refuses what lies outside


class _Unpickler(pickle.Unpickler):
    """Knows modules, tensors and plain values, and refuses all else."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f'{root}/data.pkl'))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module.split('.')[0] == '__torch__':
            return _Module
        if module == 'torch' and name in _DTYPES:
            return _DTYPES[name]
        if module == 'torch.jit._pickle' and name in ('build_intlist', 'build_tensorlist'):
            return list
        known = {
            'torch._utils._rebuild_tensor_v2': _rebuild_tensor,
            'collections.OrderedDict': OrderedDict,
        }
        if f'{module}.{name}' in known:
            return known[f'{module}.{name}']
        raise pickle.UnpicklingError(f'it names {module}.{name}, which is not executed')

    def persistent_load(self, pid: tuple) -> Tensor:
        _, dtype, key, _, _ = pid
        content = bytearray(self.archive.read(f'{self.root}/data/{key}'))
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive of ``torch.jit.save``."""
    return _root_of(path) is not None


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Read the tensors of an archive, such as the files of OpenAI's CLIP are.

    ``torch.jit.load`` would compile the code in it. This reads its tensors alone.

    Raises:
        RuntimeError: It is damaged, or holds objects other than modules, tensors and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            module = _Unpickler(archive, _root_of(path)).load()
            return dict(module.tensors())
    except pickle.UnpicklingError as error:
        raise RuntimeError(f'{path} was refused: {error}.') from error
    except Exception as error:  # a damaged archive fails in many ways, all of which mean this
        raise RuntimeError(f'{path} is a damaged TorchScript archive. ({error})') from error


def _root_of(path: Path) -> str | None:
    """The folder within the archive, whose name is free."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):  # no archive, or a damaged one
        return None
    end = '/constants.pkl'
    return next((name.removesuffix(end) for name in names if name.endswith(end)), None)
