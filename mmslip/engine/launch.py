"""What the command line tools share: launchers, and training without a GPU."""

import argparse
import os

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import distributed as dist

__all__ = ['add_launcher_arguments', 'prepare_environment']


def add_launcher_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that torchrun, Slurm and MPI launches pass to every tool."""
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how processes were started; pytorch means torchrun',
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
            'job with torchrun, as tools/dist_train.sh does.'
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
        print_log('No GPU: batch norm is not synchronised between processes.', level=30)
