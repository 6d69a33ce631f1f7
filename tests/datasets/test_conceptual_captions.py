"""Tests of CC3M and CC12M tables with images as downloaders leave them."""

import zlib
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

from mmslip.datasets import ConceptualCaptionsDataset
from mmslip.registry import DATASETS

ROWS = [
    ('a very typical bus station', 'http://a.example/1.jpg'),
    ('"sierra looked stunning', 'http://b.example/2?x=ü'),
    ('young confused girl\u2028standing in front of a wardrobe', 'http://c.example/3'),
    ('   ', 'http://d.example/4'),
    ('interior design "of modern" room', 'http://e.example/5'),
]


def write(root: Path, names: list[str], columns: tuple[int, int] = (0, 1), head: str = '') -> Path:
    """The table, and empty images."""
    lines = ['\t'.join(row[column] for column in columns) + '\n' for row in ROWS]
    path = root / 'Train_GCC-training.tsv'
    path.write_bytes((head + ''.join(lines)).encode())
    for name in names:
        image = root / 'images' / name
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(b'x')
    return path


def read(root: Path, image_name: str, **kwargs: object) -> list[tuple[str, list[str]]]:
    dataset = ConceptualCaptionsDataset(
        'Train_GCC-training.tsv',
        image_name,
        data_root=str(root),
        data_prefix=dict(img_path='images'),
        **kwargs,
    )
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return [
        (str(Path(info['img_path']).relative_to(root / 'images')), info['text']) for info in infos
    ]


@pytest.mark.parametrize(
    ('columns', 'head'), [((0, 1), ''), ((1, 0), ''), ((0, 1), 'caption\turl\n')]
)
def test_rows_of_img2dataset(
    tmp_path: Path, columns: tuple, head: str, caplog: pytest.LogCaptureFixture
) -> None:
    MMLogger.get_instance(f'cc of {tmp_path}').addHandler(caplog.handler)
    names = ['00000/000000000.jpg', '00000/000000001.jpg', '00001/000000003.jpg']
    table = write(tmp_path, [*names, '00002/000000004.jpg'], columns, head)
    order = [('caption', 'url')[column] for column in columns]
    got = read(tmp_path, '{folder:05d}/{row:09d}.jpg', columns=order, rows_per_folder=2)
    assert got == [
        ('00000/000000000.jpg', [ROWS[0][0]]),
        ('00000/000000001.jpg', [ROWS[1][0]]),
        ('00002/000000004.jpg', [ROWS[4][0]]),
    ]
    (message,) = caplog.messages
    assert message == (
        f'{table}: of 5 rows, 1 without image file and 1 without caption are left out; 3 remain.'
    )


def test_names_with_a_hash_of_the_link(tmp_path: Path) -> None:
    hashes = [zlib.crc32(url.encode()) for _, url in ROWS]
    write(tmp_path, [f'training/2_{hashes[2]}', f'{hashes[1]}'])
    assert read(tmp_path, 'training/{row}_{crc32}') == [(f'training/2_{hashes[2]}', [ROWS[2][0]])]
    assert read(tmp_path, '{crc32}') == [(str(hashes[1]), [ROWS[1][0]])]


def test_all_images_and_captions_log_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    MMLogger.get_instance(f'cc of {tmp_path}').addHandler(caplog.handler)
    path = write(tmp_path, ['0.jpg', '1.jpg'])
    path.write_bytes(b'one\tu\r\n\ntwo\tv')
    assert read(tmp_path, '{row}.jpg') == [('0.jpg', ['one']), ('1.jpg', ['two'])]
    assert not caplog.messages


def test_no_image_at_all(tmp_path: Path) -> None:
    write(tmp_path, ['000000000.png'])
    with pytest.raises(FileNotFoundError, match=r"None of the 5 images .*\('{row:09d}.jpg'\)") as e:
        read(tmp_path, '{row:09d}.jpg')
    assert str(tmp_path / 'images' / '000000000.jpg') in str(e.value)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'a\tu\nb\n', 'line 2 has 1 cells between tabs, not caption, url: set `columns`'),
        (b'a\tu\nb\tv\tw\n', 'line 2 has 3 cells'),
        (b'a\tu\n\xff\tv\n', 'line 2 is not UTF-8'),
        (b'', 'has no rows'),
        (b'caption\turl\n', 'has no rows'),
        (b' \tu\n', 'has no rows with a caption'),
    ],
)
def test_malformed_table(tmp_path: Path, content: bytes, message: str) -> None:
    path = write(tmp_path, ['0.jpg', '1.jpg'])
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, '{row}.jpg')
    assert str(caught.value).startswith(str(path))


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='check `ann_file` and `data_root`'):
        read(tmp_path, '{row}.jpg')


@pytest.mark.parametrize('name', ['{index}.jpg', '{}.jpg', '{row:x.jpg', '{row!z}', '{row:s}.jpg'])
def test_bad_image_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match='is not a format string of row, folder and crc32'):
        read(tmp_path, name)


def test_useless_image_name_and_columns(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'needs \{row\} or \{crc32\}'):
        read(tmp_path, '{folder}.jpg')
    with pytest.raises(ValueError, match="must hold 'caption' and 'url'"):
        read(tmp_path, '{row}.jpg', columns=('text', 'url'))
    with pytest.raises(ValueError, match='once each, not'):
        read(tmp_path, '{row}.jpg', columns=('caption', 'caption', 'url'))


def test_registry_and_extra_columns(tmp_path: Path) -> None:
    path = write(tmp_path, ['1.jpg'])
    path.write_text('a\tu\tdog,cat\nb\tv\ttree\n')
    dataset = DATASETS.build(
        dict(
            type='mmslip.ConceptualCaptionsDataset',
            ann_file='Train_GCC-training.tsv',
            image_name='{row}.jpg',
            columns=('caption', 'url', 'labels'),
            data_root=str(tmp_path),
            data_prefix=dict(img_path='images'),
        )
    )
    image = str(tmp_path / 'images' / '1.jpg')
    assert dataset[0] == dict(img_path=image, text=['b'], sample_idx=0)
