"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT``; see ``--help``."""

import argparse
from pathlib import Path

import mmengine
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from mmslip.engine.launch import add_launcher_arguments, prepare_environment


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder of logs')
    parser.add_argument('--out', help='file for the metrics (.json, .yaml or .pkl)')
    parser.add_argument(
        '--amp', action='store_true', help='evaluate under automatic mixed precision'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config, KEY=VALUE ...',
    )
    add_launcher_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if cfg.get('test_dataloader') is None:
        raise SystemExit(f'{args.config} has no test_dataloader: it has nothing to evaluate on.')
    if args.work_dir:
        cfg.work_dir = args.work_dir
    cfg.setdefault('work_dir', str(Path('work_dirs', Path(args.config).stem)))
    cfg.load_from = args.checkpoint
    if args.amp:
        cfg.test_cfg.fp16 = True
    prepare_environment(cfg, args.launcher)
    metrics = Runner.from_cfg(cfg).test()
    if args.out:
        mmengine.dump(metrics, args.out)


if __name__ == '__main__':
    main()
