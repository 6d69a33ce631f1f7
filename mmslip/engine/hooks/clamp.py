"""Parameters that are kept within bounds."""

from itertools import chain

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmslip.engine.mmengine_compat import averages_of
from mmslip.registry import HOOKS

__all__ = ['ClampHook']


@HOOKS.register_module()
class ClampHook(Hook):
    """Bring bounded parameters back into their bounds after each optimiser step.

    Every module with a method ``clamp_parameters`` is asked, such as
    :class:`mmslip.models.CLIPHead`, whose logit scale is at most 100. The values that the next step
    uses are those that are averaged (``EMAHook``) and saved. Sharded parameters are clamped shard
    by shard.
    """

    # Before EMAHook and CheckpointHook, behind SpeedHook.
    priority = 'HIGH'

    def before_train(self, runner: Runner) -> None:
        """Clamp the values that the run starts with, averages included, such as those of a file."""
        self._bounded = _bounded(runner.model)  # looked for once, not in every step
        for module in [*self._bounded, *chain.from_iterable(map(_bounded, averages_of(runner)))]:
            module.clamp_parameters()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Clamp the values of the step."""
        for module in self._bounded:
            module.clamp_parameters()


def _bounded(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if hasattr(module, 'clamp_parameters')]
