"""Tests of the converter of pickles: exact rows, refusals, and pickles that would run code."""

import os
import pickle
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmslip.datasets import CaptionTable
from tests.scripts import load_script, to_npy


def objects(*rows: Any) -> np.ndarray:
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


def convert(path: Path, content: bytes, *options: str) -> list:
    path.write_bytes(content)
    out = path.with_name('out')
    load_script('dataset_converters/official_pickle').main([str(path), str(out), *options])
    return list(CaptionTable(out))


TUPLES = [(12345678, ' Harbour ', 'Boats'), (7, '', 'Tür'), (8, '', ' '), (9, 'x', None)]
KEPT = [('12345678', ['Harbour', 'Boats']), ('7', ['Tür']), ('9', ['x'])]


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_official_list(tmp_path: Path, protocol: int, capsys: pytest.CaptureFixture) -> None:
    assert convert(tmp_path / 'yfcc15m.pkl', pickle.dumps(TUPLES, protocol)) == KEPT
    assert '3 rows; 1 without a caption' in capsys.readouterr().out.replace('\n', ' ')


@pytest.mark.parametrize(
    ('protocol', 'old_names'),
    # Protocol 4 states the lengths of names, so they cannot simply be replaced.
    [*((protocol, False) for protocol in range(6)), *((protocol, True) for protocol in range(4))],
)
def test_numpy_values_in_a_pickle(tmp_path: Path, protocol: int, old_names: bool) -> None:
    rows = [
        (np.int64(12), np.str_('one'), 'two'),
        dict(image_id=np.int32(-3), captions=np.array(['ä', 'long one'])),
        dict(image_name='a.jpg', image_id=5, captions=objects('x', 'y')),
        dict(image_id=np.array([8], '>i4')[0], caption='z'),
    ]
    content = pickle.dumps(rows, protocol)
    if old_names:  # as NumPy 1 writes them
        content = content.replace(b'numpy._core', b'numpy.core')
    assert convert(tmp_path / 'l.pkl', content) == [
        ('12', ['one', 'two']),
        ('-3', ['ä', 'long one']),
        ('a.jpg', ['x', 'y']),
        ('8', ['z']),
    ]


def test_official_npy(tmp_path: Path) -> None:
    rows = [dict(image_id=1510438788, captions=['a field']), dict(image_id=2, captions=['b', 'c'])]
    content = to_npy(objects(*rows))
    expected = [('1510438788', ['a field']), ('2', ['b', 'c'])]
    assert convert(tmp_path / 'cc3m.npy', content) == expected


def test_npy_of_texts_and_own_keys(tmp_path: Path) -> None:
    content = to_npy(np.array([['a.jpg', 'one', 'two'], ['b.jpg', '', 'drei']]))
    assert convert(tmp_path / 'l.npy', content) == [
        ('a.jpg', ['one', 'two']),
        ('b.jpg', ['drei']),
    ]
    (tmp_path / 'deep').mkdir()
    content = pickle.dumps([dict(file='a.jpg', alt='x')])
    options = ['--image-keys', 'file', '--caption-keys', 'text', 'alt']
    assert convert(tmp_path / 'deep' / 'l.pkl', content, *options) == [('a.jpg', ['x'])]


class Runs:
    """A value whose pickle calls a function."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize('wrap', [pickle.dumps, lambda value: to_npy(objects(value))])
@pytest.mark.parametrize('place', ['alone', 'in a row'])
def test_malicious_pickle_does_not_run(tmp_path: Path, wrap: Callable, place: str) -> None:
    witness = tmp_path / 'witness'
    value = Runs(os.mkdir, str(witness))
    content = wrap(value if place == 'alone' else [(1, 'x', value)])
    path = tmp_path / ('l.npy' if content.startswith(b'\x93NUMPY') else 'l.pkl')
    with pytest.raises(SystemExit, match=r'refused: it names posix\.mkdir, .* executed') as caught:
        convert(path, content)
    assert str(caught.value).startswith(str(path))
    assert not witness.exists()
    assert not (tmp_path / 'out').exists()
    pickle.loads(pickle.dumps(value))  # it would have
    assert witness.exists()


@pytest.mark.parametrize(
    ('function', 'arguments', 'message'),
    [
        (eval, ('1',), 'names builtins.eval'),
        (getattr, ('', 'join'), 'names builtins.getattr'),
        (import_module, ('os',), 'names importlib.import_module'),
        (np.dtype, ('O,i8',), "an array of type 'O,i8'"),
        (np.dtype, ('V8',), "an array of type 'V8'"),
        # Raw bytes as pointers to objects.
        (np.ndarray, ((1,), np.dtype('O'), bytes(8)), "'str' object is not callable"),
        (np.load, ('x',), 'names numpy'),
    ],
)
def test_globals_are_refused(
    tmp_path: Path, function: Callable, arguments: tuple, message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        convert(tmp_path / 'l.pkl', pickle.dumps([Runs(function, *arguments)]))


def test_object_array_of_raw_bytes_is_refused(tmp_path: Path) -> None:
    array = objects('x').__reduce__()
    state = (1, (1,), np.dtype('O'), False, bytes(8))

    class Forged:
        def __reduce__(self) -> tuple:
            return *array[:2], state

    with pytest.raises(SystemExit, match='content does not fit its type'):
        convert(tmp_path / 'l.pkl', pickle.dumps([Forged()]))


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('l.txt', b'', r'must end in \.pkl, \.pickle or \.npy'),
        ('l.pkl', b'', 'l.pkl is refused: Ran out of input'),
        ('l.pkl', pickle.dumps(TUPLES)[:-9], 'l.pkl is refused'),
        ('l.pkl', b'<html>', 'l.pkl is refused'),
        ('l.pkl', pickle.dumps(dict(a=1)), 'holds a dict; a list of rows is expected'),
        ('l.pkl', pickle.dumps([(1, 'x'), 5]), r'Row 1 must be a dict or \(index, text, ...\)'),
        ('l.pkl', pickle.dumps([(1, 5)]), "Row 0: 'captions' must be text or a list of texts, not"),
        ('l.pkl', pickle.dumps([(1.5, 'x')]), 'Row 0: the image must be a number or a name'),
        (
            'l.pkl',
            pickle.dumps([dict(name='x', captions=['x'])]),
            'Row 0 has none of the keys image_name, image_id; it has name, captions. Name',
        ),
        ('l.pkl', pickle.dumps([(8, '', ' ')]), 'at least one row'),
        ('l.pkl', pickle.dumps([dict(image_id=1, captions=np.zeros((2, 2)))]), r'shape \(2, 2\)'),
        ('l.npy', b'<html>', r'l\.npy is no \.npy file'),
        ('l.npy', to_npy(objects('a', 'b'))[:-9], 'l.npy is refused'),
        ('l.npy', to_npy(np.array([1, 2])), 'Row 0 must be a dict'),
    ],
)
def test_official_pickle_refuses(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        convert(tmp_path / name, content)
    assert not list(tmp_path.glob('out*'))
