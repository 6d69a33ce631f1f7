"""Check of the image files that a data set lists."""

import functools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator

from mmengine.logging import print_log

from mmslip.datasets.io.folder import is_hidden, is_image

__all__ = ['keep_usable', 'missing_files', 'unlisted_images']


def keep_usable(records: Iterable[dict], source: str, remedy: str, use: str) -> Iterator[dict]:
    """Pass on the records whose image file exists and that have a caption, if one is required.

    Of sets published as links a part can no longer be had, so gaps are normal: one line of the log
    says how many. Folders are listed rather than each file looked up, which would take hours for
    millions of files on a network drive.

    Args:
        records: With ``img_path`` and ``text``, a list of captions, which an image without loses.
        source: Name of the annotations in messages.
        remedy: What to check if no image is found.
        use: What becomes of captions, see :mod:`mmslip.datasets.io.captions`.

    Raises:
        FileNotFoundError: None of the images exists.
        ValueError: There are no records, or none with a caption.
    """
    names_in = functools.lru_cache(maxsize=4)(_file_names)
    total = absent = blank = 0
    missing = ''
    for total, record in enumerate(records, 1):  # noqa: B007
        folder, name = os.path.split(record['img_path'])
        if name not in names_in(folder):
            absent += 1
            missing = missing or record['img_path']
        elif use == 'required' and not record['text']:
            blank += 1
        else:
            if use == 'ignored' or not record['text']:
                del record['text']
            yield record
    if absent and absent == total:
        raise FileNotFoundError(
            f'None of the {total:,} images of {source} exists, such as {missing}: {remedy}'
        )
    if absent + blank == total:
        raise ValueError(f'{source} has no rows with a caption.')
    if absent or blank:
        print_log(
            f'{source}: of {total:,} rows, {absent:,} without image file and {blank:,} without '
            f'caption are left out; {total - absent - blank:,} remain.',
            logger='current',
        )


def missing_files(paths: Iterable[str]) -> list[str]:
    """Those of the paths where nothing is; folders are listed rather than each file looked up."""
    names_in = functools.lru_cache(maxsize=64)(_file_names)
    return [path for path in paths if os.path.basename(path) not in names_in(os.path.dirname(path))]


def unlisted_images(paths: Iterable[str]) -> list[str]:
    """Images that lie in the folders of the paths and are none of them."""
    listed: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        folder, name = os.path.split(os.path.normpath(path))
        listed[folder].add(name)
    return [
        os.path.join(folder, name)
        for folder, names in listed.items()
        for name in sorted(_file_names(folder) - names)
        if is_image(name) and not is_hidden(name)
    ]


def _file_names(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder or '.'))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
