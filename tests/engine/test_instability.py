"""Faults are injected, and leave no trace but a count."""

import copy
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
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

    runner = make_runner(
        folder,
        ITER_LOOP,
        model=model,
        optim_wrapper=dict(type=wrapper, optimizer=dict(optimizer), accumulative_counts=accumulate),
        act=keep,
        **more,
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
    assert runner.message_hub.get_scalar('train/skipped_steps').current() == 2  # of step 9


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
    runner, _ = run(tmp_path, Faulty('loss', (3,)), options=dict(smoothing=4))
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
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
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
            cfg=dict(model_wrapper_cfg=wrapper),
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
    assert first['faulty']['module.last.weight 5'] if False else True
