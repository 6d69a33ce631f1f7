"""Averaged weights: validation sees them, training and checkpoints keep the others."""

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import EMAHook, Hook
from mmpretrain.models.utils import CosineEMA
from torch import Tensor

from mmslip.engine.checkpointing.storage import wait_for_writes
from tests.crashing import EPOCH_LOOP, Regression, assert_equal, make_runner


class Weights(Regression):
    """Predicts its own weights."""

    def forward(self, inputs: Tensor, number: Tensor, mode: str = 'loss') -> object:
        if mode == 'predict':
            return [torch.cat([value.flatten() for value in self.parameters()]).tolist()]
        return super().forward(inputs, number, mode)


class Keep(BaseMetric):
    """Keeps the predictions, and their sum is the metric."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[list[float]] = []

    def process(self, data_batch: object, data_samples: list) -> None:
        self.results.extend(data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        self.kept.append(results[0])
        return dict(score=sum(results[0]))


class ByHand(Hook):
    """Computes the average anew: ``average += 0.1 * (weights - average)`` after every step."""

    priority = 'VERY_HIGH'  # before EMAHook

    def __init__(self) -> None:
        self.average: Tensor | None = None
        self.weights: list[Tensor] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        parts = [value.detach().flatten() for value in runner.model.parameters()]
        self.weights.append(torch.cat(parts).clone())
        if self.average is None:
            self.average = self.weights[-1].clone()
        else:
            self.average += 0.1 * (self.weights[-1] - self.average)


class Averages(Hook):
    """Keeps what the average by hand is at each validation."""

    def __init__(self, by_hand: ByHand) -> None:
        self.by_hand, self.kept = by_hand, []

    def before_val(self, runner) -> None:
        self.kept.append(self.by_hand.average.clone())


def test_validation_sees_the_averaged_weights(tmp_path: Path) -> None:
    metric, by_hand = Keep(), ByHand()
    averages = Averages(by_hand)
    samples = [dict(inputs=torch.ones(2), number=torch.ones(1))]
    validation = dict(
        val_dataloader=dict(
            dataset=samples, batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False)
        ),
        val_evaluator=[metric],
        val_cfg=dict(),
    )
    runner = make_runner(
        tmp_path / 'a', EPOCH_LOOP, model=Weights(), hooks=(by_hand, averages), **validation
    )
    runner.train()
    assert len(metric.kept) == 3
    for number, (seen, average) in enumerate(zip(metric.kept, averages.kept, strict=True)):
        torch.testing.assert_close(torch.tensor(seen), average, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(average, by_hand.weights[5 * number + 4])
    # Training goes on with its own weights, as without a validation.
    alone = make_runner(tmp_path / 'b', EPOCH_LOOP, model=Weights())
    alone.train()
    assert_equal(runner.model.state_dict(), alone.model.state_dict())
    # What a checkpoint offers to others are the averaged ones.
    saved = torch.load(tmp_path / 'a' / 'epoch_3.pth', weights_only=True)
    flat = [saved['state_dict'][name].flatten() for name, _ in runner.model.named_parameters()]
    torch.testing.assert_close(torch.cat(flat), averages.kept[-1], rtol=1e-5, atol=1e-6)
    own = {name.removeprefix('module.'): value for name, value in saved['ema_state_dict'].items()}
    assert_equal(own['last.weight'], runner.model.last.weight.detach())


class Shadowed(Regression):
    """Compares itself with a momentum copy of its last layer, as BYOL and MoCo v3 do."""

    def __init__(self) -> None:
        super().__init__()
        self.shadow = CosineEMA(self.last, momentum=0.5)

    def forward(self, inputs: Tensor, number: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        feats = self.layers(inputs)
        with torch.no_grad():
            self.shadow.update_parameters(self.last)
            target = self.shadow(feats)
        return dict(loss=(self.last(feats) + target - 1).square().mean())


AVERAGES = {
    'plain': dict(momentum=0.1),
    'annealed': dict(ema_type='MomentumAnnealingEMA', momentum=0.01, gamma=3),
    'late': dict(ema_type='StochasticWeightAverage', begin_iter=4, interval=2),
}


@pytest.mark.parametrize('accumulated', [1, 2])
@pytest.mark.parametrize('average', AVERAGES)
def test_counts_of_averages_are_resumed(tmp_path: Path, average: str, accumulated: int) -> None:
    """How far an average moves depends on how often it has."""
    kept = tmp_path / 'kept.pth'
    for name in ('whole', 'resumed'):
        folder = tmp_path / name
        runner = make_runner(
            folder,
            EPOCH_LOOP,
            resume=name == 'resumed',
            model=Shadowed(),
            averages=False,
            hooks=(dict(type='EMAHook', **AVERAGES[average]),),
            optim_wrapper=dict(
                optimizer=dict(type='AdamW', lr=0.05), accumulative_counts=accumulated
            ),
        )
        if name == 'whole':
            runner.register_hook(Copy(8, folder / 'iter_8.pth', kept), 'LOWEST')
        else:
            shutil.copy(kept, folder / 'iter_8.pth')
        runner.train()
        assert runner.model.shadow.steps == 15
    files = [
        torch.load(tmp_path / name / 'epoch_3.pth', weights_only=True)
        for name in ('whole', 'resumed')
    ]
    for part in ('state_dict', 'ema_state_dict'):
        assert_equal(files[0][part], files[1][part])


class Copy(Hook):
    """Keeps the checkpoint of a step."""

    def __init__(self, step: int, source: Path, target: Path) -> None:
        self.step, self.source, self.target = step, source, target

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.step:
            wait_for_writes()
            shutil.copy(self.source, self.target)


def test_an_average_that_moves_once_for_each_step_of_the_optimiser(tmp_path: Path) -> None:
    """By ``interval``, as docs/scaling.md says; the last step is not yet in it."""
    by_hand = ByHand()
    runner = make_runner(
        tmp_path,
        EPOCH_LOOP,
        averages=False,
        hooks=(by_hand, dict(type='EMAHook', momentum=0.1, interval=5)),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.05), accumulative_counts=5),
    )
    runner.train()
    start, first, second = (by_hand.weights[step] for step in (0, 4, 9))
    assert torch.equal(by_hand.weights[3], start)
    expected = start + 0.1 * (first - start)
    expected += 0.1 * (second - expected)
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    found = torch.cat([value.flatten() for value in hook.ema_model.module.parameters()])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
