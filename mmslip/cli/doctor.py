"""Examine a training job before it starts: ``mmslip doctor CONFIG``; see ``--help``."""

import argparse
import copy
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import nn
from torch.utils.data import DataLoader

from mmslip import analysis
from mmslip.analysis import Finding
from mmslip.cli.config import add_config_arguments, apply_checked, read_config
from mmslip.cli.errors import one_line, plain_errors
from mmslip.cli.parser import CommandParser, at_least
from mmslip.cli.setting_errors import name_settings
from mmslip.datasets import StreamDataset
from mmslip.engine import captioned_rows, check_batches
from mmslip.registry import MODELS, TOKENIZERS
from mmslip.utils.config import image_size_of
from mmslip.utils.parts import find_all

_COLOURS = {'ok': 'green', 'warn': 'yellow', 'fail': 'red'}


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        'doctor',
        description='Examine data, config, speed and memory of a training job in about a minute. '
        'The exit status is 1 if a check fails.',
    )
    add_config_arguments(parser)
    parser.add_argument(
        '--gpus',
        type=at_least(1),
        default=1,
        help='number of processes the job will have (default: 1)',
    )
    parser.add_argument(
        '--samples', type=at_least(1), default=1000, help='captions examined, and images at most'
    )
    parser.add_argument(
        '--seconds', type=float, default=10, help='time for each measurement of speed'
    )
    return parser.parse_args(arguments)


class _Report:
    """Findings, printed as they come. A check that raises is one of them, and the next one follows.

    Args:
        cfg: The config, whose settings errors are traced to.
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.findings: list[Finding] = []
        self.console = Console()

    def check(self, name: str, check: Callable[..., Finding], *args: Any) -> None:
        """Print the finding of a check."""
        try:
            finding = check(*args)
        except Exception as error:
            finding = Finding(name, f'check {name} failed: {one_line(error)}', 'warn')
        self.add(finding)

    def need(self, name: str, make: Callable[[], Any], remedy: str = '') -> Any:
        """What other checks need; None and a finding where training would stop here, too."""
        try:
            with name_settings(self.cfg):
                return make()
        except (Exception, SystemExit) as error:
            text = str(error) if isinstance(error, SystemExit) else one_line(error)
            self.add(Finding(name, text, 'fail', remedy))
        return None

    def add(self, finding: Finding) -> None:
        """Print a finding: verdict, check, what was seen, and the remedy below it."""
        self.findings.append(finding)
        row = Table.grid(padding=(0, 2, 0, 0))
        row.add_column(width=4)
        row.add_column(width=20)
        row.add_column(overflow='fold')
        text = Text(finding.finding)
        if finding.remedy:
            text.append(f'\n-> {finding.remedy}', 'bold')
        colour = _COLOURS[finding.verdict]
        row.add_row(Text(finding.verdict, colour), Text(finding.check), text)
        self.console.print(row)

    def failed(self) -> bool:
        """Print the sum; returns whether a check failed."""
        verdicts = [finding.verdict for finding in self.findings]
        warned, failed = verdicts.count('warn'), verdicts.count('fail')
        self.console.print(f'{len(verdicts)} findings: {failed} fail, {warned} warn.')
        return failed > 0


def check_data(report: _Report, loader: DataLoader, rows: int, gpus: int, number: int) -> None:
    """Check the training data.

    Args:
        report: Takes the findings.
        loader: Its loader.
        rows: Samples with a caption in a batch of one process.
        gpus: Number of processes the job will have.
        number: Samples that are looked at.
    """
    cfg, dataset = report.cfg, loader.dataset
    report.check('readable samples', analysis.check_readable, dataset, min(number, 200))
    streamed = isinstance(dataset, StreamDataset)
    if streamed:
        report.check('shards of the stream', analysis.check_shards, loader, gpus)
    else:
        report.check('last batch', analysis.check_last_batch, loader, gpus)
    report.check('rows in memory', analysis.check_rows, dataset)
    head, batch = cfg.model.get('head') or {}, loader.batch_size * gpus
    matched = head.get('match_duplicates', False)
    report.check('repeated images', analysis.check_repeats, dataset, batch, 5.0, matched)
    size = image_size_of(cfg)
    if size:
        report.check('stored images', analysis.check_stored_sizes, dataset, size)
    tokenize = next(find_all(cfg.train_dataloader, 'TokenizeCaption'), None)
    if tokenize is None:
        return
    captions = report.need('captions', lambda: analysis.draw_captions(dataset, number))
    if captions:
        tokenizer = tokenize.get('tokenizer') or dict(type='mmslip.CLIPTokenizer')
        tokenizer = report.need('tokenizer', lambda: TOKENIZERS.build(tokenizer))
        report.check('caption length', analysis.check_captions, captions, tokenizer)
        report.check('words', analysis.check_words, captions, tokenizer)
        batch, augmented = rows * gpus * tokenize.get('number', 1), bool(tokenize.get('augment'))
        report.check(
            'duplicate captions', analysis.check_duplicates, captions, batch, head, augmented
        )


def _captioned(loader: DataLoader) -> int:
    """Rows with a caption in a batch of one process."""
    streamed = isinstance(loader.dataset, StreamDataset)
    return loader.batch_size if streamed else round(captioned_rows(loader))


def check_cost(
    report: _Report, model: nn.Module, loader: DataLoader, args: argparse.Namespace, steps: int
) -> None:
    """Check views, speed, memory and time, on a batch and some steps.

    Args:
        report: Takes the findings.
        model: The model, which is changed.
        loader: The loader of the training data.
        args: The command line.
        steps: Steps of the training.
    """
    cfg, device = report.cfg, get_device()
    measured = report.need('speed', lambda: analysis.measure_loader(loader, args.seconds))
    if measured is None:
        return
    speed, batch = measured
    report.check('halves and data', analysis.check_halves, model, loader.dataset, batch)
    model = model.to(device)
    report.check('views and tower', analysis.check_views, model, batch)
    cost = report.need('training step', lambda: _measure(cfg, model, batch))
    training = cost and cost.samples_per_s
    report.check('speed', analysis.check_loader_speed, speed, training, f'the {device}')
    if cost is None:
        return
    if device == 'cuda':
        available = torch.cuda.get_device_properties(0).total_memory
    else:
        available = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    report.check('memory', analysis.check_memory, cost, available)
    samples = steps * loader.batch_size
    shared = device == 'cpu' or not loader.num_workers
    report.check(
        'time to finish', analysis.check_time, speed.samples_per_s, training, samples, shared
    )


def _measure(cfg: Config, model: nn.Module, batch: dict) -> analysis.Cost:
    """Speed and memory of training steps."""
    wrapper = copy.deepcopy(cfg.optim_wrapper)
    wrapper.pop('accumulative_counts', None)
    if get_device() == 'cpu' and wrapper.get('type') == 'AmpOptimWrapper':  # needs a GPU
        wrapper = dict(wrapper, type='OptimWrapper')
        for option in ('dtype', 'loss_scale', 'use_fsdp'):
            wrapper.pop(option, None)
    optim_wrapper = build_optim_wrapper(model, wrapper)
    return analysis.measure_training(
        model, optim_wrapper, batch, chunk_size=cfg.model.get('chunk_size')
    )


def _load(cfg: Config) -> DataLoader:
    return Runner.build_dataloader(copy.deepcopy(cfg.train_dataloader), seed=0)


def _steps(loader: DataLoader, gpus: int) -> int:
    """Steps of an epoch of ``gpus`` processes."""
    mine = len(loader.dataset) // gpus
    return mine // loader.batch_size if loader.drop_last else -(-mine // loader.batch_size)


def _apply(cfg: Config, options: dict | None) -> None:
    """Write the command line into the config, the more so where settings are refused."""
    try:
        apply_checked(cfg, options, ['model', 'train_dataloader', 'train_cfg', 'optim_wrapper'])
    except SystemExit:
        cfg.merge_from_dict(options or {})
        raise


@plain_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    cfg = read_config(args.config)
    report = _Report(cfg)
    report.need('settings', lambda: _apply(cfg, args.cfg_options))
    loader = report.need('data set', lambda: _load(cfg), 'see docs/data.md')
    model = report.need('model', lambda: MODELS.build(cfg.model))
    if loader is not None:
        rows = report.need('captioned samples', lambda: _captioned(loader)) or 0
        check_data(report, loader, rows, args.gpus, args.samples)
        steps = _steps(loader, args.gpus)
        report.check('length', analysis.check_length, cfg, steps, len(loader.dataset), args.gpus)
        report.check('warm-up and schedule', analysis.check_schedule, cfg, steps)
    report.check('aspect ratio', analysis.check_aspect, cfg)
    report.check('learning rate', analysis.check_learning_rate, cfg, args.gpus)
    report.check('faults of other code', analysis.check_official, cfg, args.gpus)
    report.check('hooks', analysis.check_hooks, cfg)
    report.check('checkpoints', analysis.check_checkpoints, cfg)
    if model is not None:
        size, synced = cfg.train_dataloader.batch_size, bool(cfg.get('sync_bn'))
        report.check('batch norm', analysis.check_batch_norm, model, size, args.gpus, synced)
        report.check('activation', analysis.check_activation, model, cfg)
        report.check('exports', analysis.check_exports, cfg)
        report.check('validation', analysis.check_validation, cfg, model)
    if model is not None and loader is not None:
        report.need('batches', lambda: check_batches(model, loader, args.gpus))
        report.check(
            'negatives', analysis.check_negatives, model, rows, loader.batch_size, args.gpus
        )
        check_cost(report, model, loader, args, analysis.total_steps(cfg, steps))
    raise SystemExit(report.failed())
