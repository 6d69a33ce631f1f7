"""Contents of files, up to a limit."""

import os
from pathlib import Path

from mmslip.datasets.io.faults import BadSampleError

__all__ = ['check_bytes', 'read_file']

# As many as the uncompressed pixels of the largest image that LoadImage takes, and some more. What
# is larger is no photograph, and would be the end of a worker's memory.
_MAX_BYTES = 2**29


def check_bytes(size: int, name: str) -> None:
    """Refuse what is too large to be read.

    Raises:
        BadSampleError: It has more than 512 MiB.
    """
    if size > _MAX_BYTES:
        raise BadSampleError(
            f'{name} has {size:,} bytes; {_MAX_BYTES:,} is the limit of a sample: replace the file '
            'or remove the sample.'
        )


def read_file(path: str | Path, name: str) -> bytes:
    """Content of a file.

    Args:
        path: The file.
        name: Its name in messages.

    Raises:
        BadSampleError: It is too large.
    """
    with open(path, 'rb') as file:
        check_bytes(os.fstat(file.fileno()).st_size, name)
        return file.read()
