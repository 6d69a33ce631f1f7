"""The contact sheet shows the right picture, in the right colours."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import mmcv
import numpy as np
import pytest
from mmengine.config import Config

from mmslip.cli import browse
from tests.datasets.test_shards import pack, pairs, picture

ROOT = Path(__file__).parents[2]


def job(root: Path, side: int) -> Config:
    """Views that are the picture itself, resized: what is drawn can be compared."""
    resize = [dict(type='Resize', scale=(side, side))]
    pipeline = [
        dict(type='mmslip.LoadImage'),
        dict(type='mmslip.SLIPViews', image=resize, ssl=resize),
        dict(type='mmslip.TokenizeCaption', tokenizer=None),
        dict(type='mmslip.PackSLIPInputs'),
    ]
    dataset = dict(
        type='mmslip.ImageTextDataset',
        data_root=str(root),
        ann_file='pairs.jsonl',
        data_prefix=dict(img_path='images'),
        pipeline=pipeline,
    )
    loader = dict(
        batch_size=2,
        num_workers=2,
        sampler=dict(type='mmslip.VisitSampler'),
        collate_fn=dict(type='default_collate'),
        dataset=dataset,
    )
    model = dict(type='mmslip.SLIP')
    return Config(dict(default_scope='mmpretrain', model=model, train_dataloader=loader))


def test_rows_hold_pictures_and_captions(make_pairs: Callable) -> None:
    rows = browse.collect(job(make_pairs(5), side=20), number=3)
    assert len(rows) == 3
    assert len({caption for caption, _ in rows}) == 3
    for caption, pictures in rows:
        titles = [tile.title for tile in pictures]
        assert titles[1:] == ['CLIP view', 'SSL view 1', 'SSL view 2']
        stored = pictures[0].picture
        assert titles[0] == f'stored, {stored.shape[1]} x {stored.shape[0]}'
        assert caption.startswith('shape ')
        # The same colours as the file: red is red.
        for tile in pictures[1:]:
            np.testing.assert_array_equal(tile.picture, mmcv.imresize(stored, (20, 20)))


def test_all_captions_that_training_meets(make_pairs: Callable) -> None:
    cfg = job(make_pairs(2), side=20)
    cfg.train_dataloader.dataset.pipeline[2].update(number=2)
    for caption, _ in browse.collect(cfg, number=2):
        first, second = caption.split('\n')
        assert {first[-1], second[-1]} == {'0', '1'}  # told in way 0, told in way 1
        assert first[:-1] == second[:-1]


def test_rows_of_a_stream(make_pairs: Callable, tmp_path: Path) -> None:
    pytest.importorskip('webdataset', reason='webdataset is not installed')
    shard = pack(tmp_path / 'a.tar', [('bad.jpg', b'no image'), ('bad.txt', b'x'), *pairs(3, 5)])
    cfg = job(make_pairs(1), side=20)
    pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.update(sampler=None)
    cfg.train_dataloader.dataset = dict(
        type='mmslip.StreamDataset', shards=shard, length=2, pipeline=pipeline
    )
    rows = browse.collect(cfg, number=4)  # two rounds
    captions = Counter(caption for caption, _ in rows)
    assert captions == {f'bild nr . {number} ist schön': 2 for number in (3, 5)}
    for caption, ((stored, title, *_), *views) in rows:
        number = 3 if '3' in caption else 5
        assert title == f'stored, 20 x {12 + number}'
        np.testing.assert_array_equal(stored, mmcv.imfrombytes(picture(number))[..., ::-1])
        for tile in views:
            np.testing.assert_array_equal(tile.picture, mmcv.imresize(stored, (20, 20)))


def test_the_tool_writes_a_picture(make_pairs: Callable, monkeypatch, tmp_path: Path) -> None:
    config, out = tmp_path / 'config.py', tmp_path / 'new' / 'sheet.png'
    job(make_pairs(3), side=20).dump(config)
    command = [str(config), '--out', str(out), '--samples', '9']
    browse.main(command)
    sheet = mmcv.imread(out, channel_order='rgb')
    assert sheet.shape == (660, 1060, 3)  # three rows, since there are three samples
    # Its most frequent colours beside white are those of the shapes.
    for image in sorted((tmp_path / 'images').iterdir()):
        colours = mmcv.imread(image, channel_order='rgb').reshape(-1, 3)
        assert (sheet == colours[0]).all(-1).sum() > 500


def test_rows_without_a_caption_come_last(make_pairs: Callable) -> None:
    cfg = job(make_pairs(8), side=20)
    source = cfg.train_dataloader.dataset
    load, views, _, pack = source.pipeline
    bare = dict(source, captions='ignored', pipeline=[load, dict(views, image_views=0), pack])
    cfg.train_dataloader.sampler.shuffle = False
    cfg.train_dataloader.dataset = dict(
        type='mmslip.MixedDataset',
        datasets=[source, bare],
        weights=[1, 2],
        length=6,
        stratified=True,
    )
    rows = browse.collect(cfg, number=6)
    assert [bool(caption) for caption, _ in rows] == [True] * 2 + [False] * 4
    for caption, (stored, *made) in rows:
        assert len(made) == 2 + bool(caption)
        for tile in made:
            expected = mmcv.imresize(stored.picture, (20, 20))
            np.testing.assert_array_equal(tile.picture, expected)
