"""What a run is, when it begins, and where everything is, when it ends."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.device import get_device
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from mmslip.engine.checkpointing.storage import wait_for_writes
from mmslip.engine.unwrap import unwrap
from mmslip.registry import HOOKS
from mmslip.utils.files import from_here

__all__ = ['RunSummaryHook', 'best_checkpoints']


@HOOKS.register_module()
class RunSummaryHook(Hook):
    """Log model, data and length at the start; at the end the best score, pictures and files."""

    # After the checks, which may refuse the run, and before whatever takes its time.
    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Log what will run."""
        for line in _plan(runner):
            runner.logger.info(line)

    def after_train(self, runner: Runner) -> None:
        """Log what there is now, when the last checkpoint is on the disk."""
        wait_for_writes()
        lines = [
            ('best', f'{metric} {score:.2f} in {from_here(path)}')
            for metric, score, path in best_checkpoints(runner)
        ]
        last = runner.message_hub.runtime_info.get('last_ckpt')
        if last:
            lines.append(('last', from_here(last)))
        pictures = sorted(
            Path(runner.log_dir).glob('vis_data/vis_image/*.png'),
            key=lambda path: path.stat().st_mtime,
        )
        if pictures:
            lines.append(('picture', from_here(pictures[-1])))
        lines.append(('log', from_here(Path(runner.log_dir, f'{runner.timestamp}.log'))))
        lines.append(('curves', f'tensorboard --logdir {from_here(runner.work_dir)}'))
        text = ''.join(f'\n  {name:<8} {what}' for name, what in lines)
        runner.logger.info(f'Done: {runner.iter:,} steps.{text}')


def best_checkpoints(runner: Runner) -> list[tuple[str, float, str]]:
    """Metrics that the best checkpoint was kept of: name, score, file."""
    info = runner.message_hub.runtime_info
    found = []
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best:
            names = hook.key_indicators
            for name in names:
                end = '' if len(names) == 1 else f'_{name}'
                if f'best_score{end}' in info:
                    found.append((name, info[f'best_score{end}'], info[f'best_ckpt{end}']))
    return found


def _plan(runner: Runner) -> Iterator[str]:
    """Lines on folder, model, data and length of a training."""
    yield f'{runner.experiment_name}: everything goes to {from_here(runner.work_dir)}'
    model = unwrap(runner.model)
    total = sum(value.numel() for value in model.parameters())
    processes = f', {runner.world_size} processes' if runner.world_size > 1 else ''
    name, size = type(model).__name__, f'{total / 1e6:.1f} M parameters'
    yield f'model: {name}, {size} on {get_device()}{processes}'
    loader, loop = runner.train_dataloader, runner.train_loop
    steps = f'{runner.max_iters:,} steps'
    if runner.max_epochs:
        steps = f'{len(loader):,} steps an epoch, {steps} in {runner.max_epochs} epochs'
    size = getattr(loader.batch_sampler, 'batch_size', None) or loader.batch_size
    rows = f'{len(loader.dataset):,} samples' if hasattr(loader.dataset, '__len__') else 'a stream'
    yield f'data: {rows} in batches of {size} x {runner.world_size}: {steps}'
    if runner.val_loop is not None:
        unit = 'epoch' if runner.max_epochs else 'step'
        every = f'{loop.val_interval} {unit}s' if loop.val_interval > 1 else unit
        yield f'validation: {len(runner.val_dataloader.dataset):,} samples, after every {every}'
