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
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

import mmslip.engine  # noqa: F401  (registers the hooks)
from mmslip.datasets import ShardDataset, StreamDataset
from mmslip.datasets import stream as module
from mmslip.datasets.io.faults import BadSampleError
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
    """First items, over the ends of epochs."""
    options = dict(multiprocessing_context='fork', num_workers=workers) if workers else {}
    items: list[dict] = []
    for epoch in count():
        dataset.set_epoch(epoch)
        loader = DataLoader(dataset, batch_size=dataset.batch_size, collate_fn=list, **options)
        for batch in loader:
            items += batch
            if len(items) >= number:
                return items[:number]


def numbers(items: list[dict]) -> list[int]:
    return [int(item['sample_idx']) for item in items]


def test_content_is_that_of_the_shards(tmp_path: Path) -> None:
    members = []
    for number, content in enumerate([dict(caption='one', title='ä'), dict(caption=['two', ' '])]):
        members.append((f'deep.v1/{number}.json', json.dumps(content).encode()))
        members.append((f'deep.v1/{number}.PNG', picture(number)))
        members.append((f'deep.v1/{number}.txt', b'from txt'))
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
    assert items[f'{paths[0]}:deep.v1/0']['text'] == ['ä', 'one']


def of_rank(rank: int, world_size: int, *args: object, **options: object) -> StreamDataset:
    """The stream of one of several processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'get_dist_info', lambda: (rank, world_size))
        return StreamDataset(*args, **options)


@pytest.mark.parametrize('buffer', [1, 5])
def test_order_is_the_same_for_any_number_of_processes_and_workers(
    shards: str, buffer: int
) -> None:
    options = dict(length=24, shuffle_buffer=buffer)
    alone = numbers(take(StreamDataset(shards, **options), 48))
    assert sorted(alone[:24]) == sorted(alone[24:]) == list(range(24))
    assert alone[:24] != alone[24:]
    for world_size in (2, 4):
        for workers, batch_size in ((0, 1), (2, 2)):
            parts = []
            for rank in range(world_size):
                dataset = of_rank(rank, world_size, shards, **options)
                assert len(dataset) == 24 // world_size
                dataset.batch_size = batch_size
                parts.append(numbers(take(dataset, 48 // world_size, workers)))
            assert [number for step in zip(*parts, strict=True) for number in step] == alone


def test_what_has_been_visited_is_left_out(shards: str) -> None:
    """1, 2, 4 and again 1 process, with other batches each, share one epoch."""
    options = dict(length=24, shuffle_buffer=5)
    whole = numbers(take(StreamDataset(shards, **options), 24))
    seen: list[int] = []
    for world_size, batch_size, steps in ((1, 3, 1), (2, 2, 2), (4, 1, 2), (1, 5, 1)):
        parts = []
        for rank in range(world_size):
            dataset = of_rank(rank, world_size, shards, **options)
            dataset.batch_size = batch_size
            dataset.set_epoch(0, len(seen))
            parts.append(numbers(islice(dataset, steps * batch_size)))
        seen += [number for step in zip(*parts, strict=True) for number in step]
    assert seen == whole
    dataset = of_rank(1, 2, shards, **options)
    dataset.set_epoch(0, 24)
    assert list(dataset) == []
    assert numbers(dataset)  # the pass after it is of the next epoch


def test_what_is_passed_over_is_not_read(shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    stored = module._Stored.read
    monkeypatch.setattr(module._Stored, 'read', lambda self: read.append(self.path) or stored(self))
    dataset = of_rank(1, 4, shards, length=24, pipeline=[LOAD])
    dataset.set_epoch(0, 12)
    assert len(list(dataset)) == 3
    assert len(read) == 3 * 2  # image and caption


def test_an_incomplete_batch_is_left_out(shards: str) -> None:
    for rank in range(2):
        dataset = of_rank(rank, 2, shards, length=24)
        dataset.batch_size = 5
        assert len(list(dataset)) == 10
    dataset.batch_size = 13
    with pytest.raises(ValueError, match=r'have 24 samples, fewer than a batch .*\(26\)'):
        list(dataset)


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
            dataset = StreamDataset(url, length=2, max_lost_shards=0.9)
            assert set(numbers(take(dataset, 8))) == {0, 1}
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
    expected = ['format is unknown', '.txt is blank', 'not valid JSON', 'but no image']
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
    dataset = StreamDataset([good, shard], max_lost_shards=0.5, **options)
    dataset.bad_samples.path = tmp_path / 'bad_samples.jsonl'
    seen = set(numbers(take(dataset, 12)))
    assert seen == dict(cut={0, 1, 2}, page={0}, command={0, 1, 2})[fault]
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
    with pytest.raises(ValueError, match='length must be the number of samples'):
        StreamDataset(path, length=0)


class Record(Hook):
    """Keeps the losses."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = losses

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append(outputs['loss'].item())


def train(
    model: SLIP, shards: str, work_dir: Path, workers: int = 0, *hooks: Hook, **options: object
) -> Runner:
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
                    dict(type='mmslip.SLIPViews', image=views, ssl=views),
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
        ]
        + list(hooks),
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


@pytest.mark.parametrize('workers', [0, 2])
def test_training_and_its_resumption(
    make_slip: Callable[..., SLIP], shards: str, tmp_path: Path, workers: int
) -> None:
    """Stopped in an epoch or at its end (six steps), a run has the losses of one that was not."""

    def run(name: str, steps: int, **options: object) -> list[float]:
        losses: list[float] = []
        record = Record(losses)
        loop = dict(by_epoch=False, max_iters=steps)
        runner = train(
            make_slip(), shards, tmp_path / name, workers, record, train_cfg=loop, **options
        )
        assert runner.iter == steps
        return losses

    whole = run('whole', 15)
    begun = run('killed', 4)
    again = run('killed', 6, resume=True)
    rest = run('killed', 15, resume=True)
    assert begun + again + rest == whole


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
