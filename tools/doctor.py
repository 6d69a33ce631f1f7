"""Examine a training job before it starts: ``python tools/doctor.py CONFIG``; see ``--help``."""

import argparse
import copy
import os

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmslip import analysis
from mmslip.analysis import Finding
from mmslip.datasets import StreamDataset
from mmslip.registry import MODELS, TOKENIZERS

_COLOURS = {'ok': 'green', 'warn': 'yellow', 'fail': 'red'}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Examine data, config, speed and memory of a training job in about a minute. '
        'The exit status is 1 if a check fails.'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--gpus', type=int, default=1, help='number of processes the job will have (default: 1)'
    )
    parser.add_argument(
        '--samples', type=int, default=1000, help='captions examined, and images at most'
    )
    parser.add_argument(
        '--seconds', type=float, default=10, help='time for each measurement of speed'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='override settings, KEY=VALUE ...'
    )
    return parser.parse_args()


def check_data(cfg: Config, args: argparse.Namespace) -> tuple[list[Finding], dict | None, float]:
    """Findings on the data, a batch of it, and the samples a second of the loader."""
    try:
        loader = Runner.build_dataloader(copy.deepcopy(cfg.train_dataloader), seed=0)
        findings = [analysis.check_readable(loader.dataset, min(args.samples, 200))]
    except (ValueError, OSError) as error:
        return [Finding('data set', str(error), 'fail', 'see docs/data.md')], None, 0.0
    streamed = isinstance(loader.dataset, StreamDataset)
    check_split = analysis.check_shards if streamed else analysis.check_last_batch
    findings += [check_split(loader, args.gpus), analysis.check_rows(loader.dataset)]
    tokenizers = list(analysis.find_all(cfg.train_dataloader, 'TokenizeCaption'))
    captions = analysis.draw_captions(loader.dataset, args.samples) if tokenizers else []
    if captions:
        tokenizer = tokenizers[0].get('tokenizer') or dict(type='mmslip.CLIPTokenizer')
        findings += [
            analysis.check_captions(captions, TOKENIZERS.build(tokenizer)),
            analysis.check_duplicates(captions, loader.batch_size * args.gpus),
        ]
    if any(finding.verdict == 'fail' for finding in findings):
        return findings, None, 0.0
    speed, batch = analysis.measure_loader(loader, args.seconds)
    return findings, batch, speed


def check_model(cfg: Config, args: argparse.Namespace, batch: dict | None, speed: float) -> list:
    """Findings on the model and on what it takes."""
    model = MODELS.build(cfg.model)
    size = cfg.train_dataloader.batch_size
    findings = [
        analysis.check_batch_norm(model, size, args.gpus, bool(cfg.get('sync_bn'))),
        analysis.check_activation(model, cfg),
    ]
    if batch is None:
        return findings
    device = get_device()
    wrapper = copy.deepcopy(cfg.optim_wrapper)
    wrapper.pop('accumulative_counts', None)
    if device == 'cpu' and wrapper.get('type') == 'AmpOptimWrapper':  # needs a GPU
        wrapper = dict(wrapper, type='OptimWrapper')
        for option in ('dtype', 'loss_scale', 'use_fsdp'):
            wrapper.pop(option, None)
    model = model.to(device)
    cost = analysis.measure_training(
        model,
        build_optim_wrapper(model, wrapper),
        batch,
        chunk_size=cfg.model.get('chunk_size'),
    )
    if device == 'cuda':
        available = torch.cuda.get_device_properties(0).total_memory
    else:
        available = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    findings.append(analysis.check_loader_speed(speed, cost.samples_per_s, f'the {device}'))
    findings.append(analysis.check_memory(cost, available))
    return findings


def show(findings: list[Finding]) -> None:
    """Print the table."""
    table = Table(show_lines=True)
    for column in ('check', 'finding', 'verdict', 'remedy'):
        table.add_column(column, overflow='fold')
    for finding in findings:
        colour = _COLOURS[finding.verdict]
        verdict = f'[{colour}]{finding.verdict}[/{colour}]'
        table.add_row(
            escape(finding.check), escape(finding.finding), verdict, escape(finding.remedy)
        )
    Console().print(table)


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    if cfg.get('custom_imports'):
        import_modules_from_strings(**cfg.custom_imports)
    findings, batch, speed = check_data(cfg, args)
    findings += [
        analysis.check_aspect(cfg),
        analysis.check_learning_rate(cfg, args.gpus),
        analysis.check_official(cfg, args.gpus),
        analysis.check_checkpoints(cfg),
    ]
    findings += check_model(cfg, args, batch, speed)
    show(findings)
    raise SystemExit(any(finding.verdict == 'fail' for finding in findings))


if __name__ == '__main__':
    main()
