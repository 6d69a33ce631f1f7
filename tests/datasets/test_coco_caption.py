"""Tests of COCO Captions in its published layout."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmslip.datasets import COCOCaptionDataset, Visit
from mmslip.registry import DATASETS


def content() -> dict:
    """A caption file with the fields of the published one."""
    images = [
        dict(id=391895, file_name='000000391895.jpg', height=360, width=640, license=3),
        dict(id=9, file_name='000000000009.jpg', height=480, width=640, license=1),
    ]
    captions = [
        (9, 'A bento box.\n'),
        (391895, 'A man on a motor bike'),
        (9, ' Food in räd trays '),
        (391895, ''),
        (9, 'Lunch.'),
    ]
    annotations = [
        dict(image_id=image, id=number, caption=caption)
        for number, (image, caption) in enumerate(captions)
    ]
    return dict(info={}, licenses=[], images=images, annotations=annotations)


def write(root: Path, value: object) -> Path:
    path = root / 'annotations' / 'captions_train2017.json'
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding='utf-8')
    return path


def read(root: Path, **kwargs: object) -> COCOCaptionDataset:
    return COCOCaptionDataset(
        'annotations/captions_train2017.json',
        data_root=str(root),
        data_prefix=dict(img_path='train2017'),
        **kwargs,
    )


def test_one_sample_for_each_image(tmp_path: Path) -> None:
    write(tmp_path, content())
    dataset = read(tmp_path)
    assert [dataset.get_data_info(index) for index in range(len(dataset))] == [
        dict(
            img_path=str(tmp_path / 'train2017' / '000000391895.jpg'),
            text=['A man on a motor bike'],
            sample_idx=0,
        ),
        dict(
            img_path=str(tmp_path / 'train2017' / '000000000009.jpg'),
            text=['A bento box.', 'Food in räd trays', 'Lunch.'],
            sample_idx=1,
        ),
    ]


def test_one_caption_is_drawn_at_a_visit(tmp_path: Path, make_pairs: Callable[..., Path]) -> None:
    make_pairs(2)
    (tmp_path / 'train2017').mkdir()
    for number, name in enumerate(('000000391895.jpg', '000000000009.jpg')):
        picture = cv2.imread(str(tmp_path / 'images' / f'{number:02d}.png'))
        cv2.imwrite(str(tmp_path / 'train2017' / name), picture)
    write(tmp_path, content())
    dataset = DATASETS.build(
        dict(
            type='mmslip.COCOCaptionDataset',
            ann_file='annotations/captions_train2017.json',
            data_root=str(tmp_path),
            data_prefix=dict(img_path='train2017'),
            pipeline=[dict(type='mmslip.LoadImage'), dict(type='mmslip.TokenizeCaption')],
        )
    )
    drawn = [dataset[Visit(1, seed)]['text'] for seed in range(30)]
    assert set(drawn) == {'A bento box.', 'Food in räd trays', 'Lunch.'}
    assert drawn == [dataset[Visit(1, seed)]['text'] for seed in range(30)]
    stored = cv2.imread(str(tmp_path / 'train2017' / '000000000009.jpg'))
    np.testing.assert_array_equal(dataset.load_image(1), stored[..., ::-1])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda value: value.pop('annotations'), 'needs lists `images` and `annotations`'),
        (lambda value: value.update(images=[]), 'use captions_train2017.json'),
        (lambda value: value['images'][1].pop('file_name'), r"images\[1\] .* 'file_name' of type"),
        (
            lambda value: value['annotations'][2].update(caption=None),
            r"annotations\[2\] .*'caption",
        ),
        (lambda value: value['annotations'].append('x'), r"annotations\[5\] must .* not 'x'"),
        (lambda value: value['annotations'][3].update(image_id=7), r'\[3\] belongs to image 7'),
        (
            lambda value: value['annotations'].pop(1),
            r'image 391895 \(.*has no caption: add one, remove',
        ),
    ],
)
def test_malformed_file(tmp_path: Path, change: Callable, message: str) -> None:
    value = content()
    change(value)
    path = write(tmp_path, value)
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(str(path))


def test_other_files(tmp_path: Path) -> None:
    path = write(tmp_path, [1])
    with pytest.raises(ValueError, match='needs lists'):
        read(tmp_path)
    path.write_text('{"images": [')
    with pytest.raises(ValueError, match='not valid JSON') as caught:
        read(tmp_path)
    assert str(caught.value).startswith(str(path))
    path.unlink()
    with pytest.raises(FileNotFoundError, match='check `ann_file` and `data_root`') as caught:
        read(tmp_path)
    assert str(path) in str(caught.value)
