"""Where the time of a training step goes: ``python tools/benchmarks/profile_step.py --amp``.

Steps of ``train_throughput.py`` under PyTorch's profiler. On a GPU kernels are counted, and what is
left of the time between the first and the last of them are gaps: nothing ran. On a CPU operators
are counted, each without those that it calls.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from train_throughput import Step, build, complete, make_parser

# Kind of work -> parts of the names of its kernels or operators, in lower case; the first fits.
KINDS = {
    'communication': ('nccl',),
    'copies': (
        'memcpy',
        'memset',
        'copy_',
        '_to_copy',
        'catarraybatch',
        'aten::cat',
        'aten::clone',
    ),
    'optimiser': ('adam', 'multi_tensor', 'foreach'),
    'attention': ('flash', 'fmha', 'attention', 'efficient', 'sdpa'),
    'loss': ('softmax', 'nll_loss', 'cross_entropy', 'nllloss', 'argmax', 'logsumexp'),
    'matrix products': (
        *('gemm', 'cutlass', 'xmma', 'nvjet', 'cublas', 'wgmma', 'tensorop'),
        *('aten::mm', 'aten::bmm', 'addmm', 'matmul'),
    ),
    'convolution': ('conv', 'cudnn', 'mkldnn', 'im2col', 'nchwtonhwc', 'nhwctonchw'),
    'norms': ('layer_norm', 'layernorm', 'batch_norm', 'batchnorm', 'bn_fw', 'bn_bw', 'gammabeta'),
    'embedding': ('embedding', 'index', 'gather', 'scatter'),
    'compiled': ('triton',),
    'activations and additions': (
        *('elementwise', 'gelu', 'sigmoid', 'add', 'mul', 'div', 'sub', 'reduce', 'sum', 'dropout'),
        *('native_dropout', 'relu', 'fill', 'silu'),
    ),
}


def parse_args() -> argparse.Namespace:
    parser = make_parser(__doc__.splitlines()[0])
    parser.set_defaults(models=['slip'])
    parser.add_argument('--steps', type=int, default=3)
    parser.add_argument(
        '--longest', type=int, default=0, metavar='N', help='list the N kernels that take longest'
    )
    parser.add_argument('--trace', type=Path, metavar='DIR', help='keep the traces, for Perfetto')
    return complete(parser.parse_args())


def kind_of(name: str) -> str:
    """Kind of work of a kernel or operator."""
    name = name.lower()
    return next((kind for kind, parts in KINDS.items() if any(p in name for p in parts)), 'other')


def busy(spans: Iterable[tuple[float, float]]) -> float:
    """Length of what intervals cover together; kernels of several streams may overlap."""
    covered, end = 0.0, float('-inf')
    for begin, finish in sorted(spans):
        covered += max(0.0, finish - max(begin, end))
        end = max(end, finish)
    return covered


def shares(
    step: Step, args: argparse.Namespace, trace: Path | None
) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds of a step by kind of work, in ``step`` those of the whole; and by kernel."""
    on_gpu = args.device == 'cuda'
    for _ in range(3):
        step()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    if on_gpu:
        torch.cuda.synchronize()
    with profile(activities=activities) as profiler:
        begin = time.perf_counter()
        for _ in range(args.steps):
            step()
        if on_gpu:
            torch.cuda.synchronize()
        wall = 1e6 * (time.perf_counter() - begin)
    if trace is not None:
        trace.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(trace))
    by_name: dict[str, float] = defaultdict(float)
    rest = {}
    if on_gpu:
        on_device = [event for event in profiler.events() if event.device_type == DeviceType.CUDA]
        kernels = [
            (event.name, event.time_range.start, event.time_range.end)
            for event in on_device
            if not getattr(event, 'is_user_annotation', False)
        ]
        for name, start, end in kernels:
            by_name[name] += end - start
        first, last = min(start for _, start, _ in kernels), max(end for *_, end in kernels)
        rest['gaps'] = last - first - busy((start, end) for _, start, end in kernels)
        wall = last - first
    else:
        for row in profiler.key_averages():
            by_name[row.key] += row.self_cpu_time_total
        rest['between operators'] = max(0.0, wall - sum(by_name.values()))
    taken: dict[str, float] = defaultdict(float, rest, step=wall)
    for name, value in by_name.items():
        taken[kind_of(name)] += value
    return tuple(
        {key: value / 1000 / args.steps for key, value in each.items()} for each in (taken, by_name)
    )


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    found, kernels = {}, {}
    for name in args.models:
        trace = args.trace / f'{name}.json' if args.trace else None
        found[name], kernels[name] = shares(build(name, args), args, trace)
    table = Table('kind of work', *(f'{name}, ms (share)' for name in found))
    kinds = sorted(
        {kind for row in found.values() for kind in row},
        key=lambda kind: -max(row.get(kind, 0) for row in found.values()),
    )
    for kind in kinds:
        cells = [
            f'{row.get(kind, 0):.2f} ({row.get(kind, 0) / row["step"]:.0%})'
            for row in found.values()
        ]
        table.add_row(kind, *cells)
    Console(width=130).print(table)
    for name, row in kernels.items():
        for kernel in sorted(row, key=row.get, reverse=True)[: args.longest]:
            print(f'{name} {row[kernel]:7.2f} ms, {kind_of(kernel)}: {kernel[:300]}')
    if args.json:
        args.json.write_text(json.dumps(found))


if __name__ == '__main__':
    main()
