"""Read pickles of plain values without executing them.

A pickle is a program: what it names is imported and called (Python's documentation of `pickle`).
Here only the few names are known that NumPy writes arrays and scalars with, and each stands for a
function of this file that makes Python values. NumPy's own functions are not called, since they
trust the dtype of the file, with which raw bytes can pass for pointers to objects.
"""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

__all__ = ['load_npy', 'load_pickle']

_PLAIN_DTYPE = re.compile(r'[<>=|]?([?biufSU]\d*|O8?)')


class _DType:
    """Type of an array in a pickle: name, then byte order in its state."""

    def __init__(self, name: object, *_: object) -> None:
        if not isinstance(name, str) or not _PLAIN_DTYPE.fullmatch(name):
            raise pickle.UnpicklingError(f'it holds an array of type {name!r}, no plain type')
        self.type = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ('<', '>'):
            self.type = self.type.newbyteorder(state[1])

    def values(self, content: Any) -> list:
        """Python values of a raw buffer, or of the list that an object array has instead."""
        if isinstance(content, list) == self.type.hasobject:
            values = content if self.type.hasobject else np.frombuffer(content, self.type).tolist()
            return list(values)
        raise pickle.UnpicklingError('it holds an array whose content does not fit its type')


class _Array(list):
    """An array of one dimension as a list."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, _, content = state
        self._fill(shape, dtype, content)

    def _fill(self, shape: tuple, dtype: _DType, content: Any) -> None:
        self[:] = dtype.values(content)
        if not isinstance(shape, tuple) or shape != (len(self),):
            raise pickle.UnpicklingError(f'it holds an array of shape {shape}; not a plain list')


def _from_buffer(content: Any, dtype: _DType, shape: tuple, order: str) -> _Array:
    array = _Array()
    array._fill(shape, dtype, content)
    return array


def _encode(text: str, encoding: str) -> bytes:
    # How protocol 2 writes bytes.
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'it holds bytes as text in {encoding!r}')
    return text.encode('latin1')


_KNOWN: dict[tuple[str, str], Callable | str] = {
    ('numpy', 'ndarray'): 'ndarray',  # only ever an argument of _reconstruct
    ('numpy', 'dtype'): _DType,
    ('_codecs', 'encode'): _encode,
}
for _core in ('numpy.core', 'numpy._core'):
    _KNOWN[f'{_core}.multiarray', '_reconstruct'] = lambda *_: _Array()
    _KNOWN[f'{_core}.multiarray', 'scalar'] = lambda dtype, content: dtype.values(content)[0]
    _KNOWN[f'{_core}.numeric', '_frombuffer'] = _from_buffer


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(
                f'it names {module}.{name}, which a list of images and captions has no need of and '
                'which could run code'
            )
        return _KNOWN[module, name]


# What a refused pickle ends in, and what a damaged one may.
_FAILURES = (
    *(pickle.UnpicklingError, ValueError, TypeError, AttributeError, EOFError, LookupError),
    *(OverflowError, MemoryError),
)


def _load(file: IO[bytes], path: Path) -> Any:
    try:
        return _PlainUnpickler(file).load()
    except _FAILURES as error:
        raise ValueError(
            f'{path} is refused: {error or type(error).__name__}. Nothing of it has been executed. '
            'If you trust where it comes from, write its rows as .jsonl and use to_table.py.'
        ) from error


def load_pickle(path: Path) -> Any:
    """Value of a pickle file; arrays come as lists.

    Raises:
        ValueError: The pickle names anything but plain values, or is damaged.
    """
    with path.open('rb') as file:
        return _load(file, path)


def load_npy(path: Path) -> list:
    """Rows of a ``.npy`` file, of plain values or of objects.

    Raises:
        ValueError: The objects are not plain values, or the file is no such array.
    """
    with path.open('rb') as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read = np.lib.format.read_array_header_2_0
            dtype = read(file)[2]
        except (ValueError, KeyError) as error:
            raise ValueError(f'{path} is no .npy file ({error}): copy it again.') from error
        if dtype.hasobject:
            return _load(file, path)
    return np.load(path, allow_pickle=False).tolist()
