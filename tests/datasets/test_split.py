"""Parts of a data set: what each kind of data set keeps, and splits that do not fit."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mmslip.datasets import CaptionTable, FolderDataset, ImageTextDataset, TableDataset
from mmslip.datasets.io.split import read_split, write_split


def test_each_sample_is_in_one_part(make_pairs: Callable[..., Path]) -> None:
    root = make_pairs(10)
    prefix = dict(img_path=str(root / 'images'))
    CaptionTable.write(root / 't.table', [(f'{row:02d}.png', ['x']) for row in range(10)])
    split = root / 'split.json'
    write_split(split, 10, held_out=[7, 2], bare=[3], left_out=[9])
    wanted = dict(train=[0, 1, 4, 5, 6, 8], held_out=[2, 7], bare=[3])
    for part, rows in wanted.items():
        subset = dict(split=str(split), part=part)
        for dataset in (
            ImageTextDataset(str(root / 'pairs.jsonl'), data_prefix=prefix, subset=subset),
            FolderDataset(str(root / 'images'), subset=subset),
            TableDataset(str(root / 't.table'), data_prefix=prefix, subset=subset),
            TableDataset(str(root / 't.table'), data_prefix=prefix, subset=subset, lazy_init=True),
        ):
            infos = [dataset.get_data_info(index) for index in range(len(dataset))]
            assert [int(Path(info['img_path']).stem) for info in infos] == rows
            assert [info['sample_idx'] for info in infos] == list(range(len(rows)))


def test_splits_that_do_not_fit(make_pairs: Callable[..., Path]) -> None:
    root = make_pairs(4)
    split = root / 'split.json'
    with pytest.raises(FileNotFoundError, match=r'no split .*split.json: make it again'):
        FolderDataset(str(root / 'images'), subset=dict(split=str(split), part='train'))
    write_split(split, 5, held_out=[4])
    with pytest.raises(ValueError, match='made for a data set of 5 samples, and this one has 4'):
        FolderDataset(str(root / 'images'), subset=dict(split=str(split), part='train'))
    with pytest.raises(ValueError, match="one of train, held_out, bare, not 'test'"):
        read_split(split, 'test', 5)
    for text in ('[]', '{"rows": 5}', '{"rows": 5, "held_out": [-1], "bare": [], "left_out": []}'):
        split.write_text(text)
        with pytest.raises(ValueError, match=r'must have lists of row numbers \(held_out, bare'):
            read_split(split, 'train', 5)
    write_split(split, 5, held_out=[5])
    with pytest.raises(ValueError, match='made for a data set'):
        read_split(split, 'train', 5)
