"""Weigh what an adaptation gains against what it forgets.

    mmslip interpolate ViT-B-32.pt work_dirs/own/epoch_30.pth --config own.py --keep pets.py
    mmslip interpolate weights/clip work_dirs/own/epoch_30.pth --alpha 0.5 --out mixed

Weights (1 - alpha) BEFORE + alpha AFTER (WiSE-FT, Wortsman et al. 2021) are judged by the test sets
of --config and of --keep. The folder gets a table, a plot, and the weights of the alpha with the
best mean of both scores, or of the one that --choose names.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor

from mmslip.analysis.interpolation import Point, best_of, draw_curve, table_of
from mmslip.apis.model import for_inference
from mmslip.cli.config import apply_checked, read_config
from mmslip.cli.errors import plain_errors
from mmslip.cli.parser import CommandParser
from mmslip.cli.screen import short_screen
from mmslip.cli.setting_errors import name_settings
from mmslip.cli.test import OF_TRAINING, spread_tokenizer, use_model
from mmslip.engine.checkpointing.complete_weights import check_complete
from mmslip.evaluation import stated_tokenizer
from mmslip.utils.files import from_here
from mmslip.utils.parts import is_kind
from mmslip.weights.files import write_weights
from mmslip.weights.interpolate import interpolate_weights, read_pair

# Metrics that tasks are judged by, the better first.
_USUAL = ('zero_shot/mean', '_top1', '_t2i_r1')


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        'interpolate', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('before', help='weights before the adaptation: a file or folder')
    parser.add_argument('after', help='weights after it: a checkpoint')
    parser.add_argument(
        '--alpha',
        type=float,
        nargs='+',
        default=[0, 0.25, 0.5, 0.75, 1],
        help='parts of AFTER (default: 0 0.25 0.5 0.75 1)',
    )
    parser.add_argument('--config', help='experiment of the adaptation, whose test sets judge')
    parser.add_argument(
        '--keep', metavar='CONFIG', help='config whose test sets show what is forgotten'
    )
    parser.add_argument(
        '--metric', help='that judges --config (default: what its best checkpoint is chosen by)'
    )
    parser.add_argument('--keep-metric', metavar='METRIC', help='that judges --keep')
    parser.add_argument('--choose', type=float, metavar='ALPHA', help='write these weights')
    parser.add_argument(
        '--out', type=Path, default=Path('interpolation'), help='folder (default: interpolation)'
    )
    args = parser.parse_args(arguments)
    if args.config is None and (args.keep or len(args.alpha) > 1):
        parser.error('without --config nothing is judged: give it, or one --alpha and no --keep')
    if args.choose is not None and args.choose not in args.alpha:
        parser.error(f'--choose {args.choose:g} is none of --alpha')
    return args


@plain_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    before, after = read_pair(args.before, args.after)
    alphas = sorted(set(args.alpha))
    mixed = {alpha: interpolate_weights(before, after, alpha) for alpha in alphas}
    args.out.mkdir(parents=True, exist_ok=True)
    chosen = alphas[0]
    if args.config:
        chosen = _weigh(args, mixed).alpha
    path = args.out / 'model.safetensors'
    write_weights(path, mixed[chosen])
    print(f'{from_here(path)}: weights of alpha {chosen:g}')


def _weigh(args: argparse.Namespace, mixed: Mapping[float, Mapping[str, Tensor]]) -> Point:
    """Judge the weights of every alpha; write table and plot. Returns the point that is chosen."""
    name, own = _scores(_read(args.config), mixed, args.metric, args.out / 'own')
    names, kept = [name], dict.fromkeys(mixed)
    if args.keep:
        cfg = _read(args.keep, args.config)
        name, kept = _scores(cfg, mixed, args.keep_metric, args.out / 'keep')
        names.append(name)
    points = [Point(alpha, own[alpha], kept[alpha]) for alpha in mixed]
    chosen = best_of(points)
    if args.choose is not None:
        chosen = next(point for point in points if point.alpha == args.choose)
    table = table_of(points, names, chosen)
    (args.out / 'interpolation.md').write_text(table, encoding='utf-8')
    draw_curve(points, names, chosen, args.out / 'interpolation.png')
    print(table)
    print(f'{from_here(args.out / "interpolation.png")}: its plot')
    return chosen


def _read(path: str, model: str | None = None) -> Config:
    """A config for its test, with the model of another."""
    cfg = read_config(path)
    if model:
        use_model(cfg, model)
    spread_tokenizer(cfg, stated_tokenizer(cfg))
    for name in OF_TRAINING:
        cfg.pop(name, None)
    apply_checked(cfg, None, ['model', 'test_dataloader', 'test_cfg', 'test_evaluator'])
    for_inference(cfg.model)
    return cfg


def _scores(
    cfg: Config, mixed: Mapping[float, Mapping[str, Tensor]], metric: str | None, work_dir: Path
) -> tuple[str, dict[float, float]]:
    """The metric of a test by its name, and its values for the weights of every alpha."""
    cfg.work_dir, cfg.load_from = str(work_dir), None
    # Its record would be that of one model, and these are several.
    hooks = cfg.get('custom_hooks') or []
    cfg.custom_hooks = [hook for hook in hooks if not is_kind(hook, 'EvaluationRecordHook')]
    scores = {}
    with name_settings(cfg), short_screen():
        runner = Runner.from_cfg(cfg)
        for alpha, weights in mixed.items():
            runner.model.load_state_dict(check_complete(runner.model, weights), strict=False)
            metrics = runner.test()
            metric = metric or _usual_metric(cfg, metrics)
            if metric not in metrics:
                raise ValueError(
                    f'{cfg.filename} has no metric {metric}: it has {", ".join(metrics)}.'
                )
            scores[alpha] = float(metrics[metric])
    return metric, scores


def _usual_metric(cfg: Config, metrics: Mapping[str, float]) -> str:
    """The metric that the best checkpoint is chosen by, or the first that a task is judged by."""
    saved = cfg.get('default_hooks', {}).get('checkpoint', {}).get('save_best')
    usual = (name for end in _USUAL for name in metrics if name.endswith(end))
    return saved if saved in metrics else next(usual, next(iter(metrics)))
