"""Random numbers that depend on the step, not on the history."""

import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmslip.registry import HOOKS
from mmslip.utils.seed import mix_seed

__all__ = ['StepSeedHook']


@HOOKS.register_module()
class StepSeedHook(Hook):
    """Seed every training step from ``(seed, step, rank)``.

    A resumed run then draws the numbers of an uninterrupted one (dropout, drop path, masks) with
    no random state to save, whatever validation or another hook drew in between. Augmentations
    are seeded for each sample by :class:`mmslip.datasets.VisitSampler`.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Seed Python, NumPy and PyTorch on all devices."""
        seed = mix_seed(runner.seed, runner.iter, get_rank())
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
