"""Leaving a run so that it can go on."""

from pathlib import Path

from mmengine.dist import barrier
from mmengine.runner import Runner

from mmslip.engine.storage import wait_for_writes

__all__ = ['save_before_stopping']


def save_before_stopping(runner: Runner, in_step: bool) -> Path:
    """Save the whole state as ``stopped.pth`` in the work folder, on all processes together.

    Args:
        runner: The run; ``--resume`` finds the file.
        in_step: Whether this is called by a hook after a step, when the loop has not counted it
            yet.

    Returns:
        The file. When this returns it is whole, so that no process ends before it is.
    """
    path = Path(runner.work_dir, 'stopped.pth')
    meta = dict(epoch=runner.epoch, iter=runner.iter + in_step)
    # Sharded states have to be gathered here or in `before_save_checkpoint`: the first process
    # alone goes into `save_checkpoint`.
    runner.save_checkpoint(
        str(path.parent), path.name, meta=meta, backend_args=dict(backend='atomic')
    )
    wait_for_writes()
    barrier()
    # Curves are buffered; no more hooks will run.
    runner.visualizer.close()
    return path
