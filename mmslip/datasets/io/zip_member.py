"""Single images out of zip archives."""

import os
import struct
import zipfile
import zlib
from pathlib import Path

from mmslip.datasets.io.contents import check_bytes
from mmslip.datasets.io.faults import BadSampleError, MissingImageError

__all__ = ['read_member']

# The records of the format (APPNOTE.TXT of PKWARE, sections 4.3.7, 4.3.12 and 4.3.16).
# Of a member: signature, length of the name, length of the extra field.
_LOCAL = struct.Struct('<4s22xHH')
# Of a member, in the directory: signature, flags, method, CRC, packed size, size, lengths of name,
# extra field and comment, disk, offset of the local record.
_ENTRY = struct.Struct('<4s4xHH4xLLLHHHH6xL')
# Of the archive, at its end: signature, disk, disk of the directory, size and offset of the
# directory, length of the comment.
_END = struct.Struct('<4sHH4xLLH')
_LOCAL_MARK, _ENTRY_MARK, _END_MARK = b'PK\3\4', b'PK\1\2', b'PK\5\6'
_MAX_COMMENT = 0xFFFF
# Stands for a number that is in a zip64 record.
_ELSEWHERE = 0xFFFFFFFF
_STORED, _DEFLATED = 0, 8
# How hard the packer tried, sizes repeated behind the data, name in UTF-8. Others, encryption above
# all, change how the content is stored.
_HARMLESS_FLAGS = 0x0006 | 0x0008 | 0x0800
# What reading raises. RuntimeError: encrypted, NotImplementedError among them: packed in an unknown
# way. OSError and ValueError: also offsets before the file and names that are not UTF-8.
_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError, ValueError)


def read_member(path: str | Path, member: str) -> bytes:
    """Content of a member of a zip archive, its CRC checked.

    ``zipfile`` makes an object of every entry before it reads one, which takes milliseconds where
    there are a thousand. Here the directory is searched for the name instead. Where an archive is
    out of the ordinary (zip64, encrypted, packed by another method, several disks, damaged),
    ``zipfile`` still reads it or says what is wrong.

    Args:
        path: The archive.
        member: Name of the member in it.

    Raises:
        FileNotFoundError: There is no such archive.
        MissingImageError: The archive has no such member.
        BadSampleError: The archive is damaged, encrypted or packed in an unknown way.
    """
    where = f'{path}:{member}'
    with open(path, 'rb', buffering=0) as file:
        try:
            content = _read_ordinary(file.fileno(), member, where)
            if content is None:
                with zipfile.ZipFile(file) as archive:
                    check_bytes(archive.getinfo(member).file_size, where)
                    content = archive.read(member)
            return content
        except BadSampleError:
            raise
        except KeyError as error:
            raise MissingImageError(f'There is no {where}.') from error
        except _FAULTS as error:
            raise BadSampleError(
                f'{where} cannot be read ({error}): copy the archive again.'
            ) from error


def _read_ordinary(file: int, member: str, where: str) -> bytes | None:
    """Content of a member; None where anything about it is not as in most archives."""
    # Other names have bytes that depend on the entry's flags.
    if not (member and member.isascii()):
        return None
    size = os.fstat(file).st_size
    tail = os.pread(file, _END.size + _MAX_COMMENT, max(0, size - _END.size - _MAX_COMMENT))
    place = tail.rfind(_END_MARK)
    if place < 0 or len(tail) - place < _END.size:
        return None
    _, disk, directory_disk, length, start, comment = _END.unpack_from(tail, place)
    end = size - len(tail) + place
    # The directory ends where this record starts, unless zip64 records lie between them or the
    # archive has something in front, so that its offsets are shifted.
    if disk or directory_disk or start + length != end or place + _END.size + comment != len(tail):
        return None
    entry = _find_entry(os.pread(file, length, start), member.encode())
    if entry is None:
        return None
    flags, method, crc, packed, unpacked, disk, offset = entry
    if flags & ~_HARMLESS_FLAGS or disk or _ELSEWHERE in (packed, unpacked, offset):
        return None
    check_bytes(max(packed, unpacked), where)
    local = os.pread(file, _LOCAL.size + len(member), offset)
    if len(local) < _LOCAL.size:
        return None
    mark, name, extra = _LOCAL.unpack_from(local)
    if mark != _LOCAL_MARK or name != len(member) or local[_LOCAL.size :] != member.encode():
        return None
    offset += _LOCAL.size + name + extra
    if offset + packed > start:  # before memory is set aside for a size that damage made up
        return None
    content = os.pread(file, packed, offset)
    if method == _DEFLATED:
        try:
            # One more than there should be: a limit of 0 would mean none.
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, unpacked + 1)
        except zlib.error:
            return None
    elif method != _STORED:
        return None
    return content if len(content) == unpacked and zlib.crc32(content) == crc else None


def _find_entry(directory: bytes, name: bytes) -> tuple[int, ...] | None:
    """Flags, method, CRC, both sizes, disk and offset of the last entry of this name."""
    # From the end: where a name was written again, the later entry counts.
    place = directory.rfind(name)
    while place >= 0:
        # The bytes may also be part of a longer name, or of an extra field or a comment. Of an
        # entry they are all of the name, and another entry or nothing follows.
        if place >= _ENTRY.size:
            mark, *fields, name_length, extra, comment, disk, offset = _ENTRY.unpack_from(
                directory, place - _ENTRY.size
            )
            after = place + len(name) + extra + comment
            if (
                mark == _ENTRY_MARK
                and name_length == len(name)
                and (after == len(directory) or directory.startswith(_ENTRY_MARK, after))
            ):
                return *fields, disk, offset
        place = directory.rfind(name, 0, place + len(name) - 1)
    return None
