"""Tests of reading one member of a zip: what zipfile reads, fast where the archive is ordinary."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmslip.datasets.io import zip_member
from mmslip.datasets.io.faults import BadSampleError, MissingImageError
from mmslip.datasets.io.zip_member import read_member

# Names that end or start as others do.
NAMES = ['5678.jpg', '678.jpg', '678.jpg.bak', 'a/678.jpg', '78.jpg', '8.jpg', 'empty.jpg']


def content(name: str) -> bytes:
    """Half of it can be packed; it has the marks of all records in it."""
    if name == 'empty.jpg':
        return b''
    random = np.random.default_rng(len(name)).bytes(500)
    return random + b'PK\1\2PK\3\4PK\5\6' + name.encode() * 50


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / 'one.zip'


@pytest.fixture
def no_zipfile(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it to make the way through zipfile fail."""

    def refuse(*args: object) -> None:
        raise AssertionError('opened by zipfile')

    return lambda: monkeypatch.setattr(zip_member.zipfile, 'ZipFile', refuse)


def write(path: Path, **kwargs: object) -> None:
    with zipfile.ZipFile(path, 'w', **kwargs) as archive:
        for name in NAMES:
            archive.writestr(name, content(name))


def by_zipfile(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def check(path: Path, no_zipfile: Callable[[], None] | None = None) -> None:
    wanted = by_zipfile(path)
    assert set(wanted) >= set(NAMES)
    if no_zipfile:
        no_zipfile()
    assert {name: read_member(path, name) for name in wanted} == wanted


@pytest.mark.parametrize('method', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_ordinary_archive(path: Path, no_zipfile: Callable, method: int) -> None:
    write(path, compression=method)
    check(path, no_zipfile)


@pytest.mark.parametrize('comment', [b'of the archive', b'x' * 0xFFFF])
def test_comments_and_extra_fields(path: Path, no_zipfile: Callable, comment: bytes) -> None:
    with zipfile.ZipFile(path, 'w') as archive:
        for name in NAMES:
            info = zipfile.ZipInfo(name)
            info.comment = b'next to 678.jpg'
            info.extra = struct.pack('<HH', 0x7075, 7) + b'678.jpg'
            archive.writestr(info, content(name))
        archive.comment = comment
    check(path, no_zipfile)


def test_sizes_behind_the_data(path: Path, no_zipfile: Callable) -> None:
    class Pipe:
        """A file that cannot go back to fill in sizes."""

        def __init__(self, file: object) -> None:
            self.write, self.flush = file.write, file.flush

    with path.open('wb') as file, zipfile.ZipFile(Pipe(file), 'w') as archive:
        for name in NAMES:
            archive.writestr(name, content(name))
    check(path, no_zipfile)


def test_directory_longer_than_the_first_read(path: Path, no_zipfile: Callable) -> None:
    with zipfile.ZipFile(path, 'w') as archive:
        for number in range(1500):
            archive.writestr(f'{number:04d}.jpg', str(number))
    no_zipfile()
    for number in [0, 1, 678, 1499]:
        assert read_member(path, f'{number:04d}.jpg') == str(number).encode()


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_member_written_again(path: Path, no_zipfile: Callable) -> None:
    write(path)
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr('678.jpg', b'new')
    check(path, no_zipfile)
    assert read_member(path, '678.jpg') == b'new'


def test_zip64_local_records(path: Path, no_zipfile: Callable) -> None:
    with zipfile.ZipFile(path, 'w') as archive:
        for name in NAMES:
            with archive.open(name, 'w', force_zip64=True) as file:
                file.write(content(name))
    check(path, no_zipfile)


@pytest.mark.parametrize('limit', ['ZIP64_LIMIT', 'ZIP_FILECOUNT_LIMIT'])
def test_zip64_directory(path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(zipfile, limit, 3)
        with zipfile.ZipFile(path, 'w') as archive:
            for name in NAMES:
                with archive.open(name, 'w', force_zip64=True) as file:
                    file.write(content(name))
    assert b'PK\6\6' in path.read_bytes()
    check(path)


@pytest.mark.parametrize('method', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods(path: Path, method: int) -> None:
    write(path, compression=method)
    check(path)


def test_something_in_front(path: Path) -> None:
    write(path)
    path.write_bytes(b'#!/bin/sh\n' + path.read_bytes())
    check(path)


def test_name_that_is_not_ascii(path: Path) -> None:
    write(path)
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr('tür.jpg', b'door')
    check(path)


@pytest.mark.parametrize('member', ['5678', '67.jpg', 'PK', '678.jpg.ba', ''])
def test_missing_member(path: Path, member: str) -> None:
    write(path)
    with pytest.raises(MissingImageError) as caught:
        read_member(path, member)
    assert str(caught.value) == f'There is no {path}:{member}.'


def test_missing_archive(path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read_member(path, '678.jpg')
    assert not isinstance(caught.value, BadSampleError)
    assert caught.value.filename == str(path)


@pytest.mark.parametrize('method', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_content(path: Path, method: int) -> None:
    write(path, compression=method)
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo('678.jpg').header_offset + 30 + len('678.jpg') + 200
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(BadSampleError, match=r'one\.zip:678\.jpg cannot be read \(.*\): copy'):
        read_member(path, '678.jpg')
    assert read_member(path, '5678.jpg') == content('5678.jpg')


def test_encrypted(path: Path) -> None:
    write(path)
    marked = bytearray(path.read_bytes())
    marked[marked.index(b'678.jpg.bak') - 30 + 6] |= 1  # the flags of the local record
    marked[marked.rindex(b'678.jpg.bak') - 46 + 8] |= 1  # and of the entry in the directory
    path.write_bytes(marked)
    with pytest.raises(BadSampleError, match=r'678\.jpg\.bak cannot be read \(.*encrypted'):
        read_member(path, '678.jpg.bak')


def test_cut_anywhere(path: Path) -> None:
    write(path)
    whole = path.read_bytes()
    for length in [*range(0, len(whole) - 100, 97), *range(len(whole) - 100, len(whole))]:
        path.write_bytes(whole[:length])
        with pytest.raises(BadSampleError, match=r'678\.jpg cannot be read .* copy'):
            read_member(path, '678.jpg')


def test_any_damaged_byte(path: Path) -> None:
    """Whatever byte of the records is wrong: the right content, or an error that names both."""
    write(path, compression=zipfile.ZIP_DEFLATED)
    whole, wanted = path.read_bytes(), content('678.jpg')
    (directory,) = struct.unpack_from('<L', whole, len(whole) - 6)
    local = whole.index(b'678.jpg', whole.index(b'5678.jpg') + len(b'5678.jpg')) - 30
    for place in [*range(local, local + 60), *range(directory, len(whole))]:
        for value in [255, whole[place] ^ 1]:
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                assert read_member(path, '678.jpg') == wanted
            except BadSampleError as error:
                assert f'{path}:678.jpg' in str(error)  # noqa: PT017
