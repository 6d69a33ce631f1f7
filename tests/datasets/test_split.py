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


def test_as_many_other_images_are_refused(make_pairs: Callable[..., Path], tmp_path: Path) -> None:
    """Names of images count, and their order; captions and the place of the folder do not."""
    root = make_pairs(6)
    images, table, split = root / 'images', root / 'pairs.jsonl', tmp_path / 'split.json'
    rows = table.read_text().splitlines(keepends=True)

    def of_table(folder: Path = images) -> ImageTextDataset:
        subset = dict(split=str(split), part='held_out')
        return ImageTextDataset(
            str(table), data_prefix=dict(img_path=str(folder)), captions='optional', subset=subset
        )

    whole = ImageTextDataset(str(table), data_prefix=dict(img_path=str(images)))
    write_split(split, 6, whole.digest_of_images(), held_out=[4, 5])
    table.write_text(''.join([*rows[:5], '{"image": "05.png"}\n']).replace('told', 'said'))
    assert len(of_table()) == 2
    (tmp_path / 'moved').mkdir()
    assert len(of_table(images.rename(tmp_path / 'moved' / 'images'))) == 2
    table.write_text(''.join([*rows[1:], '{"image": "06.png"}\n']))
    with pytest.raises(ValueError, match=r'split.json was made for other images .*make it again'):
        of_table()

    folder = tmp_path / 'moved' / 'images'
    (folder / '02.txt').write_text('x')
    captioned = FolderDataset(str(folder), captions='optional')
    assert captioned.digest_of_images() == FolderDataset(str(folder)).digest_of_images()
    CaptionTable.write(root / 't.table', [('00.png', ['x']), ('01.png', [])])
    CaptionTable.write(root / 'u.table', [('00.png', []), ('01.png', ['y'])])
    prefix = dict(img_path=str(folder))
    digests = [
        TableDataset(str(root / f'{name}.table'), data_prefix=prefix, captions='optional')
        .digest_of_images()
        for name in 'tu'
    ]  # fmt: skip
    assert digests[0] == digests[1]
