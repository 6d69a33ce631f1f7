"""Tests of the hooks: what they compute, log and draw."""

import errno
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

import mmcv
import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook, iter_timer_hook
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
    TimerHook,
)
from mmslip.engine.checkpointing.storage import AtomicBackend
from mmslip.engine.hooks import progress, retrieval_picture, step_seed, throughput, timer


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


def throughput_runner(window: int = 1) -> SimpleNamespace:
    processor = SimpleNamespace(window_size=window)
    return SimpleNamespace(message_hub=new_hub(), log_processor=processor)


@pytest.mark.parametrize('kind', BATCHES)
def test_throughput(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    clock = Clock(monkeypatch)
    runner = throughput_runner()
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


def test_throughput_is_that_of_several_steps_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow step counts by its time: 24 images in 12 s are 2 a second, not the mean of 7.4."""
    clock = Clock(monkeypatch)
    runner, hook = throughput_runner(window=3), ThroughputHook()
    hook.before_train(runner)
    for seconds in (100.0, 10.0, 1.5, 0.5):
        clock.now += seconds
        hook.after_train_iter(runner, 0, BATCHES['dict'], {})
    rates = runner.message_hub.get_scalar('train/images_per_s').data[0]
    np.testing.assert_allclose(rates, [0.08, 16 / 110, 24 / 111.5, 2.0])


def test_throughput_counts_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a batch whose captioned rows come first, too."""
    clock = Clock(monkeypatch)
    runner = throughput_runner()
    monkeypatch.setattr(throughput, 'get_world_size', lambda: 2)
    hook = ThroughputHook()
    hook.before_train(runner)
    clock.now += 0.5
    views, image, text = torch.zeros(8, 3, 2, 2), torch.zeros(3, 3, 4, 4), torch.zeros(3, 5)
    hook.after_train_iter(runner, 0, dict(inputs=dict(image=image, text=text, views=[views])))
    scalars = dict(images_per_s=32, captioned=6, bare=10)
    for name, value in scalars.items():
        assert runner.message_hub.get_scalar(f'train/{name}').current() == value
    clock.now += 0.5
    hook.after_train_iter(runner, 1, dict(inputs=dict(image=views, text=views)))
    assert len(runner.message_hub.get_scalar('train/bare').data[0]) == 1


def test_throughput_leaves_out_validation_between_iterations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    runner = throughput_runner()
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


def test_the_summary_comes_when_the_last_checkpoint_is_whole(tmp_path, monkeypatch) -> None:
    def fail(part: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', fail)
    AtomicBackend(background=True).put(b'state', tmp_path / 'epoch_3.pth')
    said = []
    runner = SimpleNamespace(logger=SimpleNamespace(info=said.append))
    with pytest.raises(OSError, match=r'epoch_3\.pth could not be written'):
        RunSummaryHook().after_train(runner)
    assert not said


@pytest.mark.parametrize('start', [0, 40])
def test_the_time_left_counts_validations(monkeypatch: pytest.MonkeyPatch, start: int) -> None:
    """Of 100 steps of 2 s with validations of 30 s after every 20."""
    now = [1000.0]
    clock = SimpleNamespace(time=lambda: now[0])
    monkeypatch.setattr(timer, 'time', clock)
    monkeypatch.setattr(iter_timer_hook, 'time', clock)
    hub, hook = new_hub(), TimerHook()
    runner = SimpleNamespace(message_hub=hub, iter=start, max_iters=100, val_dataloader=[0])
    hook.before_train(runner)
    now[0] += 500  # what prepares a training
    left = {}
    for runner.iter in range(start, 100):
        if runner.iter % 20 == 0:
            hook.before_train_epoch(runner)
        now[0] += 0.5
        hook.before_train_iter(runner, 0)
        now[0] += 1.5
        hook.after_train_iter(runner, 0)
        left[runner.iter + 1] = hub.get_info('eta')
        if (runner.iter + 1) % 20 == 0:
            hook.after_train_epoch(runner)
            hook.before_val_epoch(runner)
            hook.before_val_iter(runner, 0)
            now[0] += 30
            hook.after_val_iter(runner, 0)
            hook.after_val_epoch(runner)
    assert left[start + 20] == pytest.approx((80 - start) * 2)
    # The first step of the second epoch has had one validation, in 21 steps.
    assert left[start + 21] == pytest.approx((79 - start) * (2 + 30 / 21))
    assert left[80] == pytest.approx(20 * (2 + 30 * (60 - start) / 20 / (80 - start)))
    assert left[100] == 0


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


def retrieval_run(
    hook: RetrievalPictureHook, labels: list[int], scores: Tensor, folder: Path, step: int = 30
) -> list:
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
        epoch=step // 15,
        iter=step,
        work_dir=str(folder),
    )
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, {}, [stranger, *samples[:2]])
    hook.after_val_iter(runner, 1, {}, samples[2:])
    hook.after_val_epoch(runner, {})
    return drawn


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list:
    """Title and rows of every sheet that is drawn: texts, and (image, is right) of their hits."""
    drawn = []

    def draw_sheet(rows: list, title: str, size: int) -> np.ndarray:
        found = [
            (text, [(hit.picture.flat[0], hit.frame == 'tab:green') for hit in hits])
            for text, hits in rows
        ]
        drawn.append((title, found))
        return np.full((2, 3, 3), len(drawn), np.uint8)

    monkeypatch.setattr(retrieval_picture, 'draw_sheet', draw_sheet)
    return drawn


SCORES = torch.tensor([[0.1, 0.9, 0.0], [0.8, 0.2, 0.7], [0.3, 0.1, 0.6], [0.5, 0.4, 0.9]])


def test_retrieval_ranks_the_images_of_its_task(sheets: list, tmp_path: Path) -> None:
    hook = RetrievalPictureHook('val', num_queries=2, topk=3)
    # The second validation forgets the first, of other scores.
    for planted in (SCORES.flip(0), SCORES):
        ((name, picture, step),) = retrieval_run(hook, [1, 0, 0, 2], planted, tmp_path)
    assert (name, step) == ('retrieval_val', 30)
    assert sheets[-1] == (
        'text-to-image retrieval, val, epoch 2, step 30',
        [
            ('c0', [(1, True), (3, False), (2, True)]),
            ('c2', [(3, True), (1, False), (2, False)]),
        ],
    )
    assert picture.shape == (2, 3, 3)
    np.testing.assert_array_equal(mmcv.imread(tmp_path / 'retrieval_val.png'), picture)


def test_retrieval_shows_the_start_beside_the_end(sheets: list, tmp_path: Path) -> None:
    hook = RetrievalPictureHook('val', num_queries=2, topk=1, from_start=True)
    validations = []
    runner = SimpleNamespace(iter=0, val_loop=SimpleNamespace(run=lambda: validations.append(0)))
    hook.before_train(runner)
    ((_, picture, _),) = retrieval_run(hook, [1, 0, 0, 2], SCORES.flip(0), tmp_path, step=0)
    assert picture.shape == (2, 3, 3)
    # A run that goes on from a checkpoint neither validates nor forgets.
    checkpoint = {}
    hook.before_save_checkpoint(None, checkpoint)
    hook = RetrievalPictureHook('val', num_queries=2, topk=1, from_start=True)
    hook.after_load_checkpoint(None, checkpoint)
    runner.iter = 15
    hook.before_train(runner)
    assert validations == [0]
    ((_, picture, _),) = retrieval_run(hook, [1, 0, 0, 2], SCORES, tmp_path)
    assert sheets[1:] == [
        (
            'text-to-image retrieval, val, before training',
            [('c0', [(2, True)]), ('c2', [(0, False)])],
        ),
        (
            'text-to-image retrieval, val, epoch 2, step 30',
            [('c0', [(1, True)]), ('c2', [(3, True)])],
        ),
    ]
    assert picture[0, :, 0].tolist() == [2, 2, 2, 3, 3, 3]  # two sheets, side by side


def test_retrieval_over_fewer_images_than_columns(sheets: list, tmp_path: Path) -> None:
    retrieval_run(RetrievalPictureHook('val', 2, 8), [0, 1, 2], torch.eye(3), tmp_path)
    assert [len(hits) for _, hits in sheets[0][1]] == [3, 3]


def test_retrieval_names_an_unknown_task(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='pets'):
        retrieval_run(RetrievalPictureHook('pets', 2, 2), [0, 1, 2], torch.eye(3), tmp_path)


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
    head, *rows = lines.messages[-1].splitlines()
    assert head == 'Done: 6 steps.'
    said = dict(row.split(maxsplit=1) for row in rows)
    metric, score, _, best = said['best'].split()
    assert (metric, score) == ('score', '42.50')
    assert Path(best).name == 'best_score_epoch_2.pth'
    assert Path(best).is_file()
    assert Path(said['last']).name == 'epoch_3.pth'
    assert Path(said['picture']).is_file()
    assert Path(said['picture']).name == 'thing_6.png'  # the newest, of three epochs of two steps
    assert '42.50' in Path(said['log']).read_text(encoding='utf-8')
    assert said['curves'] == f'tensorboard --logdir {tmp_path / "work"}'
    assert [
        line for line in lines.messages if line.startswith(('model', 'data', 'validation'))
    ] == [
        'model: Line, 0.0 M parameters on cpu',
        'data: 2 samples in batches of 1 x 1: 2 steps an epoch, 6 steps in 3 epochs',
        'validation: 2 samples, after every epoch',
    ]


def test_run_summary_without_score_and_picture(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = Lines()
    logger = logging.Logger('plain')
    logger.addHandler(lines)
    runner = SimpleNamespace(
        message_hub=new_hub(),
        hooks=[],
        iter=12345,
        log_dir=str(tmp_path / 'work' / 'now'),
        work_dir=str(tmp_path / 'work'),
        timestamp='2020',
        logger=logger,
    )
    RunSummaryHook().after_train(runner)
    log = Path('work', 'now', '2020.log')
    assert lines.messages == [
        f'Done: 12,345 steps.\n  log      {log}\n  curves   tensorboard --logdir work'
    ]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


SCALARS = dict(
    time=0.5, loss=3.5, loss_clip=1.5, acc_clip=62.4, logit_scale=14.25, loss_ssl=2.0, acc_ssl=7.0
)


@pytest.fixture
def progress_runner(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """A runner whose logger writes to ``stream``, which stands in for the standard output."""
    for name in ('NO_COLOR', 'FORCE_COLOR', 'TTY_COMPATIBLE', 'TTY_INTERACTIVE'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('TERM', 'xterm')

    def make(stream: io.StringIO, columns: int = 80) -> SimpleNamespace:
        monkeypatch.setenv('COLUMNS', str(columns))
        monkeypatch.setattr(sys, 'stdout', stream)
        monkeypatch.setattr(progress, '_REDRAW', -1)
        logger = logging.Logger('progress')
        logger.addHandler(logging.StreamHandler(stream))
        hub = new_hub()
        hub.update_info('eta', 4_998.4)
        for key, value in SCALARS.items():
            hub.update_scalar(f'train/{key}', value)
        loader = DataLoader(range(40), batch_size=8)
        return SimpleNamespace(
            logger=logger,
            message_hub=hub,
            log_processor=SimpleNamespace(window_size=10),
            **dict(val_dataloader=loader, test_dataloader=loader, iter=2, max_iters=10_000),
        )

    return make


def drawn(terminal: io.StringIO) -> list[str]:
    """All lines that a terminal has shown, those drawn over each other one after another."""
    text = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', terminal.getvalue())
    return [line.rstrip() for line in re.split(r'[\r\n]+', text) if line]


@pytest.mark.parametrize(
    ('columns', 'rest'),
    [
        (40, ''),
        (80, '  clip 1.500  ssl 2.000  acc_clip 62%'),
        (120, '  clip 1.500  ssl 2.000  acc_clip 62%  acc_ssl 7%  scale 14.2'),
    ],
)
def test_the_line_shows_step_time_and_speed(progress_runner: Callable, columns, rest) -> None:
    terminal = Terminal()
    runner = progress_runner(terminal, columns)
    (handler,) = runner.logger.handlers
    hook = ProgressHook()
    hook.before_train(runner)
    assert handler.stream is sys.stdout is not terminal
    hook.after_train_iter(runner, 0, BATCHES['dict'])
    runner.logger.error('a line of the log')
    runner.iter = 9_998
    runner.message_hub.update_info('eta', 0.5)
    hook.after_train_iter(runner, 0, BATCHES['dict'])
    hook.after_train(runner)

    # The terminal is as it was.
    assert sys.stdout is terminal
    assert handler.stream is terminal
    before = len(terminal.getvalue())
    runner.logger.error('afterwards')
    assert terminal.getvalue()[before:] == 'afterwards\n'
    assert '\x1b[?25l' not in terminal.getvalue()  # the cursor is never hidden

    assert f'step 3/10000  left 1:23:18  16 img/s{rest}' in drawn(terminal)
    assert 'a line of the log' in drawn(terminal)
    assert any(line.startswith('step 9999/10000  left 0:00  16') for line in drawn(terminal))
    assert max(map(len, drawn(terminal))) < columns


def test_a_short_line_stands_for_that_of_the_logger(progress_runner: Callable) -> None:
    terminal = Terminal()
    runner = progress_runner(terminal)
    hook = ProgressHook()
    hook.before_train(runner)
    kept = Lines()
    runner.logger.addHandler(kept)

    def log(text: str) -> None:
        record = runner.logger.makeRecord('x', logging.INFO, '/m/logger_hook.py', 1, text, (), None)
        runner.logger.handle(record)

    log('Epoch(train)  [1][3/9]  lr: 1.0  loss: 3.5')
    runner.message_hub.update_scalar('train/loss_clip', 2.5)  # the mean of both is logged
    hook.after_train_iter(runner, 0, BATCHES['dict'])
    log('Epoch(val)  [1][9/9]  zero_shot/val_top1: 12.3')
    hook.after_val_epoch(runner, {'a/top1': 12.345, 'a/top1_low': 10.0, 'a/top1_high': 15.0})
    hook.after_train(runner)
    shown = drawn(terminal)
    assert not any('Epoch' in line for line in shown)
    assert any(re.match(r'[\d:]{8}  step 3/10000  .*  clip 2.000  ssl 2', line) for line in shown)
    assert any(re.fullmatch(r'[\d:]{8}  validation  a/top1 12.35', line) for line in shown)
    assert len(kept.messages) == 2  # as the file has them


@pytest.mark.parametrize('stage', ['val', 'test'])
def test_an_evaluation_has_progress(progress_runner: Callable, stage: str) -> None:
    terminal, name = Terminal(), dict(val='validation', test='test')[stage]
    runner = progress_runner(terminal)
    hook = ProgressHook()
    getattr(hook, f'before_{stage}')(runner)
    getattr(hook, f'before_{stage}_epoch')(runner)
    hook._started -= 8.0
    for batch_idx in range(5):
        getattr(hook, f'after_{stage}_iter')(runner, batch_idx, BATCHES['dict'], [])
    getattr(hook, f'after_{stage}')(runner)
    assert sys.stdout is terminal
    shown = drawn(terminal)
    assert shown[0] == f'{name}: preparing'
    assert shown[1] == f'{name} 1/5  left 0:32  1.0 img/s'
    assert shown[-1] == f'{name} 5/5: computing the metrics'


def test_a_validation_within_training_leaves_its_line_to_it(progress_runner: Callable) -> None:
    terminal = Terminal()
    runner = progress_runner(terminal)
    hook = ProgressHook()
    hook.before_train(runner)
    hook.before_val(runner)
    hook.after_val(runner)
    assert sys.stdout is not terminal
    hook.after_train(runner)
    assert sys.stdout is terminal


def test_a_file_gets_plain_lines_now_and_then(progress_runner: Callable, monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress, 'time', SimpleNamespace(monotonic=lambda: now[0]))
    stream = io.StringIO()
    runner = progress_runner(stream)
    runner.logger.setLevel(logging.INFO)
    hook = ProgressHook()
    hook.before_train(runner)
    for seconds in (10, 25, 25, 20):
        now[0] += seconds
        hook.after_train_iter(runner, 0, BATCHES['dict'])
    hook.before_val(runner)
    hook.before_val_epoch(runner)
    for batch_idx in range(5):
        now[0] += 20
        hook.after_val_iter(runner, batch_idx, BATCHES['dict'], [])
    hook.after_val(runner)
    hook.after_train(runner)
    assert sys.stdout is stream
    assert runner.logger.handlers[0].stream is stream
    step = 'step 3/10000  left 1:23:18  16 img/s  clip 1.500  ssl 2.000  '
    step += 'acc_clip 62%  acc_ssl 7%  scale 14.2\n'
    assert stream.getvalue() == (
        2 * step + 'validation 2/5  left 1:00  0.4 img/s\nvalidation 4/5  left 0:20  0.4 img/s\n'
    )


def test_only_the_main_process_draws(progress_runner: Callable, monkeypatch) -> None:
    monkeypatch.setattr(progress, 'is_main_process', lambda: False)
    terminal = Terminal()
    runner = progress_runner(terminal)
    hook = ProgressHook()
    hook.before_train(runner)
    hook.after_train_iter(runner, 0, BATCHES['dict'])
    hook.before_val(runner)
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 4, BATCHES['dict'], [])
    hook.after_val_epoch(runner, {})
    hook.after_train(runner)
    assert terminal.getvalue() == ''
