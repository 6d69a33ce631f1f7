"""Tests of RedCaps as its downloader leaves it, and of the packed table of its records."""

import json
import pickle
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

from mmslip.datasets import RedCapsDataset
from mmslip.datasets.io.record_table import RecordTable
from mmslip.registry import DATASETS


def entry(image_id: str, subreddit: str, caption: str) -> dict:
    """An annotation with the published fields that matter, and one that does not."""
    return dict(
        image_id=image_id,
        author='someone',
        subreddit=subreddit,
        raw_caption=caption.upper(),
        caption=caption,
    )


ENTRIES = {
    'abandoned_2017': [entry('guli1', 'abandoned', 'old mill'), entry('gone', 'abandoned', 'x')],
    'abandoned_2018': [entry('7aaa', 'abandoned', 'a ship'), entry('7bbb', 'abandoned', ' ')],
    'itookapicture_2019': [entry('1bd79', 'itookapicture', 'itap of a täxi')],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / 'annotations').mkdir()
    for name, entries in ENTRIES.items():
        text = json.dumps(dict(info={}, annotations=entries))
        (tmp_path / 'annotations' / f'{name}.json').write_text(text, encoding='utf-8')
        for one in entries:
            folder = tmp_path / 'images' / one['subreddit']
            folder.mkdir(parents=True, exist_ok=True)
            if one['image_id'] != 'gone':
                (folder / f'{one["image_id"]}.jpg').write_bytes(b'x')
    return tmp_path


def read(root: Path, ann_file: str | list[str] = 'annotations/*.json', **kwargs: object) -> list:
    dataset = RedCapsDataset(
        ann_file, data_root=str(root), data_prefix=dict(img_path='images'), **kwargs
    )
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert [info['sample_idx'] for info in infos] == list(range(len(infos)))
    return [
        (str(Path(info['img_path']).relative_to(root / 'images')), info['text']) for info in infos
    ]


def test_official_files(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    MMLogger.get_instance(f'redcaps of {root}').addHandler(caplog.handler)
    expected = [
        ('abandoned/guli1.jpg', ['old mill']),
        ('abandoned/7aaa.jpg', ['a ship']),
        ('itookapicture/1bd79.jpg', ['itap of a täxi']),
    ]
    assert read(root) == expected
    (message,) = caplog.messages
    assert message == (
        f'{root}/annotations/abandoned_2017.json and 2 more: of 5 rows, 1 without image file and '
        '1 without caption are left out; 3 remain.'
    )
    assert read(root, 'annotations/itook*.json') == expected[2:]
    files = ['annotations/itookapicture_2019.json', 'annotations/abandoned_2017.json']
    assert read(root, files) == [expected[2], expected[0]]
    assert read(root, caption_key='raw_caption')[0] == ('abandoned/guli1.jpg', ['OLD MILL'])
    assert read(root, indices=2) == expected[:2]


def test_plain_list(root: Path) -> None:
    rows = [dict(image_id='7aaa', subreddit='abandoned', caption='a ship')]
    (root / 'redcaps.json').write_text(json.dumps(rows))
    assert read(root, 'redcaps.json') == [('abandoned/7aaa.jpg', ['a ship'])]


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        ({'annotations': None}, 'must be a list of entries, or an object'),
        (5, 'must be a list of entries'),
        ([{'image_id': 'a', 'caption': 'x'}], r'entry 0 must be an object with texts .subreddit'),
        ([entry('guli1', 'abandoned', 'x'), 'x'], "entry 1 must .* not 'x'"),
        ([entry('', 'abandoned', 'x')], 'entry 0 must'),
        (
            [dict(image_id='a', subreddit='b', title='c')],
            "entry 0 has no caption 'caption'; it has",
        ),
        ([dict(image_id='a', subreddit='b', caption=3)], "entry 0: 'caption' must be text"),
        ([], 'has no rows'),
        ([entry('guli1', 'abandoned', '')], 'has no rows with a caption'),
    ],
)
def test_malformed_file(root: Path, value: object, message: str) -> None:
    path = root / 'annotations' / 'abandoned_2017.json'
    path.write_text(json.dumps(value))
    with pytest.raises(ValueError, match=message) as caught:
        read(root, 'annotations/abandoned_2017.json')
    assert str(caught.value).startswith(str(path))


def test_missing_files(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match='check `ann_file` and `data_root`') as caught:
        read(root, 'annotations/none_*.json')
    assert str(root / 'annotations' / 'none_*.json') in str(caught.value)
    kwargs = dict(data_root=str(root), data_prefix=dict(img_path='pictures'))
    with pytest.raises(FileNotFoundError, match=r'None of the 5 images .* check `data_root`') as e:
        RedCapsDataset('annotations/*.json', **kwargs)
    assert str(root / 'pictures' / 'abandoned' / 'guli1.jpg') in str(e.value)


def test_record_table() -> None:
    records = [dict(img_path=f'{number}.jpg', text=['ü' * number]) for number in range(40)]
    table = pickle.loads(pickle.dumps(RecordTable(iter(records))))
    assert len(table) == 40
    assert list(table) == records
    assert table[-1] == records[-1]
    assert table[5:8] == records[5:8]
    assert table[-2:] == records[-2:]
    with pytest.raises(IndexError):
        table[40]
    assert len(RecordTable([])) == 0


def test_subset_and_registry(root: Path) -> None:
    dataset = DATASETS.build(
        dict(
            type='mmslip.RedCapsDataset',
            ann_file='annotations/*.json',
            data_root=str(root),
            data_prefix=dict(img_path='images'),
        )
    )
    assert [dataset[index]['text'] for index in range(3)] == [
        ['old mill'],
        ['a ship'],
        ['itap of a täxi'],
    ]
    assert dataset.get_subset([2, 0])[0]['text'] == ['itap of a täxi']
    assert pickle.loads(pickle.dumps(dataset))[1] == dataset[1]
