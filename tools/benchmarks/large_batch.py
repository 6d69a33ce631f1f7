"""Memory and time of batches in slices (``SLIP(chunk_size=...)``) against whole ones.

``python tools/benchmarks/large_batch.py`` takes training steps of a small SLIP on random pictures
and captions. Memory is the peak of a fresh process for each batch size: of the whole process on a
CPU, of the allocator on a GPU. Time on a CPU is compared in one process, whole and sliced steps in
turn; on a GPU each process times its own steps, and what counts is the time of a sample in slices
against that in the largest whole batch that fits. With ``--config`` it does so for the model of a
config.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

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
    parser.add_argument(
        '--whole', type=int, nargs='+', help='batches that run whole, by default all of them'
    )
    parser.add_argument('--chunk-sizes', type=int, nargs='+', default=[64])
    parser.add_argument('--time-batch', type=int, default=256, help='on a CPU, what is timed')
    parser.add_argument('--repeats', type=int, default=5, help='timed steps')
    parser.add_argument('--amp', action='store_true', help='bfloat16')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write what is printed there too')
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
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.wrapper = (BF16OptimWrapper if args.amp else OptimWrapper)(optimizer)

    def make(self, batch: int) -> dict:
        """Random bytes and ids, in pinned memory where there is a GPU."""
        size = getattr(self.model.backbone, 'img_size', (IMAGE_SIZE, IMAGE_SIZE))
        image = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8)
        views = [image.flip(-1), image.flip(-2)] if self.model.ssl is not None else []
        text = torch.empty(batch, 0, dtype=torch.int64)
        if self.model.with_text:
            tower = self.model.text_backbone
            last = tower.token_embedding.num_embeddings - 1
            text = torch.randint(1, last, (batch, tower.context_length))
            text[:, -1] = last
        if torch.cuda.is_available():
            image, text, *views = (part.pin_memory() for part in (image, text, *views))
        halves = dict(image=image, text=text) if self.model.with_text else {}
        return halves | (dict(views=views) if views else {})

    def take(self, inputs: dict) -> None:
        self.model.train_step(dict(inputs=inputs), self.wrapper)
        if torch.cuda.is_available():
            torch.cuda.synchronize()


def measure(args: argparse.Namespace) -> None:
    """Peak memory of one process in MB, and samples a second on a GPU; prints JSON."""
    batch, chunk_size = args.measure
    steps = Steps(args, chunk_size or None)
    steps.take(steps.make(min(batch, 8)))  # what is allocated once: optimiser state, libraries
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    inputs = steps.make(batch)
    steps.take(inputs)
    found = {}
    if torch.cuda.is_available():
        peak, before = torch.cuda.max_memory_allocated() / 2**20, 0
        took = []
        for _ in range(args.repeats):
            begin = time.perf_counter()
            steps.take(inputs)
            took.append(time.perf_counter() - begin)
        found = dict(samples_per_s=batch / statistics.median(took))
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(dict(found, peak_mb=peak, growth_mb=peak - before)))


def run_measure(args: argparse.Namespace, batch: int, chunk_size: int) -> dict:
    """What :func:`measure` prints, or ``failed``, the reason."""
    command = [sys.executable, *sys.argv, '--measure', str(batch), str(chunk_size)]
    # glibc keeps freed memory for later, in pieces that the next tensor may not fit: the peak would
    # be that of the heap's history.
    handed_back = dict(MALLOC_MMAP_THRESHOLD_='65536', MALLOC_TRIM_THRESHOLD_='65536')
    environment = {**os.environ, **handed_back}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        return dict(failed=(result.stderr.splitlines() or ['killed'])[-1][:60])
    return json.loads(result.stdout.splitlines()[-1])


def cell(found: dict | None) -> str:
    if found is None:
        return '-'
    if 'failed' in found:
        return f'failed: {found["failed"]}'
    speed = f', {found["samples_per_s"]:,.0f} samples/s' if 'samples_per_s' in found else ''
    return f'{found["peak_mb"]:,.0f}  (+{found["growth_mb"]:,.0f}){speed}'


def time_ratios(args: argparse.Namespace, chunk_size: int) -> list[float]:
    """Seconds of a sliced step over those of a whole one on a CPU, pair by pair."""
    ways = [Steps(args, None), Steps(args, chunk_size)]
    inputs = ways[0].make(args.time_batch)
    ratios = []
    for _ in track(range(args.repeats + 1), 'timing', transient=True):
        took = []
        for way in ways:
            begin = time.process_time()
            way.take(inputs)
            took.append(time.process_time() - begin)
        ratios.append(took[1] / took[0])
    return ratios[1:]  # the first warms up


def main() -> None:
    args = parse_args()
    if args.measure:
        measure(args)
        return
    whole = args.batches if args.whole is None else args.whole
    found: dict[int, dict[int, dict]] = {}  # batch -> slice (0: whole) -> figures
    for batch in track(sorted({*args.batches, *whole}), 'memory', transient=True):
        sizes = [0] * (batch in whole) + args.chunk_sizes * (batch in args.batches)
        found[batch] = {size: run_measure(args, batch, size) for size in sizes}
    console = Console(width=130)
    table = Table(title=f'Peak memory in MB (growth over a step of 8) on {get_device()}')
    for column in ('batch', 'whole', *(f'slices of {size}' for size in args.chunk_sizes)):
        table.add_column(column, justify='right')
    for batch, row in found.items():
        table.add_row(str(batch), *(cell(row.get(size)) for size in (0, *args.chunk_sizes)))
    console.print(table)

    largest = max(args.batches)
    speeds = [row[0].get('samples_per_s') for row in found.values() if 0 in row]
    reference = next((speed for speed in reversed(speeds) if speed), None)
    ratios = {}
    for size in args.chunk_sizes:
        if get_device() == 'cpu':
            pairs = time_ratios(args, size)
            ratio, against = statistics.median(pairs), f'a whole one of {args.time_batch}'
            spread = f' ({min(pairs):.2f} to {max(pairs):.2f}, {len(pairs)} pairs)'
        elif reference and 'samples_per_s' in found[largest][size]:
            ratio = reference / found[largest][size]['samples_per_s']
            against, spread = f'that of the largest whole batch, at {largest} samples', ''
        else:
            continue
        ratios[size] = ratio
        console.print(f'Time in slices of {size}: {ratio:.2f} times {against}{spread}')
    if args.json:
        args.json.write_text(json.dumps(dict(memory=found, time_of_slices=ratios)))


if __name__ == '__main__':
    main()
