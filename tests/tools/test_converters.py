"""Tests of the converters of text files to caption tables: exact rows, and every refusal."""

import bz2
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from mmslip.datasets import CaptionTable, YFCC15MDataset
from tests.scripts import load_script, to_npy

TO_TABLE = load_script('dataset_converters/to_table')
YFCC15M = load_script('dataset_converters/yfcc15m')

# --- to_table ---------------------------------------------------------------------------------


def test_to_table(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source, out = tmp_path / 't.jsonl', tmp_path / 'deep' / 't.table'
    rows = [dict(file='a.jpg', t='one', d=['two', ' ']), dict(file='b.jpg', t=None, d='drei ü')]
    source.write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    options = ['--image-key', 'file', '--caption-keys', 't', 'd']
    TO_TABLE.main([str(source), str(out), *options])
    assert list(CaptionTable(out)) == [('a.jpg', ['one', 'two']), ('b.jpg', ['drei ü'])]
    assert f'{out}: 2 rows' in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r't\.table exists: remove it'):
        TO_TABLE.main([str(source), str(out), *options])


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        (
            't.csv',
            'image,caption\na.jpg,x\nb.jpg,\n',
            "t.csv, line 3 has no caption under 'caption'",
        ),
        ('t.csv', 'image,title\na.jpg,x\n', "t.csv, line 2 has no column 'caption'"),
        ('t.tsv', 'image\tcaption\n', 'at least one row'),
        ('t.xls', 'x', 'must end in'),
        ('t.csv', None, 'No such file'),
    ],
)
def test_to_table_refuses(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding='utf-8')
    with pytest.raises(SystemExit, match=message):
        TO_TABLE.main([str(tmp_path / name), str(tmp_path / 'out')])
    assert not list(tmp_path.glob('out*'))


# --- yfcc15m ----------------------------------------------------------------------------------


def metadata_line(row: int, photo: int, title: str, description: str) -> str:
    """A line of yfcc100m_dataset: 25 columns."""
    cells = [str(row), str(photo), f'{photo:032x}', '7@N00', 'nick', '2012-02-16 09:56:37.0']
    cells += ['1331840483', 'Canon+A540', title, description, 'tag,other+tag', '', '-81.8', '24.5']
    cells += ['12', 'http://www.flickr.com/photos/7', 'http://farm8.staticflickr.com/7.jpg']
    cells += ['Attribution+License', 'http://creativecommons.org/', '7', '8', 'ab', 'cd', 'jpg']
    cells += ['0']
    assert len(cells) == 25
    return '\t'.join(cells) + '\n'


LINES = [
    metadata_line(0, 900, 'Harbour+at+dawn', 'Boats+in+the+fog%2C+50%25+grey'),
    metadata_line(1, 901, 'not+wanted', ''),
    metadata_line(2, 902, 'T%C3%BCr', ''),
    metadata_line(3, 903, '', '%3Ca+href%3D%22http%3Ax%22%3Emy+%3Cb%3Edog%3C%2Fb%3E%3C%2Fa%3E'),
    metadata_line(4, 904, 'http%3A%2F%2Fwww.x.org%2Fa%3Fb', '%3Cbr%2F%3E%0A'),
    metadata_line(5, 905, 'see+www.x.org%2Fy+or%0A%0A+not', 'I+%3C3+x+%3C+y%2Bz+%26amp%3B+you'),
    metadata_line(12345678, 906, 'not+downloaded', 'x'),
    metadata_line(99999999, 907, 'last', 'one'),
]  # fmt: skip
WANTED = [0, 99999999, 2, 3, 4, 5, 12345678, 50]
CAPTIONS = {
    0: ['Harbour at dawn', 'Boats in the fog, 50% grey'],
    2: ['Tür'],
    3: ['my dog'],
    5: ['see or not', 'I <3 x < y+z &amp; you'],
    99999999: ['last', 'one'],
}


@pytest.fixture
def yfcc(tmp_path: Path) -> dict[str, Path]:
    """The three files that the converter reads."""
    photos = {int(line.split('\t')[0]): line.split('\t')[1] for line in LINES}
    subset = [f'{row}\t{photos.get(row, 555)}\t{row:032x}\n' for row in WANTED]
    paths = dict(
        metadata=tmp_path / 'yfcc100m_dataset.txt',
        subset=tmp_path / 'subset.tsv',
        downloaded=tmp_path / 'ids.npy',
        out=tmp_path / 'train.table',
    )
    paths['metadata'].write_text(''.join(LINES), encoding='utf-8')
    paths['subset'].write_text(''.join(subset), encoding='utf-8')
    np.save(paths['downloaded'], np.array([99999999, 0, 1, 2, 3, 4, 5, 50]))
    return paths


def convert_yfcc(paths: dict[str, Path], *metadata: Path) -> None:
    arguments = ['--metadata', *map(str, metadata or [paths['metadata']])]
    for name in ('subset', 'downloaded', 'out'):
        arguments += [f'--{name}', str(paths[name])]
    YFCC15M.main(arguments)


def test_yfcc15m(yfcc: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    convert_yfcc(yfcc)
    expected = [(str(row), captions) for row, captions in CAPTIONS.items()]
    assert list(CaptionTable(yfcc['out'])) == expected
    printed = capsys.readouterr().out.replace('\n', ' ')
    assert '5 photographs (the SLIP authors: 14,689,580)' in printed
    assert 'left out: 1 without a caption, 1 not in the metadata' in printed
    dataset = YFCC15MDataset(str(yfcc['out']), indices=1)
    with pytest.raises(FileNotFoundError, match=r'no archive 00/000\.zip \(for 000\.jpg\)'):
        dataset.get_data_info(0)


def test_yfcc15m_without_a_list_of_downloads(yfcc: dict[str, Path]) -> None:
    arguments = [f'--{name}={yfcc[name]}' for name in ('metadata', 'subset', 'out')]
    YFCC15M.main(arguments)
    assert [key for key, _ in CaptionTable(yfcc['out'])] == [
        *('0', '2', '3', '5', '12345678', '99999999')
    ]


def test_yfcc15m_in_packed_parts(yfcc: dict[str, Path], tmp_path: Path) -> None:
    parts = [tmp_path / 'yfcc100m_dataset-0.bz2', tmp_path / 'yfcc100m_dataset-1.bz2']
    parts[0].write_bytes(bz2.compress(''.join(LINES[:3]).encode()))
    # Parallel packers write several streams one after the other.
    parts[1].write_bytes(b''.join(bz2.compress(line.encode()) for line in LINES[3:]))
    convert_yfcc(yfcc, *parts)
    assert dict(CaptionTable(yfcc['out'])) == {str(row): text for row, text in CAPTIONS.items()}


@pytest.mark.parametrize(
    ('name', 'change', 'message'),
    [
        ('metadata', lambda b: b.replace(b'2\t902', b'2\t999'), 'line 3: row 2 is photo 999 here'),
        ('metadata', lambda b: b.replace(b'\t24.5\t', b'\t', 1), 'line 1 has 24 columns, not 25'),
        ('metadata', lambda b: b'id\tx\n' + b, "line 1 must begin with a row number, not b'id'"),
        ('metadata', lambda b: b + b.splitlines(True)[0], 'line 9: row 0 comes twice'),
        ('metadata', lambda b: b.replace(b'T%C3%BCr', b'T\xfcr'), 'line 3 is not UTF-8'),
        ('metadata', lambda b: b.splitlines(True)[1], 'at least one row'),
        ('subset', lambda b: b + b, 'is empty or lists a row twice'),
        ('subset', lambda b: b'a\tb\tc\n', 'must have a row number and a photo number'),
        ('subset', lambda b: b'5\n', 'must have a row number and a photo number'),
        (
            'downloaded',
            lambda b: b'page not found',
            r'ids\.npy must be a \.npy file of row numbers',
        ),
        (
            'downloaded',
            lambda b: to_npy(np.array(['a'])),
            'must be a .npy file of one row of integers',
        ),
        ('downloaded', lambda b: to_npy(np.array([None])), 'must be a .npy file of row numbers'),
    ],
)
def test_yfcc15m_refuses(yfcc: dict[str, Path], name: str, change: Callable, message: str) -> None:
    yfcc[name].write_bytes(change(yfcc[name].read_bytes()))
    with pytest.raises(SystemExit, match=message) as caught:
        convert_yfcc(yfcc)
    assert 'row' in message or str(caught.value).startswith(str(yfcc[name]))
    assert not list(yfcc['out'].parent.glob('train.table*'))


def kill_at(yfcc: dict[str, Path], call: int, *metadata: Path) -> None:
    """Convert in a process that is killed when it has come to a wanted photograph."""

    def run() -> None:
        module, calls = YFCC15M, count(1)
        parse = module.parse

        def parse_or_die(*arguments: object) -> list[str]:
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return parse(*arguments)

        module.parse = parse_or_die
        convert_yfcc(yfcc, *metadata)

    process = multiprocessing.get_context('fork').Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize(
    ('every', 'left'), [(1, [99999999]), (2, [4, 5, 99999999]), (3, [3, 4, 5, 99999999])]
)
def test_yfcc15m_goes_on_after_an_interruption(
    yfcc: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    packed: bool,
    every: int,
    left: list[int],
) -> None:
    monkeypatch.setattr(YFCC15M, 'SAVE_EVERY', every)
    parts = [tmp_path / 'yfcc100m_dataset-0', tmp_path / 'yfcc100m_dataset-1']
    for part, lines in zip(parts, (LINES[:4], LINES[4:]), strict=True):
        part.write_text(''.join(lines), encoding='utf-8')
    if packed:
        packs = [part.with_suffix('.bz2') for part in parts]
        for part, pack in zip(parts, packs, strict=True):
            pack.write_bytes(bz2.compress(part.read_bytes()))
        parts = packs
    for call in (4, 2, 2):  # the fourth wanted photograph, then the second of those left
        kill_at(yfcc, call, *parts)
        assert not yfcc['out'].exists()
    read, parse = [], YFCC15M.parse
    monkeypatch.setattr(YFCC15M, 'parse', lambda row, *rest: read.append(row) or parse(row, *rest))
    convert_yfcc(yfcc, *parts)
    assert read == left
    assert dict(CaptionTable(yfcc['out'])) == {str(row): text for row, text in CAPTIONS.items()}
    assert sorted(os.listdir(yfcc['out'])) == ['ends.u64', 'meta.json', 'text.utf8']
    printed = capsys.readouterr().out.replace('\n', ' ')
    assert 'left out: 1 without a caption, 1 not in the metadata' in printed


def test_yfcc15m_goes_on_with_the_same_input_only(
    yfcc: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(YFCC15M, 'SAVE_EVERY', 1)
    kill_at(yfcc, 3)
    lines = yfcc['metadata'].read_bytes()
    yfcc['metadata'].write_bytes(lines + b'\n')
    with pytest.raises(SystemExit, match=r'train\.table\.partial is the beginning of a conversion'):
        convert_yfcc(yfcc)
    assert yfcc['out'].with_name('train.table.partial').is_dir()


@pytest.mark.parametrize('cut', [20, -20])
def test_yfcc15m_with_a_damaged_archive(yfcc: dict[str, Path], tmp_path: Path, cut: int) -> None:
    part = tmp_path / 'm.bz2'
    part.write_bytes(bz2.compress(''.join(LINES).encode())[:cut])
    with pytest.raises(SystemExit, match=r'm\.bz2 is damaged'):
        convert_yfcc(yfcc, part)


@pytest.mark.parametrize('name', ['metadata', 'subset', 'downloaded'])
def test_yfcc15m_without_a_file(yfcc: dict[str, Path], name: str) -> None:
    yfcc[name].unlink()
    with pytest.raises(SystemExit, match=yfcc[name].name):
        convert_yfcc(yfcc)
