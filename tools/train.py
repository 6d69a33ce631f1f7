"""Train a model: ``python tools/train.py CONFIG``; see ``--help``."""

import argparse
import os
from pathlib import Path

# Read once, when PyTorch loads OpenMP: threads that wait for each other sleep instead of spinning.
# Spinning, they take the cores of the data workers; on a busy CPU a step took four times as long
# and more.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from mmslip.engine.launch import add_launcher_arguments, prepare_environment


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model.')
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder of logs and checkpoints')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from a checkpoint; without a path, from the newest whole one in the work dir',
    )
    parser.add_argument(
        '--amp',
        nargs='?',
        const='bf16',
        choices=['bf16', 'fp16'],
        help='mixed precision: bf16 (default; GPU or CPU) or fp16 (GPU, with a gradient scaler)',
    )
    parser.add_argument(
        '--compile', action='store_true', help='compile the transformer blocks (torch.compile)'
    )
    parser.add_argument('--no-validate', action='store_true', help='skip validation')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by (actual batch size / base_batch_size of the config)',
    )
    parser.add_argument('--no-pin-memory', action='store_true', help='keep batches in plain memory')
    parser.add_argument(
        '--no-persistent-workers', action='store_true', help='restart data workers every epoch'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config, KEY=VALUE ..., e.g. optim_wrapper.optimizer.lr=1e-3',
    )
    add_launcher_arguments(parser)
    return parser.parse_args()


def apply_args(cfg: Config, args: argparse.Namespace) -> None:
    """Write the command line into the config."""
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    cfg.setdefault('work_dir', str(Path('work_dirs', Path(args.config).stem)))
    if args.resume:
        if args.resume != 'auto' and Path(args.resume).is_dir():
            raise SystemExit(
                f'--resume takes a checkpoint, and {args.resume} is a folder: to go on from the '
                f'newest checkpoint in it, say --work-dir {args.resume} --resume.'
            )
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.amp == 'bf16':
        cfg.optim_wrapper.type = 'mmslip.BF16OptimWrapper'
    elif args.amp == 'fp16':
        cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')
    if args.compile:
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='mmslip.CompileHook')]
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        # Without a score there is no best checkpoint.
        cfg.default_hooks.checkpoint.pop('save_best', None)
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise SystemExit(f'{args.config} has no auto_scale_lr.base_batch_size to scale from.')
        cfg.auto_scale_lr.enable = True
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(name):
            loader = cfg[name]
            loader.setdefault('pin_memory', torch.cuda.is_available() and not args.no_pin_memory)
            workers = loader.get('num_workers', 0) > 0
            loader.setdefault('persistent_workers', workers and not args.no_persistent_workers)


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    apply_args(cfg, args)
    prepare_environment(cfg, args.launcher)
    Runner.from_cfg(cfg).train()


if __name__ == '__main__':
    main()
