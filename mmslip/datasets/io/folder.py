"""Images of a folder and what lies below it."""

import os
from collections import Counter
from pathlib import Path, PurePath

from mmengine.logging import print_log

__all__ = ['IMAGE_SUFFIXES', 'class_of', 'is_hidden', 'is_image', 'list_images']

# Of the formats that `decode_image` reads; the first ones first where a sample has several.
IMAGE_SUFFIXES = (
    *('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff', '.avif', '.jfif', '.jpe'),
    *('.ppm', '.pgm', '.pbm', '.pnm', '.jp2', '.j2k', '.j2c', '.jpc', '.jpf', '.jpx', '.dib'),
    *('.apng', '.avifs', '.mpo'),
)


def is_image(name: str) -> bool:
    """Whether a file's suffix is one of :data:`IMAGE_SUFFIXES`, in either case."""
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether a name, without folder, is of a file that programs keep beside those of the user."""
    return name.startswith('.') or name == '__MACOSX'


def class_of(name: str) -> str:
    """The first folder of an image of :func:`list_images`; empty for one in no folder."""
    return name.partition('/')[0] if '/' in name else ''


def list_images(folder: Path) -> list[str]:
    """Names of the images in a folder and below it, sorted, relative to it.

    Hidden files and folders are left out, ``__MACOSX`` of archives among them. Links are followed,
    but no folder is entered twice: what several names lead to has the one without links, or the
    first. A line of the log counts what is passed over.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'There is no folder {folder}.')
    walk = _Walk(folder)
    if walk.passed:
        kinds = ', '.join(f'{number:,} {kind}' for kind, number in walk.passed.most_common(10))
        print_log(f'{folder}: {len(walk.names):,} images; passed over: {kinds}.', logger='current')
    return sorted(walk.names)


class _Walk:
    """Names of the images below a folder, and how many of what else there are."""

    def __init__(self, folder: Path) -> None:
        self.names: list[str] = []
        self.passed: Counter[str] = Counter()
        self._folder = str(folder)
        self._entered: set[tuple[int, int]] = set()
        self._folders, self._links = [self._folder], []
        # Links wait for the folders that can be reached without.
        while self._folders or self._links:
            self._enter(self._folders.pop() if self._folders else self._links.pop(0))

    def _enter(self, path: str) -> None:
        try:
            status = os.stat(path)
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError:
            if path == self._folder:
                raise
            self.passed['folders that cannot be read'] += 1
            return
        if (status.st_dev, status.st_ino) in self._entered:
            self.passed['folders linked again'] += 1
            return
        self._entered.add((status.st_dev, status.st_ino))
        for entry in entries:
            if is_hidden(entry.name):
                self.passed['hidden'] += 1
            elif entry.is_dir(follow_symlinks=False):
                self._folders.append(entry.path)
            elif entry.is_symlink() and os.path.isdir(entry.path):
                self._links.append(entry.path)
            elif not is_image(entry.name):
                self.passed[PurePath(entry.name).suffix.lower() or 'without suffix'] += 1
            elif os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file():
                self.names.append(os.path.relpath(entry.path, self._folder))
            else:
                self.passed['broken links or no files'] += 1
