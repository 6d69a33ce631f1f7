"""Scripts of ``tools/``, which is not a package, as modules."""

import io
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

__all__ = ['load_script', 'to_npy']

TOOLS = Path(__file__).parents[1] / 'tools'


def load_script(name: str) -> ModuleType:
    """Import ``tools/NAME.py`` as its command line would, with its folder on the path."""
    path = TOOLS / name
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)
        return import_module(path.name)


def to_npy(array: np.ndarray) -> bytes:
    """Content of a ``.npy`` file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()
