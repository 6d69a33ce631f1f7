"""Train a model: ``mmslip train CONFIG``; see ``--help``."""

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

# Read once, when PyTorch loads OpenMP: threads that wait for each other sleep instead of spinning.
# Spinning, they take the cores of the data workers; on a busy CPU a step took four times as long
# and more.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mmslip.analysis.report import read_runs, write_report
from mmslip.cli.config import add_config_arguments, apply_checked, read_config
from mmslip.cli.errors import plain_errors
from mmslip.cli.launch import add_launcher_arguments, processes
from mmslip.cli.parser import CommandParser
from mmslip.cli.screen import short_screen
from mmslip.cli.setting_errors import name_settings
from mmslip.engine import check_batches
from mmslip.engine.checkpointing.find import refuse_to_overwrite
from mmslip.engine.hooks.run_summary import best_checkpoints
from mmslip.engine.unwrap import unwrap
from mmslip.utils.files import from_here


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser('train', description='Train a model.')
    add_config_arguments(parser)
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
    add_launcher_arguments(parser)
    return parser.parse_args(arguments)


def apply_args(cfg: Config, args: argparse.Namespace) -> None:
    """Write the command line into the config."""
    if args.work_dir:
        cfg.work_dir = args.work_dir
    cfg.setdefault('work_dir', str(Path('work_dirs', Path(cfg.filename or args.config).stem)))
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
        hooks = cfg.get('default_hooks') or {}
        speed = hooks.get('speed') or dict(type='mmslip.SpeedHook')
        cfg.default_hooks = {**hooks, 'speed': dict(speed, compile=True)}
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        # Without a score there is no best checkpoint.
        hooks = cfg.get('default_hooks') or {}
        (hooks.get('checkpoint') or {}).pop('save_best', None)
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


@plain_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    cfg = read_config(args.config)
    needs = ['model', 'train_dataloader', 'train_cfg', 'optim_wrapper']
    apply_checked(cfg, args.cfg_options, needs)
    apply_args(cfg, args)
    if not cfg.get('resume'):
        refuse_to_overwrite(cfg.work_dir, cfg.get('load_from'))
    with processes(cfg, args.launcher):
        with name_settings(cfg), short_screen():
            commands = _train(cfg, args.config)
        if is_main_process():
            _report(Path(cfg.work_dir))
            if commands:
                print('Next:', *commands, sep='\n  ')


def _train(cfg: Config, config: str) -> list[str]:
    """Train; the runner and its model are gone afterwards. Returns commands for what was made."""
    runner = Runner.from_cfg(cfg)
    check_batches(runner.model, runner.train_dataloader, runner.world_size)
    runner.train()
    return _next_commands(runner, config)


def _report(work_dir: Path) -> None:
    """Write the page of a run and say where it is."""
    try:
        page, *_ = write_report(read_runs([work_dir]), work_dir / 'report.html')
    except ValueError as error:  # such as a run without a backend that keeps curves
        print(f'No report: {error}')
    else:
        print(f'Report: {from_here(page)}')


def _next_commands(runner: Runner, config: str) -> list[str]:
    """Commands that use the best checkpoint, or the last one."""
    best = [path for _, _, path in best_checkpoints(runner)]
    checkpoint = (*best, runner.message_hub.runtime_info.get('last_ckpt'))[0]
    if checkpoint is None:
        return []
    use = shlex.join([config, from_here(checkpoint)])
    commands = [f'mmslip test {use}'] if runner.cfg.get('test_dataloader') else []
    if getattr(unwrap(runner.model), 'with_text', False):
        return [*commands, f'mmslip classify {use} IMAGES --labels cat dog']
    return [*commands, f'mmslip embed {use} IMAGES OUT_DIR']
