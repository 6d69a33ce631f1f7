"""Leaving a run so that it can go on."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from mmengine.dist import barrier
from mmengine.runner import Runner

from mmslip.engine.checkpointing.storage import wait_for_writes
from mmslip.shipped import find_config

__all__ = ['resume_command', 'save_before_stopping']


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


def resume_command(runner: Runner) -> str | None:
    """The command line that goes on with a run, for its user to copy.

    It is the one that this process was started with, with ``--work-dir`` and ``--resume``. None if
    it cannot be known: the config was not named on the command line (a script of one's own, a
    notebook), or something else than torchrun on one host has started several processes.
    """
    program, *arguments = sys.argv
    config = runner.cfg.filename
    if config is None or not any(_is_name(text, config) for text in arguments):
        return None
    changed = argparse.ArgumentParser(add_help=False)
    changed.add_argument('--resume', nargs='?')
    changed.add_argument('--work-dir')
    _, same = changed.parse_known_args(arguments)
    script = ['-m', 'mmslip'] if Path(program).name == '__main__.py' else [program]
    if runner.distributed:
        if os.environ.get('GROUP_WORLD_SIZE') != '1':  # torchrun's name for the number of hosts
            return None
        start = ['torchrun', f'--nproc_per_node={os.environ["LOCAL_WORLD_SIZE"]}', *script]
    elif program.endswith('.py'):
        start = [sys.orig_argv[0], *script]
    else:
        start = [Path(program).name]
    return shlex.join([*start, *same, '--work-dir', runner.work_dir, '--resume'])


def _is_name(text: str, config: str) -> bool:
    """Whether a word of a command line names a config, as a file or as one of mmslip."""
    try:
        return find_config(text).absolute() == Path(config).absolute()
    except (OSError, ValueError):
        return False
