"""Files that are whole or not there, and short paths."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ['from_here', 'whole_file']


def from_here(path: str | Path) -> str:
    """A path to be read and copied: relative where it lies in the current folder."""
    here, path = Path.cwd(), Path(path)
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, which takes the place of ``path`` when the block ends well.

    Whoever reads ``path`` finds the old content or the new one, never a part of it, even after a
    loss of power; a block that raises leaves nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: writers such as NumPy's append one that is missing.
    part = path.with_name(f'.{path.stem}.{os.getpid()}.part{path.suffix}')
    try:
        yield part
        with part.open('rb+') as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
