"""From a path to a data set: kinds of data, names of columns, folders of images."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mmslip.datasets import CaptionTable
from mmslip.datasets.recognise import recognise
from mmslip.registry import DATASETS


@pytest.fixture
def root(make_pairs: Callable[..., Path]) -> Path:
    return make_pairs(3)


def put(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def captions_of(config: dict) -> list[list[str]]:
    """Captions of all samples, each of which has an image."""
    dataset = DATASETS.build(dict(config, pipeline=[]))
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert all('img_bytes' in info or Path(info['img_path']).is_file() for info in infos)
    return [info.get('text', []) for info in infos]


@pytest.mark.parametrize(
    ('name', 'content', 'keys'),
    [
        ('t.csv', 'image,caption\n00.png,x\n', {}),
        ('t.csv', 'id,Path,Text\n1,00.png,x\n', dict(image_key='Path', caption_keys=['Text'])),
        ('t.tsv', 'path\tlabel\n00.png\tx\n', dict(image_key='path', caption_keys=['label'])),
        ('t.json', [dict(url='u', img='00.png', title='x')],
         dict(image_key='img', caption_keys=['title'])),
        ('t.csv', 'image\n00.png\n', dict(captions='ignored')),
    ],
)  # fmt: skip
def test_columns(root: Path, name: str, content: object, keys: dict) -> None:
    path = put(root / name, content)
    config = recognise(path)
    prefix = dict(img_path=str(root / 'images'))
    expected = dict(type='mmslip.ImageTextDataset', ann_file=str(path), data_prefix=prefix, **keys)
    assert config == expected
    assert captions_of(config) == ([[]] if 'captions' in keys else [['x']])


def test_columns_that_are_given(root: Path) -> None:
    path = put(root / 't.csv', 'a,b,c\n00.png,x,y\n')
    config = recognise(path, root / 'images', 'a', ['c', 'b'])
    assert captions_of(config) == [['y', 'x']]
    with pytest.raises(
        ValueError, match=r"t.csv has the columns 'a', 'b', 'c': say by --image-key"
    ):
        recognise(path, root / 'images')
    with pytest.raises(ValueError, match='say by --caption-keys which are captions'):
        recognise(path, root / 'images', 'a')
    with pytest.raises(ValueError, match="has no column 'd'; it has 'a', 'b', 'c'"):
        recognise(path, root / 'images', 'a', ['d'])


def test_folders(root: Path) -> None:
    images = root / 'images'
    bare = dict(type='mmslip.FolderDataset', data_root=str(images), captions='ignored')
    assert recognise(images) == bare
    put(images / '01.txt', 'a text')
    config = recognise(images)
    assert captions_of(dict(config, captions='optional')) == [[], ['a text'], []]
    # The only table in it is that of the images.
    assert recognise(root)['ann_file'] == str(root / 'pairs.jsonl')
    put(root / 'labels.csv', 'file,size\n00.png,3\n')
    assert recognise(root)['ann_file'] == str(root / 'pairs.jsonl')
    CaptionTable.write(root / 't.table', [('images/02.png', ['x', 'y'])])
    assert captions_of(recognise(root / 't.table')) == [['x', 'y']]


def test_shards(root: Path) -> None:
    put(root / 'a.json', dict(url='u', text='x'))
    (root / 'shards').mkdir()
    with tarfile.open(root / 'shards' / '0.tar', 'w') as archive:
        archive.add(root / 'images' / '00.png', 'a.png')
        archive.add(root / 'a.json', 'a.json')
    config = recognise(root / 'shards')
    assert config == dict(
        type='mmslip.ShardDataset', shards=str(root / 'shards' / '*.tar'), caption_keys=['text']
    )
    assert captions_of(config) == captions_of(recognise(root / 'shards' / '0.tar')) == [['x']]


def test_parquet(root: Path) -> None:
    pyarrow = pytest.importorskip('pyarrow', reason='pyarrow is not installed')
    from pyarrow import parquet

    columns = dict(photo=[(root / 'images' / '00.png').read_bytes()], label=[3], names=[['x', 'y']])
    parquet.write_table(pyarrow.table(columns), root / 'a.parquet')
    config = recognise(root / '*.parquet')
    expected = dict(image_key='photo', caption_keys=['names'], files=str(root / '*.parquet'))
    assert config == dict(expected, type='mmslip.ParquetDataset')
    assert captions_of(config) == [['x', 'y']]


def test_what_is_not_there(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'no table, folder, shard or Parquet .*none'):
        recognise(root / 'none.csv')
    with pytest.raises(FileNotFoundError, match=r'no folder of images .*none'):
        recognise(root / 'pairs.jsonl', root / 'none')
    path = put(root / 't.csv', 'image,caption\nfar.png,x\n')
    with pytest.raises(
        FileNotFoundError, match=r'first 1 images of .*t.csv .*far.png: name .*--im'
    ):
        recognise(path)
    with pytest.raises(ValueError, match=r't.csv has no rows'):
        recognise(put(path, 'image,caption\n'))
    (root / 'empty').mkdir()
    with pytest.raises(ValueError, match='empty holds no image, shard'):
        recognise(root / 'empty')
    for name in ('a.csv', 'b.csv'):
        put(root / 'empty' / name, 'image,caption\nx.png,x\n')
    with pytest.raises(ValueError, match=r'more than one table: name one of a.csv, b.csv'):
        recognise(root / 'empty')


def test_captions_that_come_late(root: Path) -> None:
    """Images without a caption may be the first ones, and lack the key or the member."""
    rows = [dict(image=f'{number % 3:02d}.png') for number in range(30)]
    path = put(root / 't.jsonl', '\n'.join(map(json.dumps, [*rows, dict(rows[0], Text='x')])))
    assert recognise(path)['caption_keys'] == ['Text']
    (root / 'pairs.jsonl').unlink()
    assert recognise(root) == recognise(path)
    config = dict(recognise(path), captions='optional')
    assert captions_of(config) == [['x'], [], []]
    table = put(root / 'id.json', [dict(image='00.png', id='7'), dict(image='01.png', caption='x')])
    assert captions_of(dict(recognise(table), captions='optional')) == [[], ['x']]

    image = (root / 'images' / '00.png').read_bytes()
    shards = [
        {'a.png': image, 'b.png': image, 'b.json': b'{"width": 3}'},
        {'c.png': image, 'c.json': b'{', 'd.png': image, 'd.json': b'{"text": "x"}'},
    ]
    for number, members in enumerate(shards):
        with tarfile.open(root / f'{number}.tar', 'w') as archive:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    assert recognise(root / '*.tar')['caption_keys'] == ['text']
    assert recognise(root / '0.tar')['captions'] == 'ignored'
