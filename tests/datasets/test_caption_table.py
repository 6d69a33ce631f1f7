"""Tests of caption tables: exact rows, processes, interrupted writes, damaged files."""

import json
import multiprocessing
import os
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mmslip.datasets import CaptionTable
from mmslip.datasets.io.caption_table import CaptionTableWriter

ROWS = [
    ('a.jpg', ['a red chair']),
    ('tief/Tür 2.jpg', ['eine Tür', '椅子', 'two\nlines, \ttab and \0 and \u2028']),
    ('12345678', ['x' * 100_000]),
    ('😀', ['😀', ' kept as it is ']),
]


def write(folder: Path) -> CaptionTable:
    return CaptionTable.write(folder / 'set' / 't.table', ROWS, source='a test')


def read_in_child(table: CaptionTable, pipe: object) -> None:
    pipe.send([table[row] for row in (3, 0, 2, 1)])


def test_rows(tmp_path: Path) -> None:
    table = write(tmp_path)
    assert len(table) == 4
    assert [table[row] for row in (2, 0, 3, 1)] == [ROWS[row] for row in (2, 0, 3, 1)]
    assert table[-1] == ROWS[3]
    assert list(table) == ROWS
    for wrong in (4, -5):
        with pytest.raises(IndexError, match=f'Row {wrong} of .*t.table, which has 4 rows'):
            table[wrong]


def test_layout_on_disk(tmp_path: Path) -> None:
    path = tmp_path / 't'
    CaptionTable.write(path, iter([('k', ['ä', 'b']), ('l', ['c'])]), source='x')
    assert (path / 'text.utf8').read_bytes() == b'k\xff\xc3\xa4\xffbl\xffc'
    assert (path / 'ends.u64').read_bytes() == struct.pack('<3Q', 0, 6, 9)
    assert json.loads((path / 'meta.json').read_text()) == dict(
        format='mmslip.CaptionTable', version=1, rows=2, bytes=9, notes=dict(source='x')
    )
    assert sorted(os.listdir(tmp_path)) == ['t']


def test_forked_process_reads_the_open_table(tmp_path: Path) -> None:
    table = write(tmp_path)
    context = multiprocessing.get_context('fork')
    receive, send = context.Pipe(False)
    process = context.Process(target=read_in_child, args=(table, send))
    process.start()
    assert receive.poll(60)
    assert receive.recv() == [ROWS[row] for row in (3, 0, 2, 1)]
    process.join()
    assert table[1] == ROWS[1]


def test_pickle_is_the_path_only(tmp_path: Path) -> None:
    table = write(tmp_path)
    content = pickle.dumps(table)
    assert len(content) < 500
    # As in a spawned worker, where the descriptors of this process are not open.
    del table
    assert list(pickle.loads(content)) == ROWS


def test_files_are_closed(tmp_path: Path) -> None:
    write(tmp_path)
    before = len(os.listdir('/proc/self/fd'))
    for _ in range(5):
        CaptionTable(tmp_path / 'set' / 't.table')
    assert len(os.listdir('/proc/self/fd')) == before


def stopped(error: BaseException) -> Iterator[tuple[str, list[str]]]:
    yield ROWS[0]
    raise error


@pytest.mark.parametrize('error', [KeyboardInterrupt(), RuntimeError('power')])
def test_interrupted_write_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        CaptionTable.write(tmp_path / 't', stopped(error))
    assert os.listdir(tmp_path) == []


def test_nothing_is_there_before_the_end(tmp_path: Path) -> None:
    def rows() -> Iterator[tuple[str, list[str]]]:
        yield ROWS[0]
        assert not (tmp_path / 't').exists()
        with pytest.raises(FileExistsError, match=r'Another process is writing .*t\.partial'):
            CaptionTable.write(tmp_path / 't', ROWS)
        yield ROWS[1]

    assert list(CaptionTable.write(tmp_path / 't', rows())) == ROWS[:2]


def write_one_more(path: Path, begin: int) -> None:
    """Save a row, and lose another one by an interruption."""
    with CaptionTableWriter(path, resume=True) as writer:
        assert int(writer.state.get('done', 0)) == begin
        writer.add(*ROWS[begin])
        writer.save(done=begin + 1, seen=np.array([True, False]))
        writer.add('lost', ['with the interruption'])
        raise KeyboardInterrupt


def test_what_was_saved_survives(tmp_path: Path) -> None:
    path = tmp_path / 't'
    for begin in (0, 1, 2):
        with pytest.raises(KeyboardInterrupt):
            write_one_more(path, begin)
        assert not path.exists()
    with CaptionTableWriter(path, resume=True, source='x') as writer:
        assert writer.state['seen'].tolist() == [True, False]
        for row in ROWS[3:]:
            writer.add(*row)
    assert list(CaptionTable(path)) == ROWS
    assert sorted(os.listdir(path)) == ['ends.u64', 'meta.json', 'text.utf8']
    assert os.listdir(tmp_path) == ['t']


def test_what_was_saved_is_left_where_not_asked_for(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_one_more(tmp_path / 't', 0)
    assert list(CaptionTable.write(tmp_path / 't', ROWS)) == ROWS


def test_existing_table_is_kept(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(FileExistsError, match=r't\.table exists: remove it, or choose'):
        write(tmp_path)
    assert list(CaptionTable(tmp_path / 'set' / 't.table')) == ROWS


def test_folder_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    def rows() -> Iterator[tuple[str, list[str]]]:
        yield ROWS[0]
        CaptionTable.write(tmp_path / 'u', ROWS)
        (tmp_path / 'u').rename(tmp_path / 't')

    with pytest.raises(FileExistsError, match='appeared while it was written'):
        CaptionTable.write(tmp_path / 't', rows())
    assert list(CaptionTable(tmp_path / 't')) == ROWS


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        (('', ['x']), 'Row 1 has a key or caption that is blank'),
        ((' ', ['x']), 'blank'),
        (('k', ['x', ' ']), 'blank'),
        (('k', ['x', '&nbsp;']), 'blank'),
        (('k', ['x', None]), 'blank or no text'),
        ((5, ['x']), 'blank or no text'),
        (('k', 'text'), 'needs a list'),
        (('k', ['\ud800']), r"Row 1 \('k'\) cannot be written as UTF-8"),
    ],
)
def test_bad_row(tmp_path: Path, row: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CaptionTable.write(tmp_path / 't', [ROWS[0], row])
    assert os.listdir(tmp_path) == []


def test_rows_without_captions(tmp_path: Path) -> None:
    rows = [('a.jpg', []), ('b.jpg', ['x']), ('c.jpg', ())]
    table = CaptionTable.write(tmp_path / 't', rows)
    assert list(table) == [('a.jpg', []), ('b.jpg', ['x']), ('c.jpg', [])]


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='at least one row'):
        CaptionTable.write(tmp_path / 't', [])
    assert os.listdir(tmp_path) == []


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'no caption table .*none .* check the path, or'):
        CaptionTable(tmp_path / 'none')


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('meta.json', b'{"format"', 'is damaged .* copy or make the table again'),
        ('meta.json', b'[]', 'is damaged'),
        ('meta.json', b'{"format": "mmslip.CaptionTable"}', 'is damaged'),
        (
            'meta.json',
            b'{"format": "mmslip.CaptionTable", "version": 2, "rows": 1, "bytes": 1}',
            r"is 'mmslip.CaptionTable' of version 2; this mmslip reads .* version 1: make",
        ),
        (
            'meta.json',
            b'{"format": "mmslip.CaptionTable", "version": 1, "rows": 0, "bytes": "x"}',
            r"damaged \(rows and bytes are \[0, 'x'\]\)",
        ),
        ('ends.u64', None, 'damaged .it is missing'),
        ('text.utf8', None, 'damaged .it is missing'),
        ('ends.u64', b'12345678', 'damaged .it has 8 bytes instead of 40'),
        ('text.utf8', b'', 'damaged .it has 0 bytes instead of 100'),
        ('ends.u64', bytes(40), 'damaged .its last row ends at byte 0 of 100'),
    ],
)
def test_damaged_file_is_named(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = write(tmp_path).path
    (path / name).unlink()
    if content is not None:
        (path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        CaptionTable(path)
    assert str(caught.value).startswith(str(path / name))


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('ends.u64', struct.pack('<3Q', 0, 2**60, 6), 'row 0 spans bytes 0 to 1152921504606846976'),
        ('ends.u64', struct.pack('<3Q', 3, 3, 6), 'row 0 spans bytes 3 to 3'),
        ('text.utf8', b'k\xc3bl\xffd', 'row 0: .*utf-8'),
        ('text.utf8', b'kabl\xffd', 'row 0 is incomplete'),
    ],
)
def test_damaged_row_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = CaptionTable.write(tmp_path / 't', [('k', ['b']), ('l', ['d'])]).path
    (path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        CaptionTable(path)[0]
    assert str(caught.value).startswith(str(path / name))


def test_file_cut_while_open(tmp_path: Path) -> None:
    table = CaptionTable.write(tmp_path / 't', [('k', ['b']), ('l', ['d'])])
    os.truncate(table.path / 'text.utf8', 4)
    assert table[0] == ('k', ['b'])
    with pytest.raises(ValueError, match='row 1 is incomplete'):
        table[1]
    os.truncate(table.path / 'ends.u64', 8)
    with pytest.raises(ValueError, match=r'ends\.u64 is damaged'):
        table[0]
