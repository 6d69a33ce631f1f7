"""Evaluate a checkpoint: ``mmslip test CONFIG CHECKPOINT``; see ``--help``."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

import mmengine
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mmslip.apis.model import for_inference, shipped_weights
from mmslip.cli.config import add_config_arguments, apply_checked, read_config
from mmslip.cli.errors import plain_errors
from mmslip.cli.launch import add_launcher_arguments, processes
from mmslip.cli.own_data import add_data_arguments, check_data_arguments, use_data
from mmslip.cli.parser import CommandParser
from mmslip.cli.screen import short_screen
from mmslip.cli.setting_errors import name_settings
from mmslip.evaluation import stated_tokenizer
from mmslip.utils.config import image_size_of, load_config
from mmslip.utils.files import from_here
from mmslip.utils.parts import find_all
from mmslip.weights import import_weights

# Settings that a test has no use for; they may be of another model.
OF_TRAINING = (
    *('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr'),
    *('val_dataloader', 'val_cfg', 'val_evaluator'),
)


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser('test', description='Evaluate a checkpoint.')
    add_config_arguments(parser)
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help="checkpoint file, 'pretrained' for weights that come with mmslip, or nothing where "
        'CONFIG is a folder of weights and their description',
    )
    parser.add_argument(
        '--model', metavar='CONFIG', help='take the model of this config, such as that of training'
    )
    parser.add_argument(
        '--tasks', nargs='+', metavar='NAME', help='only these sets of an EvaluationSuite'
    )
    add_data_arguments(parser)
    parser.add_argument('--work-dir', help='folder of logs and results')
    parser.add_argument('--out', help='file for the metrics (.json, .yaml or .pkl)')
    parser.add_argument(
        '--amp', action='store_true', help='evaluate under automatic mixed precision'
    )
    add_launcher_arguments(parser)
    args = parser.parse_args(arguments)
    check_data_arguments(parser, args)
    if args.data and (args.model or args.tasks):
        parser.error('--model and --tasks go with the sets of CONFIG, in whose place --data stands')
    if args.checkpoint is None and not Path(args.config).is_dir():
        parser.error("CHECKPOINT is missing: a file, or 'pretrained'")
    return args


def use_model(cfg: Config, path: str) -> None:
    """Take the model of another config, its image size and its tokeniser."""
    trained = load_config(path)
    cfg.model = trained.model
    cfg.image_size = image_size_of(trained)
    spread_tokenizer(cfg, stated_tokenizer(trained))


def spread_tokenizer(cfg: Config, tokenizer: dict | None) -> None:
    """Write a tokeniser to all parts that have one and state none."""
    for kind in ('TokenizeCaption', 'TokenizeCaptions', 'ZeroShotHook'):
        for part in find_all(cfg, kind) if tokenizer else ():
            part['tokenizer'] = part.get('tokenizer') or tokenizer


def read(config: str) -> Config:
    """A config file, or what a folder of weights says of itself."""
    if Path(config).is_dir():
        return Config(dict(import_weights(config).spec.config(), default_scope='mmpretrain'))
    return read_config(config)


@plain_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    cfg = read(args.config)
    if args.model:
        use_model(cfg, args.model)
    if args.data:
        apply_checked(cfg, args.cfg_options)
        use_data(cfg, args)
    spread_tokenizer(cfg, stated_tokenizer(cfg))  # which may stand in the training data alone
    for name in OF_TRAINING:
        cfg.pop(name, None)
    if not args.data:
        needs = ['model', 'test_dataloader', 'test_cfg', 'test_evaluator']
        apply_checked(cfg, args.cfg_options, needs)
    for_inference(cfg.model)
    if args.tasks:
        if 'EvaluationSuite' not in cfg.test_dataloader.dataset.type:
            raise SystemExit(
                '--tasks needs a config with an EvaluationSuite, such as '
                'configs/benchmarks/zero_shot/zero_shot_26.py.'
            )
        cfg.test_dataloader.dataset.tasks = args.tasks
    if args.work_dir:
        cfg.work_dir = args.work_dir
    cfg.setdefault('work_dir', str(Path('work_dirs', Path(cfg.filename or args.config).stem)))
    cfg.load_from = args.checkpoint or args.config
    if args.checkpoint == 'pretrained':
        cfg.load_from = str(shipped_weights(Path(args.model or cfg.filename).stem))
    # Random weights in the place of missing ones would only look like a bad model.
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='mmslip.CompleteWeightsHook')]
    if args.amp:
        cfg.test_cfg.fp16 = True
    with processes(cfg, args.launcher):
        with name_settings(cfg), short_screen():
            metrics = Runner.from_cfg(cfg).test()
        if args.out:
            mmengine.dump(metrics, args.out)
        results = Path(cfg.work_dir, 'results.jsonl')
        if is_main_process() and results.is_file():
            print(f'Done: figures in {from_here(results)}\nNext:')
            print(f'  mmslip report {shlex.quote(from_here(results.parent))}')
