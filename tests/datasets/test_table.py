"""Tests of data sets on caption tables: folders, the zip tree of YFCC15M, workers, subsets."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from mmslip.datasets import CaptionTable, TableDataset, Visit, YFCC15MDataset
from mmslip.registry import DATASETS
from tests.conftest import draw_shape

# Rows of YFCC100M in three archives of two folders.
KEYS = [12345678, 12345000, 12345999, 7, 12346678, 998]


def jpeg(key: int) -> bytes:
    """A picture that depends on the key."""
    return cv2.imencode('.jpg', draw_shape(key))[1].tobytes()


def zip_path(root: Path, key: int) -> Path:
    digits = f'{key:08d}'
    return root / 'images' / digits[:2] / f'{digits[2:5]}.zip'


@pytest.fixture
def yfcc(tmp_path: Path) -> Path:
    """A table ``train.table`` and the archives that its keys lie in."""
    for key in KEYS:
        path = zip_path(tmp_path, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, 'a', zipfile.ZIP_STORED) as archive:
            archive.writestr(f'{key % 1000:03d}.jpg', jpeg(key))
    rows = [(str(key), [f'title {key}', f'text {key}']) for key in KEYS]
    CaptionTable.write(tmp_path / 'train.table', rows)
    return tmp_path


def open_yfcc(root: Path, **kwargs: object) -> YFCC15MDataset:
    settings = dict(
        data_root=str(root), ann_file='train.table', data_prefix=dict(img_path='images')
    )
    return YFCC15MDataset(**{**settings, **kwargs})


def expected(root: Path, index: int) -> dict:
    key = KEYS[index]
    return dict(
        img_bytes=jpeg(key),
        img_name=f'{zip_path(root, key)}:{key % 1000:03d}.jpg',
        text=[f'title {key}', f'text {key}'],
        sample_idx=index,
    )


@pytest.fixture
def folder(make_pairs: Callable[..., Path]) -> Path:
    """Ten pictures and a table of them."""
    root = make_pairs(10)
    rows = [(f'{i:02d}.png', [f'one {i}', f'two {i}']) for i in range(10)]
    CaptionTable.write(root / 'train.table', rows)
    return root


def open_folder(root: Path, **kwargs: object) -> TableDataset:
    return TableDataset('train.table', str(root), dict(img_path='images'), **kwargs)


def names(dataset: TableDataset) -> list[int]:
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert [info['sample_idx'] for info in infos] == list(range(len(infos)))
    return [int(Path(info['img_path']).stem) for info in infos]


def test_folder_of_images(folder: Path) -> None:
    dataset = DATASETS.build(
        dict(
            type='mmslip.TableDataset',
            data_root=str(folder),
            ann_file='train.table',
            data_prefix=dict(img_path='images'),
            pipeline=[dict(type='mmslip.LoadImage')],
        )
    )
    assert len(dataset) == 10
    assert dataset.get_data_info(-3) == dict(
        img_path=str(folder / 'images' / '07.png'), text=['one 7', 'two 7'], sample_idx=7
    )
    for index in range(10):
        stored = cv2.imread(str(folder / 'images' / f'{index:02d}.png'))
        np.testing.assert_array_equal(dataset[index]['img'], stored)
        np.testing.assert_array_equal(dataset.load_image(index), stored[..., ::-1])


def test_no_object_per_row(folder: Path) -> None:
    dataset = open_folder(folder)
    assert dataset.data_list == []
    assert isinstance(dataset._order, range)
    assert len(pickle.dumps(dataset)) < 4500


@pytest.mark.parametrize(
    ('indices', 'rows'),
    [
        (4, [0, 1, 2, 3]),
        (-3, [7, 8, 9]),
        (0, []),
        (99, list(range(10))),
        ([5, 0, -1, 5], [5, 0, 9, 5]),
        ((), []),
    ],
)
def test_indices(folder: Path, indices: int | list[int], rows: list[int]) -> None:
    assert names(open_folder(folder, indices=indices)) == rows
    whole = open_folder(folder)
    assert names(whole.get_subset(indices)) == rows
    assert names(whole) == list(range(10))
    whole.get_subset_(indices)
    assert names(whole) == rows
    lazy = open_folder(folder, indices=indices, lazy_init=True)
    assert len(lazy) == len(rows)


def test_subset_of_subset(folder: Path) -> None:
    subset = open_folder(folder, indices=[9, 8, 7, 6]).get_subset([2, -1, 0])
    assert names(subset) == [7, 6, 9]
    assert names(subset.get_subset(-2)) == [6, 9]
    assert names(open_folder(folder, indices=-4).get_subset([0, 3])) == [6, 9]


@pytest.mark.parametrize('indices', [[10], [0, -11], [[1, 2]]])
def test_wrong_indices(folder: Path, indices: list) -> None:
    with pytest.raises(IndexError, match=r'`indices` must be .* of which there are 10; not \['):
        open_folder(folder, indices=indices)


def test_index_beyond_the_end(folder: Path) -> None:
    with pytest.raises(IndexError):
        open_folder(folder).get_data_info(10)


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='`ann_file` and `data_root`') as caught:
        TableDataset('none.table', str(tmp_path))
    assert str(tmp_path / 'none.table') in str(caught.value)


def test_captions_are_drawn_by_the_visit(folder: Path) -> None:
    tokenise = dict(type='mmslip.TokenizeCaption')
    dataset = open_folder(folder, pipeline=[tokenise])
    drawn = [dataset[Visit(3, seed)]['text'] for seed in range(40)]
    assert set(drawn) == {'one 3', 'two 3'}
    assert drawn == [dataset[Visit(3, seed)]['text'] for seed in range(40)]


def test_yfcc_layout(yfcc: Path) -> None:
    assert sorted(str(p.relative_to(yfcc)) for p in yfcc.rglob('*.zip')) == [
        'images/00/000.zip',
        'images/12/345.zip',
        'images/12/346.zip',
    ]
    dataset = open_yfcc(yfcc)
    assert len(dataset) == 6
    for index in [0, 3, 4, 5, 2, 1, 0]:
        assert dataset.get_data_info(index) == expected(yfcc, index)
    np.testing.assert_array_equal(
        dataset.load_image(0),
        cv2.imdecode(np.frombuffer(jpeg(KEYS[0]), np.uint8), cv2.IMREAD_COLOR)[..., ::-1],
    )


def test_no_archive_stays_open(yfcc: Path) -> None:
    dataset = open_yfcc(yfcc)
    before = len(os.listdir('/proc/self/fd'))
    for index in range(6):
        dataset.get_data_info(index)
    assert len(os.listdir('/proc/self/fd')) == before


def test_forked_workers_read_the_same(yfcc: Path) -> None:
    dataset = open_yfcc(yfcc)
    wanted = [dataset[index] for index in range(6)]
    assert wanted == [expected(yfcc, index) for index in range(6)]
    loader = DataLoader(
        dataset,
        batch_size=1,
        num_workers=2,
        sampler=[*range(6)] * 20,
        collate_fn=list,
        multiprocessing_context='fork',
    )
    for number, (item,) in enumerate(loader):
        assert item == wanted[number % 6]
    assert dataset[4] == wanted[4]


def test_pickled_copy_opens_its_own_files(yfcc: Path) -> None:
    dataset = open_yfcc(yfcc, indices=-4)
    wanted = [dataset[index] for index in range(4)]
    content = pickle.dumps(dataset)
    del dataset  # closes everything, as if this were a spawned worker
    copy = pickle.loads(content)
    assert [copy[index] for index in range(4)] == wanted


def test_missing_archive_and_member(yfcc: Path) -> None:
    dataset = open_yfcc(yfcc)
    zip_path(yfcc, 7).unlink()
    message = r'no archive .*000\.zip \(for 007\.jpg\): check `data_root`'
    with pytest.raises(FileNotFoundError, match=message):
        dataset.get_data_info(3)
    with zipfile.ZipFile(zip_path(yfcc, 12346678), 'w') as archive:
        archive.writestr('677.jpg', b'x')
    with pytest.raises(ValueError, match=r'There is no .*12/346\.zip:678\.jpg: fetch'):
        dataset.get_data_info(4)


def test_damaged_archive(yfcc: Path) -> None:
    path = zip_path(yfcc, 12346678)
    whole = path.read_bytes()
    place = whole.index(jpeg(12346678)) + 100
    for damaged in [
        b'',
        whole[: len(whole) // 2],
        whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
    ]:
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r'346\.zip:678\.jpg cannot be read .* again'):
            open_yfcc(yfcc).get_data_info(4)


@pytest.mark.parametrize('key', ['123456789', 'a.jpg', '-5', '²'])
def test_key_that_is_no_row(tmp_path: Path, key: str) -> None:
    CaptionTable.write(tmp_path / 'train.table', [(key, ['x'])])
    with pytest.raises(ValueError, match='which is no row of YFCC100M') as caught:
        open_yfcc(tmp_path).get_data_info(0)
    assert repr(key) in str(caught.value)
