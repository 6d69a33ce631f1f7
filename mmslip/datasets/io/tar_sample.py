"""The samples of a tar shard, by WebDataset's rule."""

import tarfile
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from mmslip.datasets.io.captions import as_list, captions_of
from mmslip.datasets.io.faults import BadSampleError
from mmslip.datasets.io.folder import IMAGE_SUFFIXES, is_hidden
from mmslip.datasets.io.json_text import parse_json

__all__ = [
    'TEXT_MEMBERS',
    'caption_fields',
    'choose_image',
    'files_of',
    'is_part',
    'list_members',
    'open_tar',
    'read_label',
    'require_image',
    'split_name',
]

# Members that may hold captions; the first one that has one counts.
TEXT_MEMBERS = ('json', 'txt')


class _Header(tarfile.TarInfo):
    """Header of a member; a broken one is an error, where tarfile takes it for the end."""

    @classmethod
    def frombuf(cls, *args: Any) -> tarfile.TarInfo:
        try:
            return super().frombuf(*args)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:
            raise tarfile.ReadError(str(error)) from error


def open_tar(mode: str, **source: Any) -> tarfile.TarFile:
    """An archive for :func:`files_of`, which need not be the only one in its file.

    Args:
        mode: Of ``tarfile.open``.
        **source: Its ``name`` or ``fileobj``.
    """
    return tarfile.open(mode=mode, tarinfo=_Header, ignore_zeros=True, **source)


def files_of(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Members of an archive that are files, and of those that ``cat`` has put behind it.

    Raises:
        tarfile.ReadError: A header is broken, or there is no block of zeros at the end.
    """
    end = 0
    for member in archive:
        end = archive.offset
        archive.members = []  # which would otherwise grow
        if member.isfile():
            yield member
    if archive.offset == end:
        raise tarfile.ReadError(f'it breaks off at byte {end}')


def split_name(name: str) -> tuple[str, str] | None:
    """Key of the sample that a member belongs to, and the member's suffix.

    The key is the name up to the first dot behind its last folder: ``a.b/1.seg.png`` is the member
    ``seg.png`` of the sample ``a.b/1``. Hidden members belong to none, nor do those without a dot.
    """
    folder, slash, base = name.rpartition('/')
    stem, dot, suffix = base.partition('.')
    folders = [name for name in folder.split('/') if name not in ('.', '..')]
    if not stem or not dot or any(map(is_hidden, folders)):
        return None
    return f'{folder}{slash}{stem}', suffix.lower()


def is_part(suffix: str) -> bool:
    """Whether a member of this suffix belongs to a sample: image, caption or class."""
    return suffix in (*TEXT_MEMBERS, 'cls') or choose_image([suffix]) is not None


def choose_image(suffixes: Collection[str]) -> str | None:
    """Suffix of the image among those of a sample's members."""
    return next((suffix[1:] for suffix in IMAGE_SUFFIXES if suffix[1:] in suffixes), None)


def require_image(suffixes: Collection[str], where: str) -> str:
    """Suffix of the image of a sample that has to have one.

    Raises:
        BadSampleError: There is none.
    """
    image = choose_image(suffixes)
    if image is None:
        raise BadSampleError(
            f'{where} has {", ".join(sorted(suffixes))} but no image. Samples are members of equal '
            'name up to the first dot.'
        )
    return image


def list_members(members: str | Sequence[str]) -> list[str]:
    """Members that may hold captions, as a list.

    Raises:
        ValueError: One is none of :data:`TEXT_MEMBERS`.
    """
    members = as_list(members)
    if not members or not set(members) <= set(TEXT_MEMBERS):
        raise ValueError(f'caption_members must be of {", ".join(TEXT_MEMBERS)}, not {members}.')
    return members


def caption_fields(
    suffixes: Collection[str],
    read: Callable[[str], bytes],
    members: Sequence[str],
    keys: Sequence[str],
    where: str,
    use: str,
) -> dict[str, list[str]]:
    """``text`` of a sample, or no entry for one that has no caption and needs none.

    Args:
        suffixes: Those of its members.
        read: Gives the content of a member.
        members: Which of :data:`TEXT_MEMBERS` count; the first one that has a caption is taken.
        keys: Keys of captions in a ``.json`` member.
        where: Name of the sample in messages.
        use: What becomes of captions, see :mod:`mmslip.datasets.io.captions`.

    Raises:
        BadSampleError: A member cannot be read, or a caption is required and there is none.
    """
    if use == 'ignored':
        return {}
    seen = []
    for member in members:
        if member in suffixes:
            row, columns = _read_text(member, read(member), keys, f'The .{member} of {where}')
            captions = captions_of(row, columns, where)
            if captions:
                return dict(text=captions)
            names = ', '.join(map(str, row)) or 'no keys'
            seen.append(
                f'its .{member} has {names}' if columns == keys else f'its .{member} is blank'
            )
    if use == 'optional':
        return {}
    raise BadSampleError(
        f'{where} has {", ".join(sorted(suffixes))} but no caption in '
        f'{" or ".join(f".{member}" for member in members)}'
        + (f', of .json under {", ".join(keys)}' if 'json' in members else '')
        + (f': {" and ".join(seen)}' if seen else '')
        + ". Set `caption_keys` and `caption_members` of the data set, or captions='optional'."
    )


def _read_text(
    member: str, content: bytes, keys: Sequence[str], where: str
) -> tuple[dict, Sequence[str]]:
    """A text member as a row and the columns of its captions."""
    try:
        value = parse_json(content, where) if member == 'json' else content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise BadSampleError(f'{where} cannot be read as UTF-8: {error}.') from error
    except ValueError as error:
        raise BadSampleError(str(error)) from error
    if isinstance(value, dict):
        return value, keys
    return (dict(text=value), ['text']) if isinstance(value, str) else ({}, keys)


def read_label(content: bytes, where: str) -> int:
    """Number of the class in a ``.cls`` member.

    Raises:
        BadSampleError: It is no number.
    """
    try:
        return int(content)
    except ValueError as error:
        raise BadSampleError(f'The .cls of {where} is no number: {content[:40]!r}.') from error
