"""Karpathy's splits of COCO and Flickr30k."""

import json
from pathlib import Path

import pytest

from mmslip.datasets import KarpathyDataset


def write(root: Path, **changes: object) -> dict:
    """An annotation file of four images, two of the test split, and the images (empty files)."""
    entries = []
    for number, split in enumerate(['train', 'test', 'restval', 'test']):
        captions = [
            dict(raw=f' Caption {way} of {number}. ', tokens=[]) for way in range(5 + number)
        ]
        entry = dict(filename=f'{number}.jpg', filepath='val2014', split=split, sentences=captions)
        entries.append({**entry, **changes})
        path = root / 'val2014' / f'{number}.jpg'
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (root / 'dataset_coco.json').write_text(json.dumps(dict(images=entries, dataset='coco')))
    return dict(task='coco', data_root=str(root), ann_file='dataset_coco.json')


def test_images_of_the_split_with_their_first_five_captions(tmp_path: Path) -> None:
    dataset = KarpathyDataset(**write(tmp_path), samples=2)
    assert [dataset[index] for index in range(len(dataset))] == [
        dict(
            img_path=str(tmp_path / 'val2014' / f'{number}.jpg'),
            text=[f'Caption {way} of {number}.' for way in range(5)],
            task='coco',
            role='query',
            sample_idx=index,
        )
        for index, number in enumerate([1, 3])
    ]
    assert dataset.metainfo == dict(task='coco', role='query')


def test_other_splits_and_numbers_of_captions(tmp_path: Path) -> None:
    config = write(tmp_path)
    assert len(KarpathyDataset(**config, split='train')) == 1
    numbers = [len(item['text']) for item in KarpathyDataset(**config, num_captions=7)]
    assert numbers == [6, 7]


def test_flickr30k_has_its_images_in_one_folder(tmp_path: Path) -> None:
    config = write(tmp_path)
    path = tmp_path / 'dataset_coco.json'
    path.write_text(path.read_text().replace('"filepath": "val2014", ', ''))
    dataset = KarpathyDataset(**config, img_path='val2014')
    assert dataset[1]['img_path'] == str(tmp_path / 'val2014' / '3.jpg')


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    config = write(tmp_path)
    with pytest.raises(
        ValueError, match=r"dataset_coco\.json: split 'test' has 2 images, not 5,000"
    ):
        KarpathyDataset(**config, samples=5000)
    with pytest.raises(ValueError, match=r"dataset_coco\.json has no images of split 'tset'"):
        KarpathyDataset(**config, split='tset')
    (tmp_path / 'val2014' / '3.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'1 of the 2 images .* such as .*val2014/3\.jpg'):
        KarpathyDataset(**config)
    with pytest.raises(FileNotFoundError, match=r'no annotation file .*nowhere'):
        KarpathyDataset(**{**config, 'ann_file': 'nowhere.json'})
    write(tmp_path, sentences=[dict(raw=' ')])
    with pytest.raises(ValueError, match=r'1\.jpg has no caption'):
        KarpathyDataset(**config)
