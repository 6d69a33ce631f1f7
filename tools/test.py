"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT``; see ``--help``."""

import argparse
from pathlib import Path

import mmengine
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from mmslip.engine.launch import add_launcher_arguments, prepare_environment


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint.')
    parser.add_argument('config', help='config file: what is evaluated, and how')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--model', metavar='CONFIG', help='take the model of this config, such as that of training'
    )
    parser.add_argument(
        '--tasks', nargs='+', metavar='NAME', help='only these sets of an EvaluationSuite'
    )
    own = parser.add_argument_group(
        'images of your own', 'zero-shot classification of a folder instead of the sets of CONFIG'
    )
    own.add_argument('--images', type=Path, metavar='FOLDER', help='holds a folder for each class')
    own.add_argument(
        '--classes',
        nargs='+',
        metavar='NAME',
        help='class names in the sorted order of the folders (default: the names of the folders)',
    )
    own.add_argument(
        '--templates',
        nargs='+',
        metavar='TEXT',
        default=['a photo of a {}.'],
        help="prompts with {} for the class name (default: 'a photo of a {}.')",
    )
    parser.add_argument('--work-dir', help='folder of logs and results')
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
    args = parser.parse_args()
    if args.classes and not args.images:
        parser.error('--classes names the folders of --images FOLDER')
    return args


def use_model(cfg: Config, path: str) -> None:
    """Take the model of another config, without what evaluation does not need."""
    model = Config.fromfile(path).model
    if model.get('text_backbone'):
        model.ssl = None
    cfg.model = model


def use_images(cfg: Config, args: argparse.Namespace) -> None:
    """Evaluate on a folder of images instead of the config's sets."""
    if not args.images.is_dir():
        raise SystemExit(f'There is no folder {args.images}.')
    folders = sorted(path.name for path in args.images.iterdir() if path.is_dir())
    classes = args.classes or [name.replace('_', ' ') for name in folders]
    if len(classes) != len(folders) or not folders:
        raise SystemExit(
            f'{args.images} has {len(folders)} folders ({", ".join(folders[:20])}), one for each '
            f'class, but --classes has {len(classes)} names.'
        )
    for folder, name in zip(folders, classes, strict=True):
        print(f'{args.images / folder}: {name}')
    task = dict(
        name=args.images.resolve().name,
        classes=classes,
        labels=folders,
        templates=args.templates,
        metric='top1',
    )
    images = dict(type='CustomDataset', data_root=str(args.images), with_label=True)
    cfg.test_dataloader.dataset = dict(
        type='mmslip.EvaluationSuite',
        datasets=dict(images=dict(type='mmslip.EvaluationDataset', task=task, dataset=images)),
        pipeline=cfg.test_dataloader.dataset.pipeline,
    )


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    if args.model:
        use_model(cfg, args.model)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if cfg.get('test_dataloader') is None:
        raise SystemExit(f'{args.config} has no test_dataloader: it has nothing to evaluate on.')
    if (args.images or args.tasks) and 'EvaluationSuite' not in cfg.test_dataloader.dataset.type:
        raise SystemExit(
            '--images and --tasks need a config with an EvaluationSuite, such as '
            'configs/benchmarks/zero_shot/zero_shot_26.py.'
        )
    if args.images:
        use_images(cfg, args)
    elif args.tasks:
        cfg.test_dataloader.dataset.tasks = args.tasks
    if args.work_dir:
        cfg.work_dir = args.work_dir
    cfg.setdefault('work_dir', str(Path('work_dirs', Path(args.config).stem)))
    cfg.load_from = args.checkpoint
    # Random weights in the place of missing ones would only look like a bad model.
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='mmslip.CompleteWeightsHook')]
    if args.amp:
        cfg.test_cfg.fp16 = True
    prepare_environment(cfg, args.launcher)
    metrics = Runner.from_cfg(cfg).test()
    if args.out:
        mmengine.dump(metrics, args.out)


if __name__ == '__main__':
    main()
