"""Tests of captions, from whatever holds them: blanks, repairs, limits, and images without any."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.dataset import default_collate

from mmslip.datasets import (
    CaptionTable,
    CLIPTokenizer,
    COCOCaptionDataset,
    ImageTextDataset,
    ParquetDataset,
    ShardDataset,
    StreamDataset,
    TableDataset,
)
from mmslip.datasets.base import CaptionedDataset, check_captions
from mmslip.datasets.io import contents
from mmslip.datasets.io.captions import captions_of, text_of
from mmslip.datasets.io.faults import BadSampleError
from mmslip.datasets.io.json_text import parse_json
from mmslip.datasets.text.cleaning import clean, is_blank
from mmslip.datasets.transforms import TokenizeCaption
from tests.datasets.test_decode import PICTURE, encode
from tests.datasets.test_shards import pack

GOOD = encode(PICTURE, 'JPEG')
LOAD = [dict(type='mmslip.LoadImage')]
BLANKS = ['', ' \n', '&nbsp;', '&amp;nbsp;', '\ufeff', '\x7f', '\u200b', '\u00ad', '&#8203;']
BLANKS.append('\u200b'.encode().decode('cp1252'))  # a zero-width space, decoded as Windows would


@pytest.mark.parametrize('text', BLANKS)
def test_blank_when_clean(text):
    assert is_blank(text)
    assert captions_of(dict(a=[text, 'a dog'], b=text), 'ab', 'x') == ['a dog']
    with pytest.raises(BadSampleError, match=r'x\.jpg \(sample 3\) has no caption'):
        check_captions(dict(img_path='x.jpg', text=text), 3)
    with pytest.raises(ValueError, match='has no caption'):
        TokenizeCaption()(dict(text=text))


@pytest.mark.parametrize('text', ['a', '.', '猫', '🐈', '\U0001fae9', '&amp;', 'Ã¤', '\ud83d'])
def test_not_blank(text):
    assert not is_blank(text)
    assert check_captions(info := dict(text=f' {text} '), 0) is None
    assert len(info['text']) == 1


def test_surrogates_are_repaired():
    row = dict(a='half \ud83d one', b=['\ud83d\udc08 whole', 'ä'])
    captions = captions_of(row, 'ab', 'x')
    assert captions == ['half \ufffd one', '🐈 whole', 'ä']
    assert CLIPTokenizer().encode('half \ud83d one') == CLIPTokenizer().encode(captions[0])


def test_other_types_are_named():
    for value in (5, ['a', {}], {}, True):
        with pytest.raises(BadSampleError, match="row 7: 'a' must be text or a list of texts"):
            captions_of(dict(a=value), 'a', 'row 7')
    with pytest.raises(BadSampleError, match=r"row 7 has no caption under 'a'; it has 'b'\."):
        text_of(dict(b='x'), 'a', 'row 7')
    assert text_of(dict(b='x'), 'a', 'row 7', 'optional') == {}
    assert text_of(dict(a=5), 'a', 'row 7', 'ignored') == {}
    with pytest.raises(ValueError, match="required, optional, ignored, not 'none'"):
        CaptionedDataset(captions='none')


@pytest.mark.parametrize('unit', ['word ', 'wort', 'größe &amp; ', '&nbsp;', '猫', '!?'])
def test_long_captions_are_cut_before_they_are_encoded(unit):
    tokenizer, text = CLIPTokenizer(), unit * (8_000_000 // len(unit))
    start = time.perf_counter()
    ids = tokenizer(text)
    assert time.perf_counter() - start < 1
    assert ids.shape == (1, 77)
    if unit != '&nbsp;':
        assert ids[0, -1] == tokenizer.end_id
        assert ids.equal(tokenizer(text[:5000]))
    assert len(clean(text)) <= 2**14


def test_numbers_of_many_digits():
    # html.unescape would raise: int() takes no more than 4,300 digits.
    assert clean(f'a &#{"9" * 5000}; b') == 'a \ufffd b'
    assert clean('&#65;&#x42;') == 'ab'
    for text in (f'{{"a": {"1" * 10_000}}}', '[' * 200_000, b'{"a": "\xff"}', '{'):
        with pytest.raises(ValueError, match=r'^rows\.jsonl, line 3 is not valid JSON'):
            parse_json(text, 'rows.jsonl, line 3')


@pytest.mark.parametrize('value', ['[' * 200_000, '1' * 10_000])
def test_readers_name_json_that_python_refuses(tmp_path, value):
    row = '{"image": "a.jpg", "caption": "x", "n": %s}'
    path = tmp_path / 't.jsonl'
    path.write_text(row % 1 + '\n' + row % value + '\n')
    with pytest.raises(ValueError, match=r't\.jsonl, line 2 is not valid JSON'):
        ImageTextDataset(str(path))
    coco = tmp_path / 'coco.json'
    coco.write_text(f'{{"images": {value}}}')
    with pytest.raises(ValueError, match=r'coco\.json, .* is not valid JSON'):
        COCOCaptionDataset(str(coco))
    members = [('0.jpg', GOOD), ('0.txt', b'zero'), ('1.jpg', GOOD)]
    shard = pack(tmp_path / 'a.tar', [*members, ('1.json', (row % value).encode())])
    dataset = ShardDataset(shard, pipeline=LOAD)
    assert dataset[1]['text'] == ['zero']
    assert dataset.bad_samples.replaced == 1
    with pytest.raises(BadSampleError, match=r'a\.tar:1 is not valid JSON'):
        ShardDataset(shard, max_bad_share=0)[1]


def test_files_beyond_the_limit_are_bad_samples(tmp_path, monkeypatch):
    shard = pack(tmp_path / 'a.tar', [('0.jpg', GOOD), ('0.txt', b'x'), ('1.jpg', GOOD)])
    (tmp_path / 't.csv').write_text('image,caption\nlarge.jpg,x\nsmall.jpg,y\n')
    (tmp_path / 'small.jpg').write_bytes(GOOD)
    with (tmp_path / 'large.jpg').open('wb') as file:
        file.truncate(60 * 2**30)  # of which nothing is on the disk
    dataset = ImageTextDataset('t.csv', str(tmp_path), pipeline=LOAD)
    assert dataset[0]['sample_idx'] == 1
    with pytest.raises(BadSampleError, match=r'large\.jpg, sample 0 has 64,424,509,440 bytes'):
        dataset.prepare_data(0)
    monkeypatch.setattr(contents, '_MAX_BYTES', len(GOOD) - 1)
    with pytest.raises(BadSampleError, match=r'a\.tar:0\.jpg has .* bytes'):
        ShardDataset(shard)[0]


def tables(folder: Path, captions: list) -> dict[str, Callable]:
    """Every kind of data set with these captions, as functions of ``captions`` and others."""
    pyarrow = pytest.importorskip('pyarrow')
    from pyarrow import parquet

    names = [f'{number}.jpg' for number in range(len(captions))]
    for name in names:
        (folder / name).write_bytes(GOOD)
    rows = [dict(image=name, caption=text) for name, text in zip(names, captions, strict=True)]
    (folder / 't.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    pairs = [(row['image'], [row['caption']] if row['caption'] else []) for row in rows]
    CaptionTable.write(folder / 't.table', pairs)
    members = []
    for number, text in enumerate(captions):
        members += [(f'{number}.jpg', GOOD)] + [(f'{number}.txt', (text or '').encode())] * bool(
            text
        )
    shard = pack(folder / 't.tar', members)
    images = pyarrow.array([GOOD] * len(rows), pyarrow.binary())
    texts = pyarrow.array(captions, pyarrow.string())
    parquet.write_table(pyarrow.table(dict(image=images, caption=texts)), folder / 't.parquet')
    root = dict(data_root=str(folder), pipeline=LOAD)
    return dict(
        text=lambda **kwargs: ImageTextDataset('t.jsonl', **root, **kwargs),
        table=lambda **kwargs: TableDataset('t.table', **root, **kwargs),
        shards=lambda **kwargs: ShardDataset('t.tar', **root, **kwargs),
        parquet=lambda **kwargs: ParquetDataset('t.parquet', **root, **kwargs),
        stream=lambda **kwargs: list_stream(shard, len(rows), **kwargs),
    )


def list_stream(shard: str, length: int, **kwargs: object) -> list[dict]:
    pytest.importorskip('webdataset')
    return list(StreamDataset(shard, length, pipeline=LOAD, shuffle_buffer=1, **kwargs))


KINDS = ['text', 'table', 'shards', 'parquet', 'stream']


@pytest.mark.parametrize('kind', KINDS)
def test_images_without_captions(tmp_path, kind):
    make = tables(tmp_path, ['a dog', None, 'a cat'])[kind]
    texts = [item.get('text') for item in make(captions='optional')]
    assert texts == [['a dog'], None, ['a cat']]
    items = list(make(captions='ignored'))
    assert [item['img'].shape for item in items] == [PICTURE.shape] * 3
    assert not any('text' in item for item in items)
    default_collate([dict(image=item['img']) for item in items])


@pytest.mark.parametrize('kind', KINDS)
def test_captions_are_required_by_default(tmp_path, kind):
    make = tables(tmp_path, ['a dog', None, 'a cat'])[kind]
    if kind == 'text':  # read as a whole before training
        with pytest.raises(ValueError, match=r"t\.jsonl, line 2 has no caption under 'caption'"):
            make()
    else:
        # A stream of batches and windows of one has no neighbour that it could take.
        expected = [['a dog'], ['a cat'], ['a cat']][: 2 if kind == 'stream' else 3]
        assert [item['text'] for item in make()] == expected


def test_a_table_whose_captions_are_all_missing(tmp_path):
    table = tmp_path / 't.jsonl'
    table.write_text('{"image": "a.jpg", "title": "x"}\n')
    with pytest.raises(ValueError, match=r'No row of .* has a caption under caption: correct'):
        ImageTextDataset(str(table), captions='optional')
    assert len(ImageTextDataset(str(table), captions='ignored')) == 1
