"""Launchers of the command lines, and training without a GPU."""

import argparse
import gc
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from torch import distributed as dist

__all__ = ['add_launcher_arguments', 'prepare_environment', 'processes']


def add_launcher_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that torchrun, Slurm and MPI launches pass to every tool."""
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        # torchrun says so in the environment: without a word, each process would train by itself.
        default='pytorch' if 'TORCHELASTIC_RUN_ID' in os.environ else 'none',
        help='how processes were started (default: pytorch under torchrun, otherwise none)',
    )
    # Old launchers pass the rank as an option, torchrun in the environment.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def prepare_environment(cfg: Config, launcher: str) -> None:
    """Write the launcher into ``cfg``, and adapt a distributed run to machines without a GPU.

    There mmengine would select a CUDA device, and ``SyncBatchNorm`` does not exist: processes talk
    over gloo, and batch norm keeps to each process's own samples, which is said in the log.
    """
    cfg.launcher = launcher
    if launcher == 'none' or torch.cuda.is_available():
        return
    if launcher != 'pytorch':
        raise SystemExit(f'--launcher {launcher} needs GPUs; on CPUs use torchrun (pytorch).')
    missing = {'RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'} - os.environ.keys()
    if missing:
        raise SystemExit(
            f'--launcher pytorch lacks {", ".join(sorted(missing))} in the environment: start the '
            'job with torchrun, such as `torchrun --nproc_per_node=2 -m mmslip train CONFIG`.'
        )
    # mmengine initialises only where nobody has before.
    dist.init_process_group('gloo')
    if not cfg.get('model_wrapper_cfg'):
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
    if cfg.get('sync_bn'):
        cfg.sync_bn = None
        if is_main_process():
            print_log('No GPU: batch norm is not synchronised between processes.', level=30)


@contextmanager
def processes(cfg: Config, launcher: str) -> Iterator[None]:
    """Prepare the environment, and leave the process group where the run ends or stops as asked.

    Threads of gloo that are still there when Python ends can abort the process, and the launcher
    then takes a finished run for a failed one. They end with the last reference to the group, and
    the wrapped model holds one in a cycle.
    """
    prepare_environment(cfg, launcher)
    try:
        yield
    except SystemExit as stop:
        traceback.clear_frames(stop.__traceback__)  # where it was raised, the runner is at hand
        _leave()
        raise
    _leave()


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()
