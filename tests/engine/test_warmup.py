"""A warm-up that states its first learning rate."""

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmslip.registry import PARAM_SCHEDULERS


def build(*rates: float, **options: float) -> tuple[torch.optim.Optimizer, object]:
    groups = [dict(params=[nn.Parameter(torch.zeros(1))], lr=rate) for rate in rates]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    cfg = dict(type='mmslip.WarmupLR', begin=0, end=1, convert_to_iter_based=True, **options)
    default_args = dict(optimizer=OptimWrapper(optimizer), epoch_length=5)
    return optimizer, PARAM_SCHEDULERS.build(cfg, default_args=default_args)


@pytest.mark.parametrize('lr', [3e-3, 5e-4, 1e-5])
def test_any_learning_rate_is_reached_from_the_same_start(lr):
    """`LinearLR(start_factor=1e-6 / 3e-3)` starts lower when a child config lowers the rate."""
    optimizer, scheduler = build(lr, start=1e-6)
    found = []
    for _ in range(5):
        found.append(optimizer.param_groups[0]['lr'])
        scheduler.step()
    assert found == pytest.approx([1e-6 + step / 4 * (lr - 1e-6) for step in range(5)], rel=1e-12)


def test_groups_start_at_the_same_fraction():
    optimizer, _ = build(1e-3, 4e-3, start=1e-6)
    assert [group['lr'] for group in optimizer.param_groups] == pytest.approx([2.5e-7, 1e-6])


def test_a_start_above_the_learning_rate():
    with pytest.raises(ValueError, match=r'starts at 0.01, above optim_wrapper.optimizer.lr, 0.00'):
        build(1e-3, start=1e-2)
