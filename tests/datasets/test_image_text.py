"""Tests of tables of images and captions: what is read, and what each error says."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmslip.datasets import ImageTextDataset, TableDataset
from mmslip.datasets.io.caption_table import CaptionTableWriter
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


COCO = dict(
    images=[dict(id=7, file_name='a.jpg'), dict(id=3, file_name='b.jpg')],
    annotations=[
        dict(image_id=3, caption='of b'),
        dict(image_id=7, caption='of a'),
        dict(image_id=7, caption='again'),
    ],
)
KARPATHY = dict(
    dataset='flickr8k',
    images=[
        dict(filename='a.jpg', split='train', sentences=[dict(raw='of a'), dict(raw='again')]),
        dict(filename='b.jpg', filepath='val', split='test', sentences=[dict(raw='of b')]),
    ],
)
TWO_OF_A = [('a.jpg', ['of a', 'again']), ('b.jpg', ['of b'])]


@pytest.mark.parametrize(
    ('name', 'content', 'expected'),
    [
        ('coco.json', COCO, TWO_OF_A),
        ('karpathy.json', KARPATHY, [TWO_OF_A[0], ('val/b.jpg', ['of b'])]),
        ('list.json', [dict(image=i, caption=c) for i, c in TWO_OF_A], TWO_OF_A),
        ('inner.json', dict(v=1, data=[dict(image=i, caption=c) for i, c in TWO_OF_A]), TWO_OF_A),
        ('map.json', {'a.jpg': ['of a', 'again'], 'b.jpg': 'of b'}, TWO_OF_A),
    ],
)
def test_json_documents(tmp_path: Path, name: str, content: object, expected: list) -> None:
    assert read(write(tmp_path, name, json.dumps(content, indent=1))) == expected


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        (
            'lines.json',
            '{"image": "a.jpg", "caption": ["of a", "again"]}\n'
            '{"image": "b.jpg", "caption": "of b"}\n',
        ),
        ('captions.txt', 'image,caption\na.jpg,of a\na.jpg,again\nb.jpg,of b\n'),
        ('Flickr8k.token.txt', 'a.jpg#0\tof a\na.jpg#1\tagain\nb.jpg#0\tof b\n'),
        ('results.token', 'a.jpg#0\tof a\na.jpg#1\tagain\n\nb.jpg#0\tof b\n'),
        ('rows.csv', 'image;caption\na.jpg;of a\nb.jpg;of b\na.jpg;again\n'),
        (
            'results.csv',
            'image| number| caption\na.jpg| 0| of a\na.jpg| 1| again\nb.jpg| 0| of b\n',
        ),
    ],
)
def test_rows_of_one_image_are_one_sample(tmp_path: Path, name: str, content: str) -> None:
    assert read(write(tmp_path, name, content)) == TWO_OF_A


def test_a_caption_of_flickr8k_may_hold_commas(tmp_path: Path) -> None:
    text = 'image,caption\na.jpg,"red, and" blue\nb.jpg,A man , a dog , and a cat .\n'
    with pytest.raises(ValueError, match='quote the whole cell'):
        read(write(tmp_path, 'captions.txt', text))
    table = write(tmp_path, 'captions.txt', text.replace('"', ''))
    assert read(table) == [
        ('a.jpg', ['red, and blue']),
        ('b.jpg', ['A man , a dog , and a cat .']),
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
        (
            't.csv',
            'image,caption\na.jpg,x\nb.jpg, \n',
            3,
            "no caption under 'caption'; it has 'image', 'cap",
        ),
        ('t.csv', 'image,caption\n,x\n', 2, "'image' must be the path of an image, not ''"),
        ('t.jsonl', '\n{"image": "a", "caption": []}', 2, "no caption under 'caption'"),
        ('t.jsonl', '{"image": "a", "caption": null}', 1, "no caption under 'caption'"),
        ('t.jsonl', '{"image": "a", "caption": 5}', 1, r"'caption' must be text .* not 5"),
        ('t.jsonl', '{"image": "a", "caption": ["x", {}]}', 1, 'must be text or a list of texts'),
        ('t.jsonl', '{"image": "a", "caption": "x"}\n{"image": \n', 2, 'not valid JSON: Expecting'),
        ('t.jsonl', '["a.jpg", "x"]\n', 1, r'must be a JSON object, not \["a.jpg", "x"\]'),
        (
            't.csv',
            'image,caption\na.jpg,x\nb.jpg,one, two\n',
            3,
            'another number of cells .* quote',
        ),
        ('t.jsonl', '{"image": "a", "caption": "x", "caption": "y"}', 1, "key 'caption' twice; re"),
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
        ('t.xls', 'image,caption\na,x\n', r'must end in .jsonl, .json, .csv, .tsv, .txt or'),
        ('t.json', '{}', r"must be a list of objects .* or COCO's or Karpathy's annotations"),
        ('t.json', '[{"image": "a", "caption": "x"}, 3]', r'entry 1 must be a JSON object, not 3'),
        (
            't.json',
            '{"images": [{"sentences": []}]}',
            r"images\[0\] must .* 'filename' of type str",
        ),
        ('t.json', '{"a": [', 'is not valid JSON'),
        ('t.token', 'a.jpg#0\tx\nb.jpg y\n', r"line 2 must be IMAGE#NUMBER, a tab .*'b.jpg y'"),
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


@pytest.mark.parametrize('name', ['t.csv', 't.tsv'])
def test_a_repeated_column_is_refused(tmp_path: Path, name: str) -> None:
    def table(*names: str) -> str:
        tab = ',' if name == 't.csv' else '\t'
        cells = [f'{number}.jpg' for number in range(len(names))]
        return write(tmp_path, name, f'{tab.join(names)}\n{tab.join(cells)}\n')

    message = rf"{name} has more than one column 'caption': rename them, .* `caption_keys`"
    with pytest.raises(ValueError, match=message):
        read(table('image', 'caption', 'caption'))
    # Of spreadsheets, to which columns without a name cling.
    assert read(table('image', 'caption', '', '')) == [('0.jpg', ['1.jpg'])]


def test_pixels_are_kept(tmp_path: Path) -> None:
    rows = []
    for number in range(3):
        cv2.imwrite(str(tmp_path / f'{number}.png'), np.full((4, 4, 3), number, np.uint8))
        rows.append(json.dumps(dict(image=f'{number}.png', caption=['one', 'two'])))
    table = write(tmp_path, 't.jsonl', '\n'.join(rows))
    prefix = dict(img_path=str(tmp_path))
    dataset = ImageTextDataset(
        table, data_prefix=prefix, keep_decoded=True, max_bad_share=0, pipeline=[]
    )
    first = dataset[1]
    first['img'][:] = 0  # what a transform does to a visit's pixels stays there
    (tmp_path / '1.png').unlink()
    second = dataset[1]
    assert (second['img'] == 1).all()
    assert second['text'] == ['one', 'two']
    assert second['img_shape'] == (4, 4)
    # A part of the set counts its samples anew.
    assert (dataset.get_subset([0, 2])[1]['img'] == 2).all()
    # A worker that is started anew gets none.
    with pytest.raises(ValueError, match='no image'):
        pickle.loads(pickle.dumps(dataset))[1]


def test_pixels_of_a_part_of_a_table(tmp_path: Path) -> None:
    with CaptionTableWriter(tmp_path / 'a.table') as writer:
        for number in range(3):
            cv2.imwrite(str(tmp_path / f'{number}.png'), np.full((4, 4, 3), number, np.uint8))
            writer.add(f'{number}.png', ['a caption'])
    dataset = TableDataset('a.table', str(tmp_path), keep_decoded=True, pipeline=[])
    assert (dataset[1]['img'] == 1).all()
    assert (dataset.get_subset([0, 2])[1]['img'] == 2).all()
