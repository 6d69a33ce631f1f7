"""Files of CIFAR-10 and CIFAR-100 "for Python", read without executing them.

They are pickles, and a pickle is a program: what it names is imported and called. Here only the
names are known with which NumPy writes an array, and each stands for a class of this file that
keeps what it is given; anything else ends the reading.
"""

import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

__all__ = ['read_batch', 'read_names']


class _Array:
    """An array of a pickle: shape, type, order and bytes."""

    def __init__(self, *_: object) -> None:
        self.state: tuple = ()

    def __setstate__(self, state: tuple) -> None:
        self.state = state


class _DType:
    """The type of an array."""

    def __init__(self, name: object, *_: object) -> None:
        self.name = name.decode('latin1') if isinstance(name, bytes) else name

    def __setstate__(self, state: tuple) -> None:
        """Nothing: bytes have no order."""


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 of Python 3 writes bytes."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'it holds bytes as text in {encoding!r}')
    return text.encode('latin1')


class _Unpickler(pickle.Unpickler):
    known: ClassVar = {
        ('numpy', 'ndarray'): _Array,
        ('numpy', 'dtype'): _DType,
        ('numpy.core.multiarray', '_reconstruct'): _Array,
        ('numpy._core.multiarray', '_reconstruct'): _Array,
        ('_codecs', 'encode'): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(
                f'it names {module}.{name}, which CIFAR has no need of and which could run code'
            )
        return self.known[module, name]


def read_batch(path: Path, num_classes: int) -> tuple[np.ndarray, list[int]]:
    """Images and labels of a file such as ``data_batch_1``, ``test_batch`` or ``train``.

    Args:
        path: The file.
        num_classes: Labels are below it: 10, of ``labels``, or 100, of ``fine_labels``.

    Returns:
        RGB uint8 ``(N, 32, 32, 3)`` and N labels.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not in this layout.
    """
    content = _read(path)
    labels = content.get('labels', content.get('fine_labels'))
    data = content.get('data')
    match getattr(data, 'state', None):
        case (_, (int(number), 3072), _DType(name='u1'), fortran, bytes(pixels)):
            order = 'F' if fortran else 'C'
        case _:
            raise ValueError(f'{path} is refused: its `data` is no uint8 array (N, 3072).')
    if len(pixels) != number * 3072:
        raise ValueError(f'{path} is damaged: its `data` ends early. Unpack the archive again.')
    rows = np.frombuffer(pixels, np.uint8).reshape(number, 3072, order=order)
    whole = isinstance(labels, list) and len(labels) == number
    if not whole or not all(type(k) is int and 0 <= k < num_classes for k in labels):
        raise ValueError(f'{path} is refused: it needs {number} labels below {num_classes}.')
    return rows.reshape(number, 3, 32, 32).transpose(0, 2, 3, 1), labels  # planes to pixels


def read_names(path: Path) -> tuple[str, ...]:
    """Names of the classes, of ``batches.meta`` (CIFAR-10) or ``meta`` (CIFAR-100).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not in this layout.
    """
    content = _read(path)
    names = content.get('label_names', content.get('fine_label_names'))
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise ValueError(f'{path} is refused: it has no list of class names.')
    return tuple(name if isinstance(name, str) else name.decode('latin1') for name in names)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f'There is no {path}: unpack all of the archive.')
    with path.open('rb') as file:
        try:
            content = _Unpickler(file, encoding='bytes').load()
        except Exception as error:  # a damaged pickle fails in many ways
            raise ValueError(
                f'{path} is refused: {error or type(error).__name__}. Nothing of it has been '
                'executed. Unpack the original archive again.'
            ) from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} is refused: it holds no table of images.')
    # Python 2 wrote the keys as bytes.
    return {k.decode('latin1') if isinstance(k, bytes) else k: v for k, v in content.items()}
