"""Averaged weights: validation sees them, training and checkpoints keep the others."""

from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from torch import Tensor

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
