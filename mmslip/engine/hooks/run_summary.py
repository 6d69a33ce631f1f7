"""One line at the end that says where everything is."""

from pathlib import Path

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmslip.registry import HOOKS

__all__ = ['RunSummaryHook']


@HOOKS.register_module()
class RunSummaryHook(Hook):
    """Log the best score with its checkpoint, the last picture, the log and the work folder."""

    priority = 'LOWEST'

    def after_train(self, runner: Runner) -> None:
        """Log the line."""
        parts = []
        info = runner.message_hub.runtime_info
        if 'best_score' in info:
            parts.append(f'best {info["best_score"]:.2f} in {info["best_ckpt"]}')
        pictures = sorted(
            Path(runner.log_dir).glob('vis_data/vis_image/*.png'),
            key=lambda path: path.stat().st_mtime,
        )
        if pictures:
            parts.append(f'picture {pictures[-1]}')
        parts.append(f'log {Path(runner.log_dir, runner.timestamp + ".log")}')
        parts.append(f'curves: tensorboard --logdir {runner.work_dir}')
        runner.logger.info('Done: ' + ' | '.join(parts))
