"""Faults are injected, and leave no trace but a count."""

import copy
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from torch import Tensor

from mmslip.engine import InstabilityHook
from tests.crashing import (
    ITER_LOOP,
    Regression,
    assert_equal,
    make_runner,
    trace,
)
from tests.distributed import pool
from tests.distributed.test_model import build
from tests.distributed.test_sharding import DDP, Samples

FUSED = dict(type='AdamW', lr=0.05, weight_decay=0.1, fused=True)
PLAIN = dict(type='AdamW', lr=0.05, weight_decay=0.1)
OPTIMIZERS = pytest.mark.parametrize(
    'optimizer',
    [FUSED, PLAIN, dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=0.1)],
    ids=['fused', 'plain', 'sgd'],
)


class Faulty(Regression):
    """Goes wrong in some forward passes, counted from 0."""

    def __init__(self, fault: str = '', passes: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.fault, self.passes, self.number = fault, passes, -1

    def forward(self, inputs: Tensor, number: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        self.number += 1
        faulty = self.number in self.passes
        if faulty and self.fault == 'inputs':
            inputs = inputs / 0
        loss = super().forward(inputs, number, mode)['loss']
        if faulty and self.fault == 'loss':  # with gradients that are fine
            loss = loss + math.inf
        if faulty and self.fault == 'gradient':
            # Loss 0, gradient of the root of zero: infinite.
            loss = loss + (self.last.bias - self.last.bias.detach()).abs().sqrt().sum()
        return dict(loss=loss, loss_parts=[0 * loss.detach()], acc=torch.tensor(math.nan))


def full_state(runner: Runner) -> dict:
    """Everything that a step changes, copied."""
    average = next(hook.ema_model for hook in runner.hooks if hasattr(hook, 'ema_model'))
    return copy.deepcopy(
        dict(
            model=runner.model.state_dict(),
            average=average.state_dict(),
            optimizer=runner.optim_wrapper.state_dict()['state'],
        )
    )


def run(
    folder: Path,
    model: Regression,
    optimizer: dict = FUSED,
    accumulate: int = 1,
    options: dict | None = None,
    watched: bool = True,
    wrapper: str = 'OptimWrapper',
    act: Callable[[Runner], None] | None = None,
    **more: object,
) -> tuple[Runner, list[dict]]:
    """A run, and the state after each step."""
    states = []

    def keep(runner: Runner) -> None:
        states.append(full_state(runner))
        if act is not None:
            act(runner)

    optim_wrapper = dict(type=wrapper, optimizer=dict(optimizer), accumulative_counts=accumulate)
    runner = make_runner(
        folder,
        ITER_LOOP,
        model=model,
        act=keep,
        **{'optim_wrapper': optim_wrapper, **more},
    )
    index = next(i for i, hook in enumerate(runner.hooks) if isinstance(hook, InstabilityHook))
    runner.hooks[index : index + 1] = []
    if watched:
        runner.register_hook(InstabilityHook(**(options or {})))
    return runner, states


@OPTIMIZERS
@pytest.mark.parametrize('accumulate', [1, 2])
def test_healthy_steps_are_the_same_bit_for_bit(tmp_path, optimizer, accumulate):
    watched, states = run(tmp_path / 'a', Faulty(), optimizer, accumulate)
    watched.train()
    alone, expected = run(tmp_path / 'b', Faulty(), optimizer, accumulate, watched=False)
    alone.train()
    assert len(states) == 15
    assert_equal(states, expected)


@OPTIMIZERS
@pytest.mark.parametrize('fault', ['loss', 'gradient', 'inputs'])
def test_a_bad_step_changes_nothing(tmp_path, optimizer, fault):
    runner, states = run(tmp_path, Faulty(fault, (5, 9, 10)), optimizer)
    runner.train()
    changed = []
    for step in range(1, 15):
        before, after = states[step - 1], states[step]
        try:
            for part in ('model', 'optimizer'):
                assert_equal(after[part], before[part])
        except AssertionError:
            changed.append(step)
    assert changed == [step for step in range(1, 15) if step not in (5, 9, 10)]
    for part in ('model', 'average'):
        assert all(value.isfinite().all() for value in states[-1][part].values())
    assert [states[step]['average']['steps'].item() for step in (4, 5)] == [5, 6]
    assert runner.message_hub.get_scalar('train/skipped_steps').current() == 3


@pytest.mark.parametrize('fault', ['gradient', 'inputs'])
def test_without_the_hook_it_would_be_ruined(tmp_path, fault):
    runner, states = run(tmp_path, Faulty(fault, (5,)), watched=False)
    runner.train()
    assert states[4]['model']['last.weight'].isfinite().all()
    assert states[5]['model']['last.bias'].isnan().all()
    mean = states[5]['model']['layers.1.running_mean']
    assert mean.isfinite().all() == (fault == 'gradient')


@OPTIMIZERS
def test_an_accumulated_step_is_left_out_as_a_whole(tmp_path, optimizer):
    """Steps 4 and 5 are one; the buffers go back to those before step 4."""
    runner, states = run(tmp_path, Faulty('inputs', (4,)), optimizer, accumulate=2)
    runner.train()
    assert_equal(states[5]['optimizer'], states[3]['optimizer'])
    assert_equal(states[5]['model'], states[3]['model'])
    with pytest.raises(AssertionError):
        assert_equal(states[7]['model'], states[5]['model'])
    assert all(value.isfinite().all() for value in states[-1]['model'].values())


@OPTIM_WRAPPERS.register_module(force=True)
class ScaledOnCPU(OptimWrapper):
    """mmengine's ``AmpOptimWrapper`` but for its demand for a GPU."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=4.0)

    def backward(self, loss: Tensor, **kwargs: object) -> None:
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs: object) -> None:
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()


@OPTIMIZERS
def test_a_gradient_scaler_skips_and_the_hook_counts(tmp_path, optimizer):
    runner, states = run(tmp_path, Faulty('inputs', (5, 6)), optimizer, wrapper='ScaledOnCPU')
    runner.train()
    assert_equal(states[6]['model'], states[4]['model'])
    assert_equal(states[6]['optimizer'], states[4]['optimizer'])
    assert runner.optim_wrapper.loss_scaler.get_scale() == 1.0  # halved twice
    assert runner.message_hub.get_scalar('train/skipped_steps').current() == 2
    assert all(value.isfinite().all() for value in states[-1]['average'].values())


@pytest.mark.parametrize(
    ('passes', 'options', 'text', 'stop'),
    [
        ((3, 5, 6, 7), dict(max_in_a_row=3), '4 steps .* the last 3 of them in a row', 8),
        ((3, 5, 7, 9), dict(max_skipped=3), '3 steps .* the last 1 of them in a row', 8),
    ],
    ids=['in a row', 'in all'],
)
def test_too_many_bad_steps_stop_the_run(tmp_path, passes, options, text, stop):
    runner, _ = run(tmp_path, Faulty('loss', passes), options=dict(options, interval=1))
    with pytest.raises(RuntimeError, match=f'{text}.*state is saved in .*stopped.pth'):
        runner.train()
    assert len(trace(tmp_path)) == stop - 1  # without the last, in which it was stopped
    saved = torch.load(tmp_path / 'stopped.pth', weights_only=True)
    assert saved['meta']['iter'] == stop
    assert all(value.isfinite().all() for value in saved['state_dict'].values())
    # With patience it goes on, and the count with it.
    again, _ = run(tmp_path, Faulty(), options=dict(interval=1), resume=True)
    again.train()
    assert [step for step, _ in trace(tmp_path)] == [*range(stop - 1), *range(stop, 15)]
    skipped = again.message_hub.get_scalar('train/skipped_steps').current()
    assert skipped == sum(number < stop for number in passes)


def test_a_step_without_fault_ends_the_row(tmp_path):
    runner, _ = run(
        tmp_path, Faulty('loss', (1, 2, 4, 5, 7, 8)), options=dict(max_in_a_row=3, interval=1)
    )
    runner.train()
    assert runner.message_hub.get_scalar('train/skipped_steps').current() == 6
    assert 'train/rollbacks' not in runner.message_hub.log_scalars  # nothing to tell


class Spiking(Regression):
    """Its weights are ruined, by finite values, in some forward passes."""

    def __init__(self, passes: tuple[int, ...]) -> None:
        super().__init__()
        self.passes, self.number = passes, -1

    def forward(self, inputs: Tensor, number: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        self.number += 1
        if self.number in self.passes:
            with torch.no_grad():
                self.last.bias.add_(30)
        return super().forward(inputs, number, mode)


SPIKE = dict(max_rise=2.0, smoothing=2, interval=1)


@OPTIMIZERS
def test_a_spike_is_rolled_back(tmp_path, optimizer, capsys):
    """Saved after every step; the weights are ruined in step 2 (counted from 0)."""
    reached = {}

    def note(runner: Runner) -> None:
        watch = next(hook for hook in runner.hooks if isinstance(hook, InstabilityHook))._watch
        reached[runner.iter] = watch.state_dict()['rollbacks'], runner.optim_wrapper.get_lr()

    runner, states = run(tmp_path, Spiking((2,)), optimizer, options=SPIKE, act=note, interval=1)
    runner.train()
    assert [value for value, _ in reached.values()] == [0, 0, *[1] * 13]
    # What had been saved after step 1 is back: weights, buffers, moments, averages.
    assert_equal(states[2], states[1])
    assert 'Rolled back: loss' in capsys.readouterr().out
    assert runner.message_hub.get_scalar('train/rollbacks').current() == 1
    assert [step for step, _ in trace(tmp_path)] == list(range(15))
    alone, _ = run(tmp_path / 'alone', Spiking(()), optimizer, watched=False)
    alone.train()
    # The data goes on: every sample of the epochs is visited as ever.
    seen = [(folder / 'accesses').read_text() for folder in (tmp_path, tmp_path / 'alone')]
    assert seen[0] == seen[1]
    # So does the schedule, in the middle of its warm-up.
    assert runner.optim_wrapper.get_lr() == alone.optim_wrapper.get_lr()
    rates = [rate['lr'][0] for _, rate in reached.values()]
    assert rates[1] < rates[2] == rates[-1]


def test_a_rollback_finds_checkpoints_elsewhere(tmp_path):
    """``out_dir`` of CheckpointHook, on another disk."""
    runner, states = run(tmp_path / 'run', Spiking((2,)), options=SPIKE, interval=1)
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            hook.out_dir = str(tmp_path / 'elsewhere')
    runner.train()
    assert_equal(states[2], states[1])
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_spikes_that_go_on_stop_the_run(tmp_path):
    options = dict(SPIKE, max_rollbacks=2)
    runner, _ = run(tmp_path, Spiking((4, 6, 8)), options=options, interval=1)
    with pytest.raises(RuntimeError, match=r'rises again after 2 rollbacks.*stopped\.pth'):
        runner.train()
    assert len(trace(tmp_path)) == 8  # without the last, in which it was stopped
    assert torch.load(tmp_path / 'stopped.pth')['instability']['rollbacks'] == 2


def test_no_checkpoint_from_before_the_spike(tmp_path):
    """None at all, and only one that holds the risen loss."""
    runner, _ = run(tmp_path / 'none', Spiking((3,)), options=SPIKE, interval=100)
    with pytest.raises(RuntimeError, match='No checkpoint from before the rise is left'):
        runner.train()
    options = dict(SPIKE, interval=2)
    # Saved after step 4, ruined in that step; looked at only after step 5.
    runner, _ = run(tmp_path / 'late', Spiking((4,)), options=options, interval=5)
    with pytest.raises(RuntimeError, match='No checkpoint from before the rise is left'):
        runner.train()
    assert (tmp_path / 'late' / 'iter_5.pth').exists()


def test_smoothed_loss_by_hand(tmp_path):
    runner, _ = run(tmp_path, Faulty('loss', (3,)), options=dict(smoothing=4, max_rise=1e9))
    runner.train()
    mean = lowest = math.nan
    for _, loss in trace(tmp_path):
        loss = float.fromhex(loss)
        if math.isfinite(loss):
            mean = loss if math.isnan(mean) else mean + (loss - mean) / 4
            lowest = min(mean, lowest) if not math.isnan(lowest) else mean
    saved = torch.load(tmp_path / 'iter_14.pth')['instability']
    last = float.fromhex(trace(tmp_path)[-1][1])
    # The checkpoint is of the step before the last.
    assert saved['mean'] + (last - saved['mean']) / 4 == pytest.approx(mean, rel=1e-5)
    assert min(saved['lowest'], mean) == pytest.approx(lowest, rel=1e-5)


def _train_faulty(rank: int, world_size: int, folder: str) -> dict:
    """Only the second process has a bad loss; both roll back to what the first one finds."""
    passes = (5,) if rank == 1 else ()
    os.environ['LOCAL_RANK'] = str(rank)
    results = {}
    for name, model, options in (
        ('faulty', Faulty('loss', passes), {}),
        ('spiking', Spiking((6,) if rank == 1 else ()), SPIKE),
    ):
        runner, states = run(
            Path(folder, name),
            model,
            options=options,
            interval=1,
            launcher='pytorch',
            cfg=dict(model_wrapper_cfg=DDP),
        )
        runner.train()
        results[name] = {
            f'{step} {key}': value
            for step in (4, 5, 6, 14)
            for key, value in states[step]['model'].items()
            if 'running' not in key and 'tracked' not in key  # each its own
        }
        watch = next(hook for hook in runner.hooks if isinstance(hook, InstabilityHook))._watch
        results[f'{name} state'] = watch.state_dict()
    return results


@pytest.mark.dist
def test_processes_skip_and_roll_back_together(tmp_path):
    first, second = pool.run(_train_faulty, 2, str(tmp_path))
    for name in ('faulty', 'spiking'):
        assert first[name].keys() == second[name].keys()
        for key, value in first[name].items():
            assert (value == second[name][key]).all(), key
    for state in (first['faulty state'], second['faulty state']):
        assert (state['skipped'], state['rollbacks']) == (1, 0)
    for state in (first['spiking state'], second['spiking state']):
        assert (state['skipped'], state['rollbacks']) == (0, 1)
    assert first['spiking state'] == second['spiking state']


def _resume_on_two(rank: int, world_size: int, folder: str) -> dict:
    """Counts and smoothed loss at the end of a run, straight or begun, ended and resumed."""
    os.environ['LOCAL_RANK'] = str(rank)
    states, losses = {}, []
    for name, resume, steps in (('straight', False, 15), ('b', False, 7), ('b', True, 15)):
        runner, _ = run(
            Path(folder, name),
            Faulty('loss', (3,)) if not resume else Faulty(),
            options=dict(max_rise=1e9, smoothing=4, interval=1000),
            interval=7,
            launcher='pytorch',
            cfg=dict(model_wrapper_cfg=DDP),
            train_cfg=dict(by_epoch=False, max_iters=steps),
            resume=resume,
        )
        if name == 'straight':
            runner.register_hook(Losses(losses))
        runner.train()
        watch = next(hook for hook in runner.hooks if isinstance(hook, InstabilityHook))._watch
        states[f'{name} {steps}'] = watch.state_dict()
    return dict(states=states, losses=losses)


@pytest.mark.dist
def test_the_smoothed_loss_is_of_all_processes_and_resumed_exactly(tmp_path):
    parts = pool.run(_resume_on_two, 2, str(tmp_path))
    mean = lowest = None
    for pair in zip(*(part['losses'] for part in parts), strict=True):
        loss = sum(pair) / 2
        if math.isfinite(loss):
            mean = loss if mean is None else mean + (loss - mean) / 4
            lowest = mean if lowest is None else min(mean, lowest)
    for part in parts:
        states = part['states']
        assert states['straight 15'] == parts[0]['states']['straight 15']
        assert states['b 15'] == states['straight 15']  # bit for bit
        assert states['straight 15']['mean'] == pytest.approx(mean, rel=1e-5)
        assert states['straight 15']['lowest'] == pytest.approx(lowest, rel=1e-5)


def test_the_bound_is_kept_whatever_the_interval(tmp_path):
    """The interval may be longer than the run; a run in which no step was taken has failed."""
    always = tuple(range(15))
    options = dict(interval=10_000, max_in_a_row=4)
    runner, _ = run(tmp_path / 'row', Faulty('loss', always), options=options)
    with pytest.raises(RuntimeError, match='the last 4 of them in a row'):
        runner.train()
    options = dict(interval=10_000, max_in_a_row=20)
    runner, _ = run(tmp_path / 'short', Faulty('loss', always), options=options)
    with pytest.raises(RuntimeError, match=r'15 steps .* the last 15 of them in a row'):
        runner.train()
    runner, _ = run(tmp_path / 'one', Faulty('loss', always[1:]), options=options)
    runner.train()
    assert runner.message_hub.get_scalar('train/skipped_steps').current() == 14


@pytest.mark.parametrize(
    'options',
    [
        dict(interval=math.nan),
        dict(interval=0),
        dict(interval=2.5),
        dict(interval='10'),
        dict(smoothing=True),
        dict(max_in_a_row=None),
        dict(max_skipped=math.inf),
        dict(max_rollbacks=-1),
        dict(max_rise=math.nan),
        dict(max_rise=0.0),
    ],
    ids=str,
)
def test_settings_that_would_watch_nothing_are_refused(options):
    (name,) = options
    with pytest.raises(ValueError, match=f'InstabilityHook: {name} must be a'):
        InstabilityHook(**options)


class Divergence(Hook):
    """Plants one: a learning rate a thousand times too high, in some steps."""

    priority = 'VERY_HIGH'

    def __init__(self, steps: tuple[int, ...]) -> None:
        self.steps = steps

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self._scale(runner, 1000)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._scale(runner, 1 / 1000)

    def _scale(self, runner: Runner, factor: float) -> None:
        if runner.iter in self.steps:
            for group in runner.optim_wrapper.param_groups:
                group['lr'] *= factor


class Contrasts(Samples):
    """With pictures that differ."""

    def __getitem__(self, index: int) -> dict:
        sample = super().__getitem__(index)['inputs']
        views = [60 * view + 120 for view in sample['views']]
        return dict(inputs=dict(sample, image=60 * sample['image'] + 120, views=views))


class Losses(Hook):
    """Keeps the loss of each step."""

    def __init__(self, kept: list[float]) -> None:
        self.kept = kept

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.kept.append(outputs['loss'].item())


def diverge(rank: int, world_size: int, folder: str, cases: dict[str, dict]) -> dict:
    """Losses of trainings of SLIP in which the weights are thrown far off in step 25 of 60."""
    os.environ['LOCAL_RANK'] = str(rank)
    losses = {}
    for name, case in cases.items():
        losses[name] = []
        model = build()
        model._is_init = True  # keeps its weights
        runner, _ = run(
            Path(folder, name),
            model,
            options=dict(max_rise=1.0, smoothing=3, interval=2),
            watched=case['watched'],
            interval=10,
            hooks=(Divergence((25, 26)), Losses(losses[name])),
            data=dict(dataset=Contrasts(torch.float32), batch_size=8 // world_size),
            train_cfg=dict(by_epoch=False, max_iters=60),
            optim_wrapper=dict(optimizer=dict(FUSED, lr=0.002)),
            param_scheduler=None,
            launcher='pytorch' if world_size > 1 else 'none',
            cfg=dict(model_wrapper_cfg=case['wrapper']),
        )
        runner.train()
        rolled = runner.message_hub.log_scalars.get('train/rollbacks')
        losses[f'{name} rollbacks'] = rolled.current() if rolled else 0
    return losses


@pytest.mark.dist
@pytest.mark.parametrize('world_size', [1, 2])
def test_a_planted_divergence_is_rolled_back_and_training_recovers(
    tmp_path, monkeypatch, world_size
):
    one = world_size == 1
    wrappers = dict(one={}) if one else dict(ddp=DDP, sharded=dict(type='mmslip.FullyShard'))
    cases = {name: dict(watched=True, wrapper=wrapper) for name, wrapper in wrappers.items()}
    cases['alone'] = dict(watched=False, wrapper={} if one else DDP)
    if one:
        monkeypatch.setenv('LOCAL_RANK', '0')
        parts = [diverge(0, 1, str(tmp_path), cases)]
    else:
        parts = pool.run(diverge, world_size, str(tmp_path), cases)
    for part in parts:
        alone = np.array(part['alone'])
        assert alone[20:25].mean() < 4.0  # it had learnt something,
        assert alone[-10:].mean() > 4.7  # and is at chance, ln 8 + ln 15, to the end
        for name in wrappers:
            losses = np.array(part[name])
            assert part[f'{name} rollbacks'] == 1
            # Healthy steps are the same; steps 25 and 26 are seen in the look after step 27.
            assert (losses[:28] == alone[:28]).all() or name == 'sharded'
            assert losses[28:38].mean() < 4.0
            assert losses[-10:].mean() < 2.7
            np.testing.assert_allclose(losses, part[next(iter(wrappers))], rtol=0.05)
