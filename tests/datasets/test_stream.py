"""Tests of streamed shards: content, split, order, faults, and training on them."""

import functools
import http.server
import json
import re
import shlex
import shutil
import sys
import threading
import uuid
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from mmengine.runner import Runner
from torch.utils.data import DataLoader

import mmslip.engine  # noqa: F401  (registers the hooks)
from mmslip.datasets import ShardDataset, StreamDataset
from mmslip.datasets import stream as module
from mmslip.datasets.faults import BadSampleError
from mmslip.models import SLIP
from mmslip.registry import DATASETS
from tests.datasets.test_shards import pack, pairs, picture

pytest.importorskip('webdataset', reason='webdataset is not installed')

LOAD = dict(type='mmslip.LoadImage')


@pytest.fixture
def shards(tmp_path: Path) -> str:
    """Eight shards of three samples; the numbers go on from one to the next."""
    for shard in range(8):
        pack(tmp_path / f'{shard:02d}.tar', pairs(*range(3 * shard, 3 * shard + 3)))
    return str(tmp_path / '{00..07}.tar')


def take(dataset: StreamDataset, number: int, workers: int = 0) -> list[dict]:
    """First items, which come from the workers in turn."""
    options = dict(multiprocessing_context='fork', num_workers=workers) if workers else {}
    batches = iter(DataLoader(dataset, batch_size=1, collate_fn=list, **options))
    try:
        return [item for batch in islice(batches, number) for item in batch]
    finally:
        if workers:  # which would wait for the garbage collector, and that for them
            batches._shutdown_workers()


def numbers(items: list[dict]) -> list[int]:
    return [int(item['sample_idx']) for item in items]


def test_content_is_that_of_the_shards(tmp_path: Path) -> None:
    members = []
    for number, content in enumerate([dict(caption='one', title='ä'), dict(caption=['two', ' '])]):
        members.append((f'deep/v1.{number}.json', json.dumps(content).encode()))
        members.append((f'deep/v1.{number}.PNG', picture(number)))
        members.append((f'deep/v1.{number}.txt', b'from txt'))
    paths = [
        pack(tmp_path / 'a.tar', members),
        pack(tmp_path / 'b.tar.gz', pairs(4, 5, 6)),
        pack(tmp_path / 'c.tar', pairs(7)),
    ]
    keys = ('title', 'caption')
    dataset = StreamDataset(paths, length=6, caption_keys=keys)
    assert len(dataset) == 6
    assert dataset.metainfo == {}
    items = {item['img_name']: item for item in take(dataset, 60)}
    expected = ShardDataset(paths, caption_keys=keys)
    assert len(items) == len(expected) == 6
    for sample in expected:
        item = items[sample['img_name']]
        assert (item['text'], item['img_bytes']) == (sample['text'], sample['img_bytes'])
    assert items[f'{paths[0]}:deep/v1.0']['text'] == ['ä', 'one']


def test_workers_and_ranks_share_the_shards(shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = []
    for rank in range(2):
        monkeypatch.setattr(module, 'get_dist_info', lambda: (rank, 2))  # noqa: B023
        dataset = StreamDataset(shards, length=24, shuffle_buffer=1)
        assert len(dataset) == 12
        items = take(dataset, 36, workers=2)  # of each worker: three epochs of two shards
        epochs.append([items[12 * epoch : 12 * epoch + 12] for epoch in range(3)])
        first, second = ({item['img_name'][:-4] for item in items[start:12:2]} for start in (0, 1))
        assert len(first) == len(second) == 2
        assert not first & second
    whole = [numbers(epochs[0][epoch]) + numbers(epochs[1][epoch]) for epoch in range(3)]
    assert all(sorted(order) == list(range(24)) for order in whole)
    assert whole[0] != whole[1] != whole[2]


def test_order_depends_on_the_seed(shards: str) -> None:
    def order(**options: object) -> list[int]:
        return numbers(take(StreamDataset(shards, length=24, **options), 48))

    assert order() == order()
    assert order() != order(seed=1)
    assert order() != order(shuffle_buffer=1)
    unmixed = order(shuffle_buffer=1)  # whole shards in random order
    assert [number // 3 for number in unmixed[::3]] == [number // 3 for number in unmixed[2::3]]
    assert unmixed[:24] != sorted(unmixed[:24])


def test_views_depend_on_seed_epoch_and_sample_alone(shards: str) -> None:
    def draws(workers: int, seed: int = 0) -> list[tuple]:
        dataset = StreamDataset(shards, length=24, shuffle_buffer=1, seed=seed)
        dataset.pipeline.transforms.append(lambda info: dict(info, drawn=np.random.rand()))
        items = take(dataset, 48, workers)
        return [(int(item['sample_idx']), item['drawn']) for item in items]

    alone = draws(0)
    assert sorted(alone) == sorted(draws(2))
    assert len({drawn for _, drawn in alone}) == 48  # another view in the second epoch
    assert not {drawn for _, drawn in alone} & {drawn for _, drawn in draws(0, seed=1)}


def test_commands(tmp_path: Path) -> None:
    for shard in range(2):
        pack(tmp_path / 'with space' / f'{shard}.tar', pairs(2 * shard, 2 * shard + 1))
    folder = shlex.quote(str(tmp_path / 'with space'))
    dataset = StreamDataset(f'pipe:cat {folder}/{{0..1}}.tar', length=4, max_bad_share=0)
    items = take(dataset, 40)
    assert {int(item['sample_idx']): item['img_bytes'] for item in items} == {
        number: picture(number) for number in range(4)
    }


@pytest.mark.skipif(not shutil.which('curl'), reason='curl is not installed')
def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    pack(tmp_path / '0.tar', pairs(0, 1))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f'http://127.0.0.1:{server.server_port}/{{0..1}}.tar'  # there is no 1.tar
            dataset = StreamDataset(url, length=2, max_bad_share=0.9)
            assert set(numbers(take(dataset, 8))) == {0, 1}
            assert dataset.bad_samples.replaced > 0
        finally:
            server.shutdown()
            thread.join()


def test_bad_samples_are_skipped_counted_and_listed(tmp_path: Path) -> None:
    bad = [
        *(('100.jpg', b'no image'), ('100.txt', b'x')),
        *(('101.jpg', picture(1)), ('101.txt', b' ')),
        *(('102.jpg', picture(1)), ('102.json', b'{"capt')),
        ('103.txt', b'x'),
    ]
    path = pack(tmp_path / 'a.tar', [*pairs(0), *bad, *pairs(1)])
    dataset = StreamDataset(path, length=2, pipeline=[LOAD], shuffle_buffer=1)
    dataset.bad_samples.path = tmp_path / 'bad_samples.jsonl'
    assert numbers(take(dataset, 4)) == [0, 1, 0, 1]
    assert (dataset.bad_samples.visits, dataset.bad_samples.replaced) == (12, 8)
    lines = dataset.bad_samples.path.read_text('utf-8').splitlines()
    errors = [json.loads(line)['error'] for line in lines]
    expected = ['format is unknown', 'is empty', 'cannot be read', 'but no image']
    for number, (error, message) in enumerate(zip(errors, expected, strict=True)):
        assert message in error
        assert f'{path}:10{number}' in error
    with pytest.raises(BadSampleError, match='format is unknown'):
        take(StreamDataset(path, length=2, pipeline=[LOAD], shuffle_buffer=1, max_bad_share=0), 2)
    with pytest.raises(RuntimeError, match=r'of 2\d\d samples could not be read'):
        take(dataset, 200)


@pytest.mark.parametrize('fault', ['cut', 'page', 'command'])
def test_damaged_shards_are_passed(tmp_path: Path, fault: str) -> None:
    good, bad = pack(tmp_path / 'a.tar', pairs(0)), tmp_path / 'b.tar'
    content = Path(pack(bad, pairs(1, 2, 3))).read_bytes()
    shard = str(bad)
    if fault == 'cut':
        bad.write_bytes(content[: content.index(picture(3)) + 20])
    elif fault == 'page':
        bad.write_bytes(b'<html>not found</html>' * 60)
    else:
        shard = f'pipe:cat {shlex.quote(shard)}; exit 3'
    options = dict(length=2, shuffle_buffer=1)
    dataset = StreamDataset([good, shard], max_bad_share=0.5, **options)
    dataset.bad_samples.path = tmp_path / 'bad_samples.jsonl'
    seen = set(numbers(take(dataset, 12)))
    # Whether the sample before the damage is whole cannot be known. What a command wrote before it
    # failed is used as far as it had been read by then, which may be nothing.
    if fault == 'command':
        assert 0 in seen
    else:
        assert seen == dict(cut={0, 1}, page={0})[fault]
    (line,) = dataset.bad_samples.path.read_text('utf-8').splitlines()
    assert f'{shard} cannot be read, or not to its end' in json.loads(line)['error']
    assert '0x' not in line  # no addresses of objects, which would make every line another
    with pytest.raises(BadSampleError, match='cannot be read, or not to its end'):
        take(StreamDataset([good, shard], max_bad_share=0, **options), 12)


def test_nothing_to_read(tmp_path: Path) -> None:
    path = pack(tmp_path / 'a.tar', [])
    with pytest.raises(ValueError, match=r'None of 1 shards has a sample .*a\.tar: check `shards`'):
        take(StreamDataset(path, length=2), 1)
    with pytest.raises(FileNotFoundError, match=r'no shard .*b\.tar: check `shards`'):
        StreamDataset(str(tmp_path / '{a,b}.tar'), length=2)
    with pytest.raises(ValueError, match='1 shards cannot be split over 1 processes with 2 work'):
        take(StreamDataset(path, length=2), 1, workers=2)
    with pytest.raises(ValueError, match='length must be the number of samples'):
        StreamDataset(path, length=0)


def train(model: SLIP, shards: str, work_dir: Path, workers: int = 0, **options: object) -> Runner:
    """Train on batches of four, with the hooks of the base config; returns the finished runner."""
    views = [dict(type='mmslip.RandomResizedCrop', scale=32)]
    tokenizer = dict(type='mmslip.CLIPTokenizer', context_length=16)
    settings = dict(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=4,
            num_workers=workers,
            sampler=None,
            collate_fn=dict(type='default_collate'),
            dataset=dict(
                type='mmslip.StreamDataset',
                shards=shards,
                length=8,
                pipeline=[
                    LOAD,
                    dict(type='mmslip.MultiView', num_views=[3], transforms=[views]),
                    dict(type='mmslip.TokenizeCaption', tokenizer=tokenizer),
                    dict(type='mmslip.PackSLIPInputs'),
                ],
            ),
        ),
        train_cfg=dict(by_epoch=False, max_iters=3),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        param_scheduler=dict(type='LinearLR', start_factor=0.1, end=2, convert_to_iter_based=True),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1)),
        custom_hooks=[
            dict(type=f'mmslip.{name}Hook')
            for name in ('StepSeed', 'BadSample', 'ResumeData', 'PlainCheckpoint')
        ],
        log_processor=dict(by_epoch=False),
        default_scope='mmpretrain',
        randomness=dict(seed=0),
        # mmengine's loggers and visualisers are global by name.
        experiment_name=f'stream-{uuid.uuid4()}',
    )
    runner = Runner(**{**settings, **options})
    runner.train()
    # Otherwise workers would wait for the garbage collector, and that for them.
    runner.train_loop.dataloader_iterator = runner.train_dataloader._iterator = None
    return runner


def test_training_and_its_resumption(
    make_slip: Callable[..., SLIP], shards: str, tmp_path: Path
) -> None:
    begun = train(make_slip(), shards, tmp_path / 'work')
    assert begun.iter == 3
    assert begun.optim_wrapper.get_lr()['lr'][0] == pytest.approx(1e-3)  # two epochs of two steps
    options = dict(resume=True, train_cfg=dict(by_epoch=False, max_iters=5))
    resumed = train(make_slip(), shards, tmp_path / 'work', **options)
    assert resumed.iter == 5
    dataset = resumed.train_dataloader.dataset
    assert dataset.bad_samples.visits == 8  # two steps; those before are not loaded again
    assert dataset.seed != begun.train_dataloader.dataset.seed
    logs = [path.read_text() for path in sorted((tmp_path / 'work').glob('*/*.log'))]
    assert sum('order of a stream is not resumed' in log for log in logs) == 1


@pytest.mark.parametrize('workers', [0, 2])
def test_training_lists_bad_samples(
    make_slip: Callable[..., SLIP], shards: str, tmp_path: Path, workers: int
) -> None:
    for shard in range(8):  # every worker meets one at once
        bad = [('bad.jpg', b'no image'), ('bad.txt', b'x')]
        pack(tmp_path / f'{shard:02d}.tar', [*bad, *pairs(*range(3 * shard, 3 * shard + 3))])
    assert train(make_slip(), shards, tmp_path / 'work', workers).iter == 3
    lines = (tmp_path / 'work' / 'bad_samples.jsonl').read_text('utf-8').splitlines()
    listed = [json.loads(line) for line in lines]
    assert 2 <= len({line['error'] for line in listed}) == len(listed) <= 8
    for line in listed:
        assert line['index'] is None
        assert re.search(r'0\d\.tar:bad, .*is not an image', line['error'])


def test_an_epoch_loop_is_refused(
    make_slip: Callable[..., SLIP], shards: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r'train_cfg=dict\(by_epoch=False, max_iters='):
        train(make_slip(), shards, tmp_path, train_cfg=dict(by_epoch=True, max_epochs=1))


def test_without_webdataset(shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'webdataset', None)
    with pytest.raises(ImportError, match=r"pip install 'webdataset>="):
        DATASETS.build(dict(type='mmslip.StreamDataset', shards=shards, length=24))
