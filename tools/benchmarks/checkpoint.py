"""How long training stands still while a checkpoint is saved.

    python tools/benchmarks/checkpoint.py --parameters 30

Saves random weights with AdamW's two moments, three ways in turn: mmengine's plain file, a whole
file (flushed to the disk and renamed), and the same in the background.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from mmengine.runner import save_checkpoint
from rich.console import Console
from rich.table import Table

from mmslip.engine.checkpointing.storage import wait_for_writes

WAYS = {
    'plain file': dict(backend='local'),
    'whole file': dict(backend='atomic'),
    'whole file, background': dict(backend='atomic', background=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--parameters', type=float, default=30, help='in millions (default: 30)')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--folder', type=Path, help='on the disk to measure (default: temporary)')
    args = parser.parse_args()
    size = int(args.parameters * 1e6)
    state = {name: torch.rand(size) for name in ('weights', 'exp_avg', 'exp_avg_sq')}
    stalls: dict[str, list[float]] = {way: [] for way in WAYS}
    wholes: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for _ in range(args.repeats):
            for way, backend_args in WAYS.items():
                begin = time.perf_counter()
                save_checkpoint(state, str(Path(folder, 'a.pth')), backend_args=backend_args)
                stalls[way].append(time.perf_counter() - begin)
                wait_for_writes()
                wholes[way].append(time.perf_counter() - begin)
    table = Table('', 'training waits, s', 'until done, s', 'ratio', title=f'{12e-6 * size:.0f} MB')
    last = statistics.median(stalls['whole file'])
    for way in WAYS:
        stall, whole = (statistics.median(times[way]) for times in (stalls, wholes))
        table.add_row(way, f'{stall:.3f}', f'{whole:.3f}', f'{stall / last:.2f}')
    Console().print(table)


if __name__ == '__main__':
    main()
