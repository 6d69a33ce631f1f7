"""Files named by shell patterns."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from braceexpand import UnbalancedBracesError, braceexpand

__all__ = ['expand_braces', 'expand_patterns']


def expand_patterns(patterns: str | Sequence[str], root: str, argument: str) -> list[Path]:
    """Files of shell patterns (``*``, ``{000..127}``) relative to a folder, in order.

    A path that is there as it stands is no pattern, nor are the folders at its beginning that are
    there: they may have brackets, braces and stars in their names.

    Raises:
        FileNotFoundError: A pattern matches no file; the message names it and ``argument``.
    """
    paths = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        for path in map(Path, expand_braces(str(Path(root, pattern)))):
            found = [path] if os.path.exists(path) else _matches(path)
            if not found:
                raise FileNotFoundError(
                    f'No file matches {path}: check `{argument}` and `data_root` of the data set.'
                )
            paths += found
    return paths


def expand_braces(pattern: str) -> list[str]:
    """Paths of a pattern with ranges in braces, but for folders that are there as they stand."""
    path = Path(pattern)
    if os.path.exists(path):  # unlike the method, also for what is too long for a name
        return [pattern]
    folder = _existing_part(path)
    return [str(folder / name) for name in _expand(str(path.relative_to(folder)))]


def _expand(pattern: str) -> Iterator[str]:
    try:
        yield from braceexpand(pattern)
    except UnbalancedBracesError:  # a name
        yield pattern


def _existing_part(path: Path) -> Path:
    return next(folder for folder in path.parents if os.path.isdir(folder))


def _matches(path: Path) -> list[Path]:
    folder = _existing_part(path)
    names = glob.glob(str(path.relative_to(folder)), root_dir=folder)
    return [folder / name for name in sorted(names)]
