"""A killed and resumed run sees the samples, and has the losses, of an uninterrupted one."""

import multiprocessing
import os
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn
from torch import distributed as dist

import mmslip.engine  # noqa: F401  (registers the hooks)
from mmslip.datasets import CaptionedDataset
from tests.distributed.pool import run as run_processes

SAMPLES, BATCH, EPOCHS = 23, 4, 3
STEPS = SAMPLES // BATCH  # of an epoch: 5, three samples being left over
EPOCH_LOOP = dict(by_epoch=True, max_epochs=EPOCHS)
ITER_LOOP = dict(by_epoch=False, max_iters=EPOCHS * STEPS)
LOOPS = pytest.mark.parametrize('loop', [EPOCH_LOOP, ITER_LOOP], ids=['epoch', 'iteration'])


class Killed(Exception):
    """Stands for the end of the process."""


class Numbers(CaptionedDataset):
    """Item ``i`` is ``i`` and a number drawn at the visit; every access leaves a line in a file."""

    def __init__(self, path: Path) -> None:
        self.log = str(path)
        super().__init__()

    def load_data_list(self) -> list[dict]:
        return [dict(number=number) for number in range(SAMPLES)]

    def prepare_data(self, idx: int) -> dict:
        with open(self.log, 'a') as file:
            file.write(f'{idx}\n')
        return dict(inputs=torch.tensor([idx / SAMPLES, np.random.rand()]), number=idx)


class Dropping(BaseModel):
    """A regression whose dropout makes the random state count."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.Dropout(), nn.Linear(8, 1))

    def forward(self, inputs: Tensor, number: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        return dict(loss=(self.layers(inputs) - 1).square().mean())


def stop() -> None:
    raise Killed


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Record(Hook):
    """Keeps samples and loss of every step, and ends the run after one of them."""

    priority = 'LOWEST'

    def __init__(self, kill_after: int | None, end: Callable[[], None]) -> None:
        self.kill_after, self.end = kill_after, end
        self.steps: list[tuple[int, list[int], float]] = []
        self.epochs = 0

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        loss = outputs['loss'].item()
        self.steps.append((runner.iter, data_batch['number'].tolist(), loss))
        if len(self.steps) == self.kill_after:
            self.end()

    def after_train_epoch(self, runner) -> None:
        self.epochs += 1


def train(
    folder: Path,
    loop: dict,
    kill_after: int | None = None,
    resume: bool = False,
    workers: int = 0,
    batch_size: int = BATCH,
    name: str = 'accesses',
    end: Callable[[], None] = stop,
) -> Record:
    """Run with a checkpoint after every step, and at the end of every epoch."""
    record = Record(kill_after, end)
    persistent = dict(persistent_workers=True) if workers else {}
    runner = Runner(
        model=Dropping(),
        work_dir=str(folder),
        train_dataloader=dict(
            batch_size=batch_size,
            num_workers=workers,
            drop_last=True,
            sampler=dict(type='mmslip.VisitSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            dataset=Numbers(folder / name),
            **persistent,
        ),
        train_cfg=dict(loop),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.05)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, end=4, by_epoch=False),
            dict(type='ExponentialLR', gamma=0.5, by_epoch=True),
        ],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1)),
        custom_hooks=[
            dict(type='CheckpointHook', interval=1),
            dict(type='mmslip.StepSeedHook'),
            dict(type='mmslip.BadSampleHook'),
            dict(type='mmslip.ResumeDataHook'),
            dict(type='mmslip.PlainCheckpointHook'),
            record,
        ],
        default_scope='mmpretrain',
        randomness=dict(seed=3),
        resume=resume,
        log_level='ERROR',
        experiment_name=f'run-{uuid.uuid4()}',
    )
    try:
        runner.train()
    except Killed:
        assert kill_after is not None
    # Workers end at once if their iterator is dropped, and after ten seconds if the garbage
    # collector has to find it.
    runner.train_loop.dataloader_iterator = runner.train_dataloader._iterator = None
    return record


def accesses(folder: Path, name: str = 'accesses') -> list[int]:
    return [int(line) for line in (folder / name).read_text().split()]


def numbers(steps: list[tuple[int, list[int], float]]) -> list[int]:
    return [number for _, batch, _ in steps for number in batch]


@pytest.fixture(scope='module', params=[EPOCH_LOOP, ITER_LOOP], ids=['epoch', 'iteration'])
def straight(request, tmp_path_factory) -> tuple[dict, list]:
    """A loop, and the steps of an uninterrupted run of it."""
    folder = tmp_path_factory.mktemp('straight')
    return request.param, train(folder, request.param).steps


def test_uninterrupted_epochs_have_each_sample_once(straight):
    _, steps = straight
    assert [step for step, _, _ in steps] == list(range(EPOCHS * STEPS))
    for epoch in range(EPOCHS):
        seen = numbers(steps[epoch * STEPS : (epoch + 1) * STEPS])
        assert len(set(seen)) == STEPS * BATCH
    assert numbers(steps[:STEPS]) != numbers(steps[STEPS : 2 * STEPS])


# The last: killed between the last step of an epoch and the end of that epoch.
@pytest.mark.parametrize('kill_after', [1, 3, 2 * STEPS + 1, STEPS])
def test_resume_goes_on_at_the_next_sample(straight, tmp_path, kill_after):
    loop, steps = straight
    begun = train(tmp_path, loop, kill_after)
    assert begun.steps == steps[:kill_after]
    before = len(accesses(tmp_path))
    resumed = train(tmp_path, loop, resume=True)
    assert resumed.steps == steps[kill_after:]  # samples and losses, bit for bit
    assert resumed.epochs == (EPOCHS - (kill_after - 1) // STEPS if loop is EPOCH_LOOP else 1)
    # Nothing is loaded but what is trained on.
    assert accesses(tmp_path)[before:] == numbers(steps[kill_after:])


@pytest.mark.parametrize('draw', range(2))
def test_a_process_killed_at_a_random_step_goes_on(straight, tmp_path, draw):
    loop, steps = straight
    kill_after = int(np.random.default_rng(draw).integers(1, EPOCHS * STEPS))
    process = multiprocessing.get_context('fork').Process(
        target=train, args=(tmp_path, loop, kill_after), kwargs=dict(end=kill)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert train(tmp_path, loop, resume=True).steps == steps[kill_after:]


def test_a_run_may_be_killed_twice(straight, tmp_path):
    loop, steps = straight
    train(tmp_path, loop, 3)
    again = train(tmp_path, loop, 4, resume=True)
    assert again.steps == steps[3:7]
    assert train(tmp_path, loop, resume=True).steps == steps[7:]


def test_resume_at_the_end_of_an_epoch(straight, tmp_path):
    """From the checkpoint that is saved after the epoch's end."""
    loop, steps = straight
    if loop is ITER_LOOP:
        pytest.skip('iteration loops have no such end')
    train(tmp_path, loop, STEPS + 1)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    assert train(tmp_path, loop, resume=True).steps == steps[STEPS:]


def test_resume_with_workers(straight, tmp_path):
    loop, steps = straight
    begun = train(tmp_path, loop, STEPS + 2, workers=2)
    assert begun.steps == steps[: STEPS + 2]
    resumed = train(tmp_path, loop, resume=True, workers=2)
    assert resumed.steps == steps[STEPS + 2 :]


def test_late_steps_are_reached_without_loading(tmp_path):
    train(tmp_path, ITER_LOOP, 1)
    path = tmp_path / 'iter_1.pth'
    checkpoint = torch.load(path, weights_only=True)
    late = 100_003
    checkpoint['meta'].update(epoch=0, iter=late)
    checkpoint['meta']['data_place'].update(epoch=late // STEPS, samples=late % STEPS * BATCH)
    torch.save(checkpoint, path)
    loop = dict(by_epoch=False, max_iters=late + 4)
    begin = time.process_time()
    resumed = train(tmp_path, loop, resume=True, name='late')
    assert time.process_time() - begin < 5
    assert [step for step, _, _ in resumed.steps] == list(range(late, late + 4))
    assert accesses(tmp_path, 'late') == numbers(resumed.steps)
    assert len(set(numbers(resumed.steps[:2]))) == 2 * BATCH  # steps 3 and 4 of an epoch


def test_checkpoints_without_a_note_resume_by_their_step(straight, tmp_path):
    loop, steps = straight
    train(tmp_path, loop, STEPS + 2)
    path = tmp_path / f'iter_{STEPS + 2}.pth'
    checkpoint = torch.load(path, weights_only=True)
    place = checkpoint['meta'].pop('data_place')
    dataset = dict(type='Numbers', samples=SAMPLES)
    assert len(place['order']['dataset'].pop('digest_of_records')) == 12
    order = dict(type='VisitSampler', shuffle=True, dataset=dataset)
    assert place == dict(epoch=1, samples=2 * BATCH, ended=False, seed=3, order=order)
    torch.save(checkpoint, path)
    assert train(tmp_path, loop, resume=True).steps == steps[STEPS + 2 :]


@LOOPS
def test_another_batch_size_goes_on_at_the_same_sample(tmp_path, loop):
    begun = train(tmp_path, loop, 3)
    resumed = train(tmp_path, loop, 5, resume=True, batch_size=BATCH // 2)
    assert len(set(numbers(begun.steps + resumed.steps))) == 3 * BATCH + 5 * BATCH // 2


def train_rank(rank: int, world_size: int, folder: str, loop: dict, kill_after: int) -> list:
    """The steps of an uninterrupted run, of one that is killed, and of its continuation."""
    os.environ['OMP_NUM_THREADS'] = '1'
    results = []
    for part, *options in (('whole', None), ('killed', kill_after), ('killed', None, True)):
        record = train(Path(folder, part), loop, *options, batch_size=2, name=f'accesses_{rank}')
        dist.barrier()  # the first process has written its checkpoint
        results.append(record.steps)
    return results


@pytest.mark.dist
@LOOPS
def test_processes_share_an_epoch_before_and_after_a_resume(tmp_path, loop):
    """Two processes with two samples each, killed in the second epoch."""
    steps = SAMPLES // 2 // 2  # of one process in an epoch: 5 of 2
    loop = {**loop, 'max_epochs': 2} if loop['by_epoch'] else {**loop, 'max_iters': 2 * steps}
    whole, first, rest = zip(
        *run_processes(train_rank, 2, str(tmp_path), loop, steps + 2), strict=True
    )
    for rank in range(2):
        ids = [batch for _, batch, _ in whole[rank]]
        assert [batch for _, batch, _ in first[rank] + rest[rank]] == ids
        assert len(accesses(tmp_path / 'killed', f'accesses_{rank}')) == 2 * 2 * steps
    for epoch in range(2):
        parts = [set(numbers(part[epoch * steps : (epoch + 1) * steps])) for part in whole]
        assert len(parts[0]) == len(parts[1]) == 2 * steps
        assert not parts[0] & parts[1]


@LOOPS
def test_a_set_smaller_than_a_batch_is_refused(tmp_path, loop):
    with pytest.raises(ValueError, match=r'The 23 samples .* fewer than a batch .*\(24\): lower'):
        train(tmp_path, loop, batch_size=24)
