"""The score of comparing pixels, beside that of the model."""

from collections.abc import Iterable

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmslip.engine.hooks.zero_shot import tasks_of
from mmslip.evaluation import pixel_accuracy
from mmslip.registry import HOOKS

__all__ = ['PixelBaselineHook']


@HOOKS.register_module()
class PixelBaselineHook(Hook):
    """Log, with every validation, what the nearest training image by its pixels would have scored.

    A model that does not pass this line has learned nothing that its data does not show at once.
    The line is computed at the start, see :func:`mmslip.evaluation.pixel_accuracy`, which compares
    every image with every training image: for small data.

    Args:
        side: Images are compared at ``side x side`` pixels.
    """

    # After ZeroShotHook.
    priority = 'VERY_LOW'

    def __init__(self, side: int = 16) -> None:
        self.side = side
        self.scores: dict[str, dict[int, float]] = {}

    def before_train(self, runner: Runner) -> None:
        """Compute the baseline."""
        if runner.val_loop is None or not is_main_process():
            return
        train = runner.train_dataloader.dataset
        for task, part in tasks_of(runner.val_dataloader.dataset).items():
            self.scores[task] = pixel_accuracy(train, part, self.side)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Log both scores."""
        for task, scores in self.scores.items():
            ours = [metrics[f'zero_shot/{task}_top{k}'] for k in scores]
            runner.logger.info(
                f'{task}, {" / ".join(f"top-{k}" for k in scores)}: model {_percent(ours)}, '
                f'nearest training image on {self.side} x {self.side} pixels '
                f'{_percent(scores.values())}'
            )


def _percent(values: Iterable[float]) -> str:
    return ' / '.join(f'{value:.1f}' for value in values) + ' %'
