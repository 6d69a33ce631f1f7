"""Tests of the hooks: what they compute, log and draw."""

import io
import logging
import random
import re
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmslip.engine import (
    ProgressHook,
    RetrievalPictureHook,
    RunSummaryHook,
    StepSeedHook,
    ThroughputHook,
)
from mmslip.engine.hooks import retrieval_picture, step_seed, throughput


def new_hub() -> MessageHub:
    return MessageHub.get_instance(f'hub-{uuid.uuid4()}')


class Clock:
    """Stands in for ``time.perf_counter``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        # The module is replaced where the hook looks it up: others go on reading the real clock.
        fake = SimpleNamespace(perf_counter=lambda: self.now)
        assert throughput.time is time
        monkeypatch.setattr(throughput, 'time', fake)


BATCHES = {
    'dict': dict(inputs=dict(image=torch.zeros(8, 3, 4, 4))),
    'views': dict(inputs=dict(views=[torch.zeros(8, 3, 2, 2)] * 2, text=torch.zeros(8, 5))),
    'tensor': dict(inputs=torch.zeros(8, 3, 4, 4)),
}


@pytest.mark.parametrize('kind', BATCHES)
def test_throughput(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    clock = Clock(monkeypatch)
    runner = SimpleNamespace(message_hub=new_hub())
    hook = ThroughputHook()

    def step(seconds: float) -> float:
        clock.now += seconds
        hook.after_train_iter(runner, 0, BATCHES[kind], {})
        return runner.message_hub.get_scalar('train/images_per_s').current()

    hook.before_train(runner)
    hook.before_train_epoch(runner)
    assert [step(0.5), step(2.0)] == [16.0, 4.0]
    clock.now += 1000  # validation and saving at the end of an epoch
    hook.before_train_epoch(runner)
    assert step(0.25) == 32.0
    monkeypatch.setattr(throughput, 'get_world_size', lambda: 4)
    assert step(1.0) == 32.0


def test_throughput_leaves_out_validation_between_iterations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    runner = SimpleNamespace(message_hub=new_hub())
    hook = ThroughputHook()
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    for validation in (False, True):
        if validation:
            hook.before_val(runner)
            hook.before_val_epoch(runner)
            clock.now += 1000
            hook.after_val_epoch(runner, {})
            hook.after_val(runner)
        clock.now += 0.5
        hook.after_train_iter(runner, 0, BATCHES['dict'], {})
        assert runner.message_hub.get_scalar('train/images_per_s').current() == 16.0


def test_step_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    rank = 0
    monkeypatch.setattr(step_seed, 'get_rank', lambda: rank)

    def numbers(seed: int, step: int) -> tuple[float, float, float]:
        random.random(), np.random.rand(), torch.rand(3)  # whatever came in between
        StepSeedHook().before_train_iter(SimpleNamespace(seed=seed, iter=step), 0)
        return random.random(), np.random.rand(), torch.rand(1).item()

    base = numbers(5, 7)
    assert numbers(5, 7) == base
    others = [numbers(5, 8), numbers(6, 7), numbers(7, 5), numbers(4, 8)]
    rank = 1
    others += [numbers(5, 7), numbers(5, 6)]
    assert numbers(5, 7) == others[4]
    for source in range(3):
        assert len({draw[source] for draw in [base, *others]}) == 7


class Pictures:
    """A task whose image of index ``i`` is filled with ``i``."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.metainfo = dict(task='val', classes=['c0', 'c1', 'c2'])

    def __len__(self) -> int:
        return self.number

    def get_data_info(self, index: int) -> dict:
        return dict(img=np.full((2, 2, 3), index, np.uint8))


def retrieval_run(hook: RetrievalPictureHook, labels: list[int], scores: Tensor) -> list:
    """Feed a validation to the hook; returns (name, image, step) of what it drew."""
    samples = []
    for index, (label, score) in enumerate(zip(labels, scores, strict=True)):
        sample = DataSample().set_gt_label(label).set_pred_score(score)
        sample.set_metainfo(dict(task='val', sample_idx=index))
        samples.append(sample)
    stranger = DataSample().set_gt_label(0).set_pred_score(torch.full((3,), 9.0))
    stranger.set_metainfo(dict(task='other', sample_idx=77))
    drawn = []
    other = SimpleNamespace(metainfo=dict(task='other', classes=['x']))
    runner = SimpleNamespace(
        val_dataloader=SimpleNamespace(
            dataset=SimpleNamespace(datasets=[other, Pictures(len(labels))])
        ),
        visualizer=SimpleNamespace(add_image=lambda *args: drawn.append(args)),
        epoch=2,
        iter=30,
    )
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, {}, [stranger, *samples[:2]])
    hook.after_val_iter(runner, 1, {}, samples[2:])
    hook.after_val_epoch(runner, {})
    return drawn


def test_retrieval_ranks_the_images_of_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval_picture, 'draw_sheet', lambda rows, title, size: (title, rows))
    scores = torch.tensor([[0.1, 0.9, 0.0], [0.8, 0.2, 0.7], [0.3, 0.1, 0.6], [0.5, 0.4, 0.9]])
    hook = RetrievalPictureHook('val', num_queries=2, topk=3)
    # The second validation forgets the first, of other scores.
    for planted in (scores.flip(0), scores):
        drawn = retrieval_run(hook, [1, 0, 0, 2], planted)
    ((name, (title, rows), step),) = drawn
    assert (name, step) == ('retrieval_val', 30)
    assert title == 'text-to-image retrieval, val, epoch 2, step 30'
    found = [
        (text, [(hit.picture.flat[0], hit.frame == 'tab:green') for hit in hits])
        for text, hits in rows
    ]
    assert found == [
        ('c0', [(1, True), (3, False), (2, True)]),
        ('c2', [(3, True), (1, False), (2, False)]),
    ]


def test_retrieval_over_fewer_images_than_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval_picture, 'draw_sheet', lambda rows, title, size: rows)
    ((_, rows, _),) = retrieval_run(RetrievalPictureHook('val', 2, 8), [0, 1, 2], torch.eye(3))
    assert [len(hits) for _, hits in rows] == [3, 3]


def test_retrieval_names_an_unknown_task() -> None:
    with pytest.raises(ValueError, match='pets'):
        retrieval_run(RetrievalPictureHook('pets', 2, 2), [0, 1, 2], torch.eye(3))


class Line(BaseModel):
    """A model of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs: Tensor, mode: str = 'tensor') -> dict[str, Tensor] | list[dict]:
        """Loss in training, anything in validation."""
        loss = self.layer(inputs).square().mean()
        return dict(loss=loss) if mode == 'loss' else [dict(value=loss)]


class Score(BaseMetric):
    """Rises with every validation but the last."""

    calls = 0

    def process(self, data_batch: object, data_samples: object) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict:
        self.calls += 1
        return dict(score=[10.0, 42.5, 7.0][self.calls - 1])


class AddPicture(Hook):
    """Writes a picture at every validation."""

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        runner.visualizer.add_image('thing', np.zeros((4, 4, 3), np.uint8), runner.iter)


class Lines(logging.Handler):
    """Keeps messages."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def test_run_summary_names_existing_files(tmp_path: Path) -> None:
    data = DataLoader([dict(inputs=torch.tensor([1.0]))] * 2, batch_size=1)
    runner = Runner(
        model=Line(),
        work_dir=str(tmp_path / 'work'),
        train_dataloader=data,
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        val_dataloader=data,
        val_cfg=dict(),
        val_evaluator=[Score()],
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', save_best='score', rule='greater')
        ),
        custom_hooks=[AddPicture(), dict(type='mmslip.RunSummaryHook')],
        visualizer=dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')]),
        default_scope='mmpretrain',
        experiment_name=f'run-{uuid.uuid4()}',
    )
    lines = Lines()
    runner.logger.addHandler(lines)
    runner.train()
    summary = lines.messages[-1]
    best, picture, log, curves = re.fullmatch(
        r'Done: best 42\.50 in (.*) \| picture (.*) \| log (.*) '
        r'\| curves: tensorboard --logdir (.*)',
        summary,
    ).groups()
    assert Path(best).name == 'best_score_epoch_2.pth'
    assert Path(best).is_file()
    assert Path(picture).is_file()
    assert Path(picture).name == 'thing_6.png'  # the newest, after three epochs of two steps
    assert 'Done: best 42.50' in Path(log).read_text(encoding='utf-8')
    assert Path(curves) == tmp_path / 'work'


def test_run_summary_without_score_and_picture(tmp_path: Path) -> None:
    lines = Lines()
    logger = logging.Logger('plain')
    logger.addHandler(lines)
    runner = SimpleNamespace(
        message_hub=new_hub(),
        log_dir=str(tmp_path),
        work_dir='work',
        timestamp='2020',
        logger=logger,
    )
    RunSummaryHook().after_train(runner)
    log = tmp_path / '2020.log'
    assert lines.messages == [f'Done: log {log} | curves: tensorboard --logdir work']


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def progress_runner(monkeypatch: pytest.MonkeyPatch) -> Callable[[io.StringIO], SimpleNamespace]:
    """A runner whose logger writes to ``stream``, which stands in for the standard output."""
    for name in ('NO_COLOR', 'FORCE_COLOR', 'TTY_COMPATIBLE', 'TTY_INTERACTIVE'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setenv('COLUMNS', '160')

    def make(stream: io.StringIO) -> SimpleNamespace:
        monkeypatch.setattr(sys, 'stdout', stream)
        logger = logging.Logger('progress')
        logger.addHandler(logging.StreamHandler(stream))
        hub = new_hub()
        for key, value in dict(loss_clip=1.5, acc_clip=62.4, images_per_s=120.2).items():
            hub.update_scalar(f'train/{key}', value)
        return SimpleNamespace(logger=logger, message_hub=hub, iter=2, max_iters=10)

    return make


def test_progress_draws_on_a_terminal(progress_runner: Callable) -> None:
    terminal = Terminal()
    runner = progress_runner(terminal)
    (handler,) = runner.logger.handlers
    hook = ProgressHook()
    hook.before_train(runner)
    assert handler.stream is sys.stdout is not terminal
    hook.after_train_iter(runner, 0)
    runner.logger.error('a line of the log')
    runner.iter = 9
    hook.after_train_iter(runner, 0)
    hook.after_train(runner)

    # The terminal is as it was.
    assert sys.stdout is terminal
    assert handler.stream is terminal
    before = len(terminal.getvalue())
    runner.logger.error('afterwards')
    assert terminal.getvalue()[before:] == 'afterwards\n'

    shown = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', terminal.getvalue())
    assert 'a line of the log\n' in shown
    last = next(line for line in shown.splitlines() if 'step 10/10' in line)
    assert '100%' in last
    assert 'clip 1.500  acc_clip 62%  120 img/s' in last
    assert 'ssl' not in last
    assert '\x1b[?25h' in terminal.getvalue()  # the cursor is visible again


def test_progress_is_silent_in_a_file(progress_runner: Callable) -> None:
    stream = io.StringIO()
    runner = progress_runner(stream)
    hook = ProgressHook()
    hook.before_train(runner)
    hook.after_train_iter(runner, 0)
    hook.after_train(runner)
    assert sys.stdout is stream
    assert runner.logger.handlers[0].stream is stream
    assert stream.getvalue() == ''
