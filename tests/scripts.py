"""Scripts of ``tools/``, which is not a package, as modules; programs of this checkout."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

__all__ = ['environment', 'kill_group', 'lines_of', 'load_script', 'to_npy']

ROOT = Path(__file__).parents[1]


def load_script(name: str) -> ModuleType:
    """Import ``tools/NAME.py`` as its command line would, with its folder on the path."""
    path = ROOT / 'tools' / name
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)
        return import_module(path.name)


def environment(*folders: object, **values: str) -> dict[str, str]:
    """That of this process, where modules of ``folders`` and of this checkout are found first.

    So are programs beside Python itself, such as ``torchrun``.
    """

    def prepend(name: str, *paths: object) -> str:
        return os.pathsep.join(map(str, (*paths, *filter(None, [os.environ.get(name)]))))

    return dict(
        os.environ,
        PYTHONPATH=prepend('PYTHONPATH', *folders, ROOT),
        PATH=prepend('PATH', Path(sys.executable).parent),
        **values,
    )


@contextmanager
def lines_of(command: Sequence[object], **options: object) -> Iterator[subprocess.Popen]:
    """A program in a group of its own, whose output and errors are ``stdout``, as text.

    Nothing of the group is left when the block ends with an error.
    """
    with subprocess.Popen(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    ) as process:
        try:
            yield process
        except BaseException:
            kill_group(process)
            raise


def kill_group(process: subprocess.Popen) -> None:
    """End a program of ``lines_of`` and all that it has started, if any of it still runs."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def to_npy(array: np.ndarray) -> bytes:
    """Content of a ``.npy`` file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()
