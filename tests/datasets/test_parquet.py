"""Tests of Parquet files with embedded images: layouts, row groups, workers, damaged files."""

import pickle
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from mmslip.datasets import ParquetDataset
from mmslip.datasets import parquet as module
from mmslip.registry import DATASETS

pyarrow = pytest.importorskip('pyarrow', reason='pyarrow is not installed')
from pyarrow import parquet  # noqa: E402

IMAGE = pyarrow.struct([('bytes', pyarrow.binary()), ('path', pyarrow.string())])


def picture(number: int) -> bytes:
    """A PNG whose size depends on the number."""
    image = np.full((12 + number, 20, 3), number, np.uint8)
    return cv2.imencode('.png', image)[1].tobytes()


def write(path: Path, numbers: range, group: int = 3, **columns: list) -> str:
    """A file as the `datasets` library writes it; columns may be replaced."""
    images = [dict(bytes=picture(number), path=f'{number}.png') for number in numbers]
    values = dict(
        image=pyarrow.array(images, IMAGE),
        caption=[f'Bild {number} ü' for number in numbers],
        label=list(numbers),
    )
    table = pyarrow.table({**values, **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=group)
    return str(path)


def test_random_access_over_files_and_groups(tmp_path: Path) -> None:
    write(tmp_path / 'data' / 'train-00000-of-00002.parquet', range(8))
    write(tmp_path / 'data' / 'train-00001-of-00002.parquet', range(8, 12), group=1)
    write(tmp_path / 'data' / 'validation-00000-of-00001.parquet', range(90, 92))
    dataset = DATASETS.build(
        dict(
            type='mmslip.ParquetDataset',
            data_root=str(tmp_path),
            files='data/train-*.parquet',
            pipeline=[dict(type='mmslip.LoadImage')],
        )
    )
    assert len(dataset) == 12
    for index in np.random.default_rng(0).permutation(24) % 12:
        info = dataset.get_data_info(int(index))
        assert info['img_bytes'] == picture(index)
        assert info['text'] == [f'Bild {index} ü']
        assert info['sample_idx'] == index
    assert dataset.get_data_info(7)['img_name'].endswith('train-00000-of-00002.parquet:2:1')
    assert dataset.get_data_info(-1)['sample_idx'] == 11
    np.testing.assert_array_equal(dataset[9]['img'], np.full((21, 20, 3), 9))
    np.testing.assert_array_equal(dataset.load_image(9), np.full((21, 20, 3), 9))


def test_order_of_patterns_and_subsets(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f'{number}.parquet', range(2 * number, 2 * number + 2))

    def order(dataset: ParquetDataset) -> list[str]:
        return [dataset.get_data_info(index)['text'][0] for index in range(len(dataset))]

    def texts(*numbers: int) -> list[str]:
        return [f'Bild {number} ü' for number in numbers]

    files = ['2.parquet', '[01].parquet']
    dataset = ParquetDataset(files, data_root=str(tmp_path))
    assert order(dataset) == texts(4, 5, 0, 1, 2, 3)
    assert order(dataset.get_subset([5, 0])) == texts(3, 4)
    assert order(ParquetDataset(files, data_root=str(tmp_path), indices=3)) == texts(4, 5, 0)


def test_binary_images_and_captions_of_several_columns(tmp_path: Path) -> None:
    path = write(
        tmp_path / 'a.parquet',
        range(2),
        jpg=pyarrow.array([picture(5), picture(6)], pyarrow.large_binary()),
        texts=pyarrow.array([['one', ' two '], []], pyarrow.list_(pyarrow.string())),
        title=pyarrow.array([None, 'title'], pyarrow.large_string()),
    )
    dataset = ParquetDataset(path, image_key='jpg', caption_keys=('title', 'texts'))
    assert [dataset[index]['text'] for index in range(2)] == [['one', 'two'], ['title']]
    assert [dataset[index]['img_bytes'] for index in range(2)] == [picture(5), picture(6)]


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_workers_open_their_own_files(tmp_path: Path, method: str) -> None:
    path = write(tmp_path / 'a.parquet', range(12))
    dataset = ParquetDataset(path)
    expected = [dataset[index] for index in range(12)]  # opens the file before the fork
    if method == 'spawn':  # a worker starts from the pickled data set
        dataset = pickle.loads(pickle.dumps(dataset))
        assert [dataset[index] for index in range(12)] == expected
        return
    loader = DataLoader(
        dataset, batch_size=3, num_workers=2, collate_fn=list, multiprocessing_context='fork'
    )
    assert [item for batch in loader for item in batch] == expected


def test_groups_are_read_once_in_order(tmp_path: Path) -> None:
    dataset = ParquetDataset(write(tmp_path / 'a.parquet', range(12), group=4))
    module._read_group.cache_clear()
    for index in range(12):
        dataset.get_data_info(index)
    assert module._read_group.cache_info().misses == 3
    assert module._read_group.cache_info().currsize <= 2


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        (
            dict(image_key='jpg'),
            r"no column 'jpg'; it has 'image', 'caption', 'label'\. Set `image",
        ),
        (dict(caption_keys='text'), "no column 'text'"),
    ],
)
def test_unknown_column(tmp_path: Path, keys: dict, message: str) -> None:
    path = write(tmp_path / 'a.parquet', range(2))
    with pytest.raises(ValueError, match=message) as caught:
        ParquetDataset(path, **keys)
    assert str(caught.value).startswith(path)


def test_a_repeated_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'a.parquet'
    columns = [pyarrow.array(['x']) for _ in range(4)]
    table = pyarrow.table(columns, names=['image', 'caption', 'caption', 'image'])
    parquet.write_table(table.select([0, 1, 2]), path)
    with pytest.raises(ValueError, match="more than one column 'caption': rename them"):
        ParquetDataset(str(path))
    assert len(ParquetDataset(str(path), captions='ignored')) == 1


@pytest.mark.parametrize(
    ('columns', 'message'),
    [
        (dict(caption=['x', 'x', 'x', ' ']), "has no caption under 'caption'"),
        (dict(caption=['x', 'x', 'x', None]), 'has no caption'),
        (dict(caption=[1, 1, 1, 1]), "'caption' must be text or a list of texts"),
        (
            dict(image=pyarrow.array([dict(bytes=None, path='a/b.jpg')] * 4, IMAGE)),
            "holds the path 'a/b.jpg' but no bytes .* embedded images",
        ),
        (dict(image=pyarrow.array([None] * 4, IMAGE)), "'image' holds None but no bytes"),
        (dict(image=['a.jpg'] * 4), "'image' holds 'a.jpg' but no bytes"),
    ],
)
def test_bad_row_is_named(tmp_path: Path, columns: dict, message: str) -> None:
    path = write(tmp_path / 'a.parquet', range(4), **columns)
    dataset = ParquetDataset(path, test_mode=True)
    with pytest.raises(ValueError, match=message) as caught:
        dataset[3]
    assert str(caught.value).startswith(f'{path}, row 0 of group 1')


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    path = Path(write(tmp_path / 'a.parquet', range(40)))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b'', b'<html>not found</html>' * 60):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r'is damaged or not a Parquet file .* copy') as caught:
            ParquetDataset(str(path))
        assert str(caught.value).startswith(str(path))
    with pytest.raises(FileNotFoundError, match='check `files` and `data_root`'):
        ParquetDataset('b*.parquet', data_root=str(tmp_path))
    with pytest.raises(ValueError, match='has no rows'):
        ParquetDataset(write(tmp_path / 'empty.parquet', range(0)))


def test_damaged_data_is_named(tmp_path: Path) -> None:
    path = Path(write(tmp_path / 'a.parquet', range(40)))
    dataset = ParquetDataset(str(path))
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)
    path.write_bytes(content)
    with pytest.raises(ValueError, match='is damaged') as caught:
        dataset.get_data_info(0)
    assert str(caught.value).startswith(str(path))


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / 'a.parquet', range(2))
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.raises(ImportError, match=r"pip install 'pyarrow>=14'"):
        ParquetDataset(path)
