"""Tests of tables of images and captions: what is read, and what each error says."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmslip.datasets import ImageTextDataset
from mmslip.registry import DATASETS


def write(folder: Path, name: str, content: str | bytes) -> str:
    """Write a table without any translation of its line ends."""
    content = content if isinstance(content, bytes) else content.encode('utf-8')
    (folder / name).write_bytes(content)
    return str(folder / name)


def read(table: str, **kwargs: object) -> list[tuple[str, list[str]]]:
    """All (image path, captions) of a table."""
    dataset = ImageTextDataset(table, **kwargs)
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert [info['sample_idx'] for info in infos] == list(range(len(infos)))
    return [(info['img_path'], info['text']) for info in infos]


def test_jsonl_content(tmp_path: Path) -> None:
    rows = [
        dict(image='a.jpg', caption='a red chair'),
        dict(image='deep/b.jpg', caption=['  eine Tür ', '椅子', None, ' ']),
        dict(image='c.jpg', caption='two\nlines, "quoted" \\ and \u2028 kept', other=[1, 2]),
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    table = write(tmp_path, 't.jsonl', lines[0] + '\r\n\n  \n' + lines[1] + '\n' + lines[2])
    assert read(table) == [
        ('a.jpg', ['a red chair']),
        ('deep/b.jpg', ['eine Tür', '椅子']),
        ('c.jpg', ['two\nlines, "quoted" \\ and \u2028 kept']),
    ]


@pytest.mark.parametrize(('name', 'tab'), [('t.csv', ','), ('t.tsv', '\t'), ('T.CSV', ',')])
def test_delimited_content(tmp_path: Path, name: str, tab: str) -> None:
    text = (
        f'id{tab}image{tab}caption\r\n'
        f'1{tab}a.jpg{tab}plain; text\r\n'
        f'2{tab}"b{tab}b.jpg"{tab}"one{tab}two"\r\n'
        '\r\n'
        f'3{tab}c.jpg{tab}"first line\r\nsecond ""line"""\r\n'
    )
    assert read(write(tmp_path, name, text)) == [
        ('a.jpg', ['plain; text']),
        (f'b{tab}b.jpg', [f'one{tab}two']),
        ('c.jpg', ['first line\r\nsecond "line"']),
    ]


def test_several_caption_columns(tmp_path: Path) -> None:
    table = write(
        tmp_path, 't.csv', 'file,title,text\na.png,A title,A text\nb.png,,only text\nc.png,only,\n'
    )
    assert read(table, image_key='file', caption_keys=('text', 'title')) == [
        ('a.png', ['A text', 'A title']),
        ('b.png', ['only text']),
        ('c.png', ['only']),
    ]


def test_jsonl_columns_of_texts_and_lists(tmp_path: Path) -> None:
    row = dict(path='a.png', title='one', texts=['two', 'three'])
    table = write(tmp_path, 't.jsonl', json.dumps(row))
    got = read(table, image_key='path', caption_keys=['title', 'texts'])
    assert got == [('a.png', ['one', 'two', 'three'])]


@pytest.mark.parametrize(
    ('name', 'text'),
    [('t.csv', 'image,caption\na.jpg,x\n'), ('t.jsonl', '{"image": "a.jpg", "caption": "x"}\n')],
)
def test_byte_order_mark_is_passed_over(tmp_path: Path, name: str, text: str) -> None:
    assert read(write(tmp_path, name, text.encode('utf-8-sig'))) == [('a.jpg', ['x'])]


@pytest.mark.parametrize('absolute_table', [False, True])
@pytest.mark.parametrize('prefix', ['', 'pictures', 'pictures/'])
def test_paths_are_joined(tmp_path: Path, prefix: str, absolute_table: bool) -> None:
    table = write(tmp_path, 't.csv', 'image,caption\nsub/a.jpg,x\n')
    got = read(
        table if absolute_table else 't.csv',
        data_root=str(tmp_path),
        data_prefix=dict(img_path=prefix),
    )
    assert got == [(str(tmp_path / prefix / 'sub' / 'a.jpg'), ['x'])]


def test_paths_without_root_and_absolute_paths(tmp_path: Path) -> None:
    table = write(tmp_path, 't.csv', f'image,caption\na.jpg,x\n{tmp_path}/b.jpg,y\n')
    absolute = (f'{tmp_path}/b.jpg', ['y'])
    assert read(table) == [('a.jpg', ['x']), absolute]
    assert read(table, data_prefix=dict(img_path='near')) == [('near/a.jpg', ['x']), absolute]
    far = str(tmp_path / 'far')
    got = read(table, data_root='elsewhere', data_prefix=dict(img_path=far))
    assert got == [(far + '/a.jpg', ['x']), absolute]


@pytest.mark.parametrize(
    ('name', 'content', 'line', 'message'),
    [
        (
            't.csv',
            'image,title\na.jpg,x\n',
            2,
            r"no column 'caption'; it has 'image', 'title'\. Set",
        ),
        ('t.jsonl', '{"file": "a.jpg", "caption": "x"}', 1, r"no column 'image'; it has 'file', "),
        ('t.csv', 'image,caption\na.jpg,x\nb.jpg, \n', 3, "'caption' is empty. Remove the row or"),
        ('t.csv', 'image,caption\n,x\n', 2, "'image' is empty"),
        ('t.jsonl', '\n{"image": "a", "caption": []}', 2, "'caption' is empty"),
        ('t.jsonl', '{"image": "a", "caption": null}', 1, "'caption' is empty"),
        ('t.jsonl', '{"image": "a", "caption": 5}', 1, r"'caption' must be text .* not \[5\]"),
        ('t.jsonl', '{"image": "a", "caption": ["x", {}]}', 1, 'must be text or a list of texts'),
        ('t.jsonl', '{"image": "a", "caption": "x"}\n{"image": \n', 2, 'not valid JSON: Expecting'),
        ('t.jsonl', '["a.jpg", "x"]\n', 1, r'must be a JSON object, not \["a.jpg", "x"\]'),
        (
            't.csv',
            'image,caption\na.jpg,x\nb.jpg,one, two\n',
            3,
            'another number of cells .* quote',
        ),
        (
            't.tsv',
            'image\tcaption\n"a\nb"\tx\nb.jpg\n',
            4,
            'another number of cells than the header',
        ),
    ],
)
def test_bad_row_names_file_line_and_remedy(
    tmp_path: Path, name: str, content: str, line: int, message: str
) -> None:
    table = write(tmp_path, name, content)
    with pytest.raises(ValueError, match=message) as caught:
        read(table)
    assert str(caught.value).startswith(f'{table}, line {line}')


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('t.txt', 'image,caption\na,x\n', r'must end in .jsonl, .csv or .tsv'),
        ('t.json', '{}', r'must end in .jsonl, .csv or .tsv'),
        ('t.csv', '', 'has no rows'),
        ('t.csv', 'image,caption\n', 'has no rows'),
        ('t.jsonl', '\n \n', 'has no rows'),
        ('t.csv', 'image,caption\na.jpg,Tür\n'.encode('latin-1'), 'not UTF-8 .* convert it'),
        ('t.jsonl', '{"image": "a", "caption": "Tür"}'.encode('latin-1'), 'not UTF-8'),
    ],
)
def test_bad_table_names_file_and_remedy(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    table = write(tmp_path, name, content)
    with pytest.raises(ValueError, match=message) as caught:
        read(table)
    assert str(caught.value).startswith(table)


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='check `ann_file` and `data_root`') as caught:
        ImageTextDataset('none.csv', data_root=str(tmp_path))
    assert str(tmp_path / 'none.csv') in str(caught.value)


def test_stray_quote_loses_no_rows(tmp_path: Path) -> None:
    table = write(tmp_path, 't.tsv', 'image\tcaption\na.jpg\t"tall tree\nb.jpg\ty\nc.jpg\tz\n')
    with pytest.raises(ValueError, match='quote') as caught:
        read(table)
    assert str(caught.value).startswith(table)


def test_overlong_cell_names_file_and_line(tmp_path: Path) -> None:
    table = write(tmp_path, 't.csv', 'image,caption\na.jpg,x\nb.jpg,' + 'x' * 140_000 + '\n')
    with pytest.raises(ValueError, match='after line 2') as caught:
        read(table)
    assert str(caught.value).startswith(table)


def test_pipeline_reads_the_written_pictures(make_pairs: Callable[..., Path]) -> None:
    root = make_pairs(4, captions=2)
    dataset = DATASETS.build(
        dict(
            type='mmslip.ImageTextDataset',
            data_root=str(root),
            ann_file='pairs.jsonl',
            data_prefix=dict(img_path='images'),
            pipeline=[dict(type='mmslip.LoadImage')],
        )
    )
    assert len(dataset) == 4
    shapes = set()
    for index in range(4):
        item = dataset[index]
        stored = cv2.imread(str(root / 'images' / f'{index:02d}.png'))
        np.testing.assert_array_equal(item['img'], stored)
        np.testing.assert_array_equal(dataset.load_image(index), stored[..., ::-1])
        assert item['ori_shape'] == stored.shape[:2]
        assert item['text'] == [f'shape {index} told in way {way}' for way in range(2)]
        shapes.add(stored.shape)
    assert len(shapes) == 4


@pytest.mark.parametrize('content', [b'', b'no picture at all'])
def test_unreadable_image_is_named(make_pairs: Callable[..., Path], content: bytes) -> None:
    root = make_pairs(2)
    image = root / 'images' / '01.png'
    image.write_bytes(content)
    kwargs = dict(
        data_root=str(root),
        data_prefix=dict(img_path='images'),
        pipeline=[dict(type='mmslip.LoadImage')],
        max_bad_share=0,
    )
    message = rf'01.png, sample 1 \({len(content)} bytes\) is not an image .* replace the file'
    with pytest.raises(ValueError, match=message) as caught:
        ImageTextDataset('pairs.jsonl', **kwargs)[1]
    assert str(caught.value).startswith(str(image))
    image.unlink()
    with pytest.raises(FileNotFoundError, match='check `data_root` and `data_prefix`') as caught:
        ImageTextDataset('pairs.jsonl', **kwargs)[1]
    assert f'{image}, sample 1' in str(caught.value)
