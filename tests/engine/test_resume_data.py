"""A place in the data is kept while it has a meaning, and told when it has lost it."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, DefaultSampler
from mmengine.hooks import Hook
from torch.utils.data import Dataset

from mmslip.datasets import (
    CaptionTable,
    ImageTextDataset,
    MixedDataset,
    StreamDataset,
    TableDataset,
    VisitSampler,
)
from mmslip.engine.checkpointing.data_order import order_of
from mmslip.engine.checkpointing.storage import wait_for_writes
from tests.crashing import EPOCH_LOOP, ITER_LOOP, make_runner
from tests.datasets.test_shards import pack
from tests.engine.test_resume_settings import changes
from tests.killing import identify

SAMPLES, BATCH = 23, 4
STEPS = SAMPLES // BATCH
DONE = STEPS + 3  # steps of the run that is killed


class Killed(Exception):
    """Stands for the end of the process."""


class Record(Hook):
    """Keeps the samples and the learning rate of every step."""

    def __init__(self, kill_after: int | None) -> None:
        self.kill_after = kill_after
        self.batches: list[list[int]] = []
        self.lr: list[float] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.batches.append(data_batch['number'].tolist())
        self.lr.append(runner.optim_wrapper.param_groups[0]['lr'])

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if len(self.batches) == self.kill_after:
            raise Killed


def train(
    folder: Path,
    dataset: Dataset,
    kill_after: int | None = None,
    resume: bool = False,
    loop: dict = EPOCH_LOOP,
    **data: object,
) -> Record:
    record = Record(kill_after)
    runner = make_runner(
        folder, loop, resume, hooks=(record,), data=dict(dataset=dataset, **data), interval=1
    )
    try:
        runner.train()
    except Killed:
        assert kill_after
        wait_for_writes()
    return record


def write(folder: Path, numbers: range | list[int], kind: str = 'lines') -> Dataset:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(f'{number}.png', [str(number)]) for number in numbers]
    common = dict(data_root=str(folder), data_prefix=dict(img_path='images'), pipeline=[identify])
    if kind == 'table':
        CaptionTable.write(folder / 'train.table', rows)
        return TableDataset(ann_file='train.table', **common)
    lines = [json.dumps(dict(image=image, caption=text)) for image, (text,) in rows]
    (folder / 'train.jsonl').write_text('\n'.join(lines))
    return ImageTextDataset(ann_file='train.jsonl', **common)


def write_stream(folder: Path, first: int = 0, **options: object) -> StreamDataset:
    folder.mkdir(parents=True, exist_ok=True)
    png = cv2.imencode('.png', np.zeros((2, 2, 3), np.uint8))[1].tobytes()
    for part, size in enumerate((5, 8, 10)):
        members = []
        for number in range(first, first + size):
            members += [(f'{number}.png', png), (f'{number}.txt', b'%d' % number)]
        first += size
        pack(folder / f'{part}.tar', members)
    options = dict(dict(shuffle_buffer=6, length=SAMPLES), **options)
    return StreamDataset(f'{folder}/{{0..2}}.tar', pipeline=[identify], **options)


def flat(batches: list[list[int]]) -> list[int]:
    return [number for batch in batches for number in batch]


def told_of_data(output: str) -> list[str]:
    return [line for line in changes(output) if line.startswith('the training data')]


@pytest.mark.parametrize('loop', [EPOCH_LOOP, ITER_LOOP], ids=['epoch', 'iteration'])
@pytest.mark.parametrize(
    ('numbers', 'kind', 'shuffle', 'told'),
    [
        (range(SAMPLES)[::-1], 'lines', True, 'dataset.digest_of_records: '),
        (range(SAMPLES - 3), 'lines', True, 'dataset.samples: 23 -> 20'),
        (range(SAMPLES), 'lines', False, 'shuffle: True -> False'),
        (range(SAMPLES), 'table', True, 'dataset.type: ImageTextDataset -> TableDataset'),
    ],
    ids=['reversed', 'shorter', 'in order', 'table'],
)
def test_the_epoch_begins_anew_with_other_data(
    tmp_path: Path, capsys, loop: dict, numbers: range, kind: str, shuffle: bool, told: str
) -> None:
    train(tmp_path / 'run', write(tmp_path, range(SAMPLES)), DONE, loop=loop)
    other = write(tmp_path / 'other', numbers, kind)
    sampler = dict(type='mmslip.VisitSampler', shuffle=shuffle)
    resumed = train(tmp_path / 'run', other, resume=True, loop=loop, sampler=sampler)
    (line,) = told_of_data(capsys.readouterr().out)
    assert told in line
    assert line.endswith('Epoch 2 begins anew; 12 samples of its former order had been visited.')
    steps = len(numbers) // BATCH
    epoch = flat(resumed.batches[:steps])
    assert len({*epoch}) == steps * BATCH
    whole = train(tmp_path / 'whole', other, loop=loop, sampler=sampler).batches
    # An epoch loop ends with its last epoch, an iteration loop with its last step.
    begin, end = (steps, 3 * steps) if loop is EPOCH_LOOP else (steps, steps + len(resumed.batches))
    assert resumed.batches == whole[begin:end]
    if loop is EPOCH_LOOP:
        assert len(resumed.batches) == 2 * steps


@pytest.mark.parametrize('loop', [EPOCH_LOOP, ITER_LOOP], ids=['epoch', 'iteration'])
def test_an_epoch_that_has_ended_is_not_repeated(tmp_path: Path, capsys, loop: dict) -> None:
    other = write(tmp_path / 'other', range(SAMPLES)[::-1])
    whole = train(tmp_path / 'whole', other, loop=loop).batches
    train(tmp_path / 'run', write(tmp_path, range(SAMPLES)), 2 * STEPS, loop=loop)
    for path in (tmp_path / 'run').glob('epoch_*.pth'):
        path.unlink()  # so that it goes on from before the end of the epoch
    resumed = train(tmp_path / 'run', other, resume=True, loop=loop).batches
    (line,) = told_of_data(capsys.readouterr().out)
    assert line.endswith('. The epochs up to 2 had ended before.')
    assert resumed == whole[2 * STEPS :]


def test_schedules_go_back_with_the_epoch(tmp_path: Path) -> None:
    whole = train(tmp_path / 'whole', write(tmp_path, range(SAMPLES)))
    train(tmp_path / 'run', write(tmp_path, range(SAMPLES)), 3)
    resumed = train(tmp_path / 'run', write(tmp_path / 'b', range(SAMPLES)[::-1]), resume=True)
    assert resumed.lr == whole.lr


@pytest.mark.parametrize('kind', ['lines', 'table'])
def test_the_place_is_kept_where_the_data_has_moved(tmp_path: Path, capsys, kind: str) -> None:
    whole = train(tmp_path / 'whole', write(tmp_path / 'a', range(SAMPLES), kind))
    train(tmp_path / 'run', write(tmp_path / 'b', range(SAMPLES), kind), DONE)
    moved = write(tmp_path / 'c' / 'd', range(SAMPLES), kind)
    resumed = train(tmp_path / 'run', moved, resume=True)
    assert resumed.batches == whole.batches[DONE:]
    assert changes(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ('first', 'options', 'told'),
    [
        (0, dict(shuffle_buffer=9), 'shuffle_buffer: 6 -> 9'),
        (100, {}, 'digest_of_shards: '),  # of the same names and sizes
    ],
)
def test_streams(tmp_path: Path, capsys, first: int, options: dict, told: str) -> None:
    def go(folder: str, stream: StreamDataset, *args: object, **more: object) -> list[list[int]]:
        more = dict(loop=ITER_LOOP, sampler=None, **more)
        return train(tmp_path / folder, stream, *args, **more).batches

    whole = go('whole', write_stream(tmp_path / 'a'))
    go('run', write_stream(tmp_path / 'b'), DONE)
    shutil.copytree(tmp_path / 'run', tmp_path / 'again')
    assert go('run', write_stream(tmp_path / 'moved'), resume=True) == whole[DONE:]
    assert changes(capsys.readouterr().out) == []
    other = write_stream(tmp_path / 'other', first, **options)
    resumed = go('again', other, resume=True)
    (line,) = told_of_data(capsys.readouterr().out)
    assert told in line
    # Epoch 1 of it, from its beginning, under the seed of the checkpoint.
    other.seed = 0
    assert resumed == go('straight', other)[STEPS : STEPS + len(resumed)]


def test_a_table_goes_on_as_a_stream(tmp_path: Path, capsys) -> None:
    train(tmp_path / 'run', write(tmp_path, range(SAMPLES)), DONE, loop=ITER_LOOP)
    stream = write_stream(tmp_path / 'a')
    resumed = train(tmp_path / 'run', stream, resume=True, loop=ITER_LOOP, sampler=None)
    (line,) = told_of_data(capsys.readouterr().out)
    assert 'type: VisitSampler -> StreamDataset' in line
    assert len({*flat(resumed.batches[:STEPS])}) == STEPS * BATCH


def test_another_sampler_and_no_note_are_told(tmp_path: Path, capsys) -> None:
    data = write(tmp_path, range(SAMPLES))
    train(tmp_path / 'run', data, DONE)
    plain = dict(type='DefaultSampler', shuffle=True)
    train(tmp_path / 'run', data, STEPS + 1, resume=True, sampler=plain)
    output = capsys.readouterr().out
    (line,) = told_of_data(output)
    assert 'type: VisitSampler -> DefaultSampler' in line
    assert 'is not kept, for which mmslip.VisitSampler is needed' in line
    train(tmp_path / 'run', data, resume=True)
    assert 'does not note its place in the data' in capsys.readouterr().out


class Foreign(BaseDataset):
    """A data set that is not of mmslip."""

    def __init__(self, folder: str, names: str) -> None:
        self.names = names
        super().__init__(data_root=folder, data_prefix=dict(img_path='images'))

    def load_data_list(self) -> list[dict]:
        folder = self.data_prefix['img_path']
        return [dict(img_path=f'{folder}/{name}.jpg', gt_label=0) for name in self.names]


def test_what_an_order_is_known_by(tmp_path: Path) -> None:
    def order(dataset: Dataset) -> dict:
        return order_of(VisitSampler(dataset))

    first, moved, other = Foreign('/a', 'xyz'), Foreign('/b/c', 'xyz'), Foreign('/a', 'xzy')
    assert order(first) == order(moved) != order(other)
    assert order(ConcatDataset([first, other])) == order(ConcatDataset([moved, other]))
    assert order(ConcatDataset([first, other])) != order(ConcatDataset([other, first]))

    def mixed(**options: object) -> dict:
        common = dict(datasets=[first, other], weights=[1, 2], length=9)
        return order(MixedDataset(**dict(common, **options)))

    assert mixed() == mixed(weights=[2, 4], datasets=[moved, other])
    assert mixed() not in (mixed(weights=[2, 1]), mixed(seed=1), mixed(length=8))
    assert 'stratified' not in mixed()['dataset']  # as in checkpoints of before
    stratified = MixedDataset([first, other], weights=[1, 2], length=9, stratified=True)
    assert order_of(VisitSampler(stratified, shuffle=False))['dataset']['stratified']
    assert order_of(VisitSampler(first, shuffle=False)) != order(first)
    assert not isinstance(DefaultSampler(first), VisitSampler)


def test_a_bad_record_is_no_error_yet(tmp_path: Path) -> None:
    table = write(tmp_path, range(3), 'table')
    path = tmp_path / 'train.table' / 'text.utf8'
    content = path.read_bytes()
    path.write_bytes(content.replace(b'1.png', b'\xfe.png'))
    assert order_of(VisitSampler(table))['dataset']['samples'] == 3


def test_signatures_of_addresses_are_left_out() -> None:
    def order(*shards: str) -> dict:
        return order_of(StreamDataset(list(shards), length=9))

    pipes = 'pipe:cat a.tar', 'pipe:cat b.tar'
    assert order('https://a/0.tar?key=1') == order('https://a/0.tar?key=2')
    assert order('https://a/0.tar') != order('https://b/0.tar')
    assert order(*pipes) != order(*pipes[::-1])
