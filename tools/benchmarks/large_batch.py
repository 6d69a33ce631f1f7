"""Memory and time of batches in slices (``SLIP(chunk_size=...)``) against whole ones.

``python tools/benchmarks/large_batch.py`` takes training steps of a small SLIP on random pictures
and captions. Memory is the peak of a fresh process for each batch size: of the whole process on a
CPU, of the allocator on a GPU. Time is compared in one process, whole and sliced steps in turn.
With ``--config`` it does so for the model of a config.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

import mmslip.models  # noqa: F401  (registers them)
from mmslip.engine.optim import BF16OptimWrapper
from mmslip.registry import MODELS

IMAGE_SIZE, VOCABULARY = 64, 4096


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--config', help='config of the model; default: a small SLIP')
    parser.add_argument('--batches', type=int, nargs='+', default=[128, 256, 512])
    parser.add_argument('--chunk-size', type=int, default=64)
    parser.add_argument('--time-batch', type=int, default=256, help='batch whose steps are timed')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--amp', action='store_true', help='bfloat16')
    parser.add_argument('--measure', type=int, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def small_slip() -> dict:
    """Six layers of 192 channels on 8 x 8 patches; SLIP's proportions in a small head."""
    width = 192
    projection = dict(type='mmslip.LinearProjection', in_channels=width, out_channels=128)
    return dict(
        type='mmslip.SLIP',
        backbone=dict(
            type='mmslip.VisionTransformer',
            arch=dict(embed_dims=width, num_layers=6, num_heads=3, feedforward_channels=4 * width),
            img_size=IMAGE_SIZE,
            patch_size=8,
        ),
        neck=projection,
        text_backbone=dict(
            type='mmslip.TextTransformer',
            vocab_size=VOCABULARY,
            width=width,
            num_layers=4,
            num_heads=3,
        ),
        text_neck=projection,
        head=dict(type='mmslip.CLIPHead'),
        ssl=dict(
            type='mmslip.SimCLR',
            neck=dict(
                type='NonLinearNeck',
                in_channels=width,
                hid_channels=512,
                out_channels=128,
                num_layers=3,
                with_bias=True,
                with_last_bias=True,
                with_last_bn=False,
                with_avg_pool=False,
                norm_cfg=dict(type='BN1d'),
            ),
            head=dict(type='mmslip.SimCLRHead'),
        ),
    )


class Steps:
    """Training steps of one model."""

    def __init__(self, args: argparse.Namespace, chunk_size: int | None) -> None:
        init_default_scope('mmpretrain')
        config = Config.fromfile(args.config).model if args.config else small_slip()
        config['chunk_size'] = chunk_size
        torch.manual_seed(0)
        self.model: nn.Module = MODELS.build(config).to(get_device()).train()
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.wrapper = (BF16OptimWrapper if args.amp else OptimWrapper)(optimizer)

    def take(self, batch: int) -> None:
        size = getattr(self.model.backbone, 'img_size', (IMAGE_SIZE, IMAGE_SIZE))
        inputs = dict(image=torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8))
        if self.model.ssl is not None:
            inputs['views'] = [inputs['image'].flip(-1), inputs['image'].flip(-2)]
        if self.model.with_text:
            text = self.model.text_backbone
            last = text.token_embedding.num_embeddings - 1
            inputs['text'] = torch.randint(1, last, (batch, text.context_length))
            inputs['text'][:, -1] = last
        self.model.train_step(dict(inputs=inputs), self.wrapper)
        if torch.cuda.is_available():
            torch.cuda.synchronize()


def measure(args: argparse.Namespace) -> None:
    """Peak memory of one process, in MB; prints JSON."""
    batch, chunk_size = args.measure
    steps = Steps(args, chunk_size or None)
    steps.take(min(batch, 8))  # what is allocated once: optimiser state, libraries
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    steps.take(batch)
    if torch.cuda.is_available():
        peak, before = torch.cuda.max_memory_allocated() / 2**20, 0
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(dict(peak=peak, before=before)))


def run_measure(args: argparse.Namespace, batch: int, chunk_size: int) -> str:
    command = [sys.executable, *sys.argv, '--measure', str(batch), str(chunk_size)]
    # glibc keeps freed memory for later, in pieces that the next tensor may not fit: the peak would
    # be that of the heap's history.
    handed_back = dict(MALLOC_MMAP_THRESHOLD_='65536', MALLOC_TRIM_THRESHOLD_='65536')
    environment = {**os.environ, **handed_back}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        return f'failed: {(result.stderr.splitlines() or ["killed"])[-1][:40]}'
    found = json.loads(result.stdout.splitlines()[-1])
    return f'{found["peak"]:,.0f}  (+{found["peak"] - found["before"]:,.0f})'


def time_ratio(args: argparse.Namespace) -> list[float]:
    """Seconds of a sliced step over those of a whole one, pair by pair."""
    ways = [Steps(args, None), Steps(args, args.chunk_size)]
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    ratios = []
    for _ in track(range(args.repeats + 1), 'timing', transient=True):
        took = []
        for way in ways:
            begin = clock()
            way.take(args.time_batch)
            took.append(clock() - begin)
        ratios.append(took[1] / took[0])
    return ratios[1:]  # the first warms up


def main() -> None:
    args = parse_args()
    if args.measure:
        measure(args)
        return
    table = Table(title=f'Peak memory in MB (growth over a step of 8) on {get_device()}')
    for column in ('batch', 'whole', f'slices of {args.chunk_size}'):
        table.add_column(column, justify='right')
    for batch in track(args.batches, 'memory', transient=True):
        table.add_row(str(batch), *(run_measure(args, batch, c) for c in (0, args.chunk_size)))
    ratios = time_ratio(args)
    console = Console()
    console.print(table)
    console.print(
        f'Time of a sliced step at batch {args.time_batch}: {statistics.median(ratios):.2f} times '
        f'the whole one ({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} pairs)'
    )


if __name__ == '__main__':
    main()
