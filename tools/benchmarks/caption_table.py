"""Compare a caption table of 15 million rows with what else could hold them.

Measured are the CPU time to open, the time of a random access, and the memory of a parent with
eight forked workers that have visited random rows. The others, a Python list of tuples and
mmengine's serialised `BaseDataset`, are measured at two smaller sizes, and the line through both is
followed up to all rows. Each runs in a process of its own.

    python tools/benchmarks/caption_table.py --rows 15000000
"""

import argparse
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmslip.datasets import CaptionTable

WORDS = 'a the of in with photo red green old city lake dog child café 日本 sunset walking'.split()
FORK = multiprocessing.get_context('fork')
MB = 1e6


@dataclass
class Result:
    """Cost of one way: seconds, and bytes by how they count in the process."""

    rows: int
    open_s: float
    access_s: float
    parent: int
    workers: int
    workers_pss: int


def make_rows(count: int, seed: int) -> Iterator[tuple[str, list[str]]]:
    """Rows as YFCC15M has them: a number, a title and for two thirds a description."""
    rng = random.Random(seed)
    titles = [' '.join(rng.choices(WORDS, k=rng.randint(2, 8))) for _ in range(9973)]
    texts = [' '.join(rng.choices(WORDS, k=rng.randint(5, 40))) for _ in range(10007)]
    for row in range(count):
        # A number in each text keeps Python from sharing equal ones.
        captions = [f'{titles[row % 9973]} {row}']
        if row % 3:
            captions.append(f'{texts[row % 10007]} {row}')
        yield str(6 * row), captions


class Listed(BaseDataset):
    """The rows as mmengine keeps them: one pickle each, in one array."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        super().__init__()

    def load_data_list(self) -> list[dict]:
        return [dict(img_path=key, text=texts) for key, texts in make_rows(self.count, self.seed)]

    def __getitem__(self, index: int) -> dict:
        return self.get_data_info(index)


def memory() -> dict[str, int]:
    """Memory of this process in bytes: private (USS) and in proportion of sharing (PSS)."""
    fields = {}
    for line in Path('/proc/self/smaps_rollup').read_text(encoding='ascii').splitlines()[1:]:
        name, value, _ = line.split()
        fields[name] = 1024 * int(value)
    return dict(private=fields['Private_Clean:'] + fields['Private_Dirty:'], shared=fields['Pss:'])


def work(rows: Sequence, seed: int, accesses: int, barrier: Barrier, pipe: Connection) -> None:
    """Visit random rows, wait for the other workers, and tell what it cost."""
    order = np.random.default_rng(seed).integers(0, len(rows), accesses)
    before = memory()
    for index in order:
        rows[int(index)]
    barrier.wait()
    after = memory()
    pipe.send((after['private'] - before['private'], after['private'], after['shared']))
    barrier.wait()  # a worker that leaves would change what the others share


def time_access(rows: Sequence, accesses: int) -> float:
    """Median seconds of a random access, in which other programs and cold disks count little."""
    times = []
    for index in np.random.default_rng(0).integers(0, len(rows), accesses).tolist():
        begin = time.perf_counter()
        rows[index]
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def measure(build: Callable[[], Sequence], workers: int, accesses: int, pipe: Connection) -> None:
    """Open, visit and fork in this process; sends a `Result`."""
    before = memory()['private']
    begin = time.process_time()  # of this process alone, so that other programs count little
    rows = build()
    open_s = time.process_time() - begin
    parent = memory()['private'] - before
    access_s = time_access(rows, 20_000)
    barrier, pairs = FORK.Barrier(workers), [FORK.Pipe(False) for _ in range(workers)]
    processes = [
        FORK.Process(target=work, args=(rows, seed, accesses, barrier, end))
        for seed, (_, end) in enumerate(pairs)
    ]
    for process in processes:
        process.start()
    grown, _, shared = (sum(each) for each in zip(*(p.recv() for p, _ in pairs), strict=True))
    for process in processes:
        process.join()
    pipe.send(Result(len(rows), open_s, access_s, parent, grown, shared))


def run(build: Callable[[], Sequence], workers: int, accesses: int) -> Result:
    """Measure in a fresh process."""
    receive, send = FORK.Pipe(False)
    process = FORK.Process(target=measure, args=(build, workers, accesses, send))
    process.start()
    send.close()  # so that a failure there ends the wait here
    result = receive.recv()
    process.join()
    return result


def report(results: dict[str, list[Result]], rows: int, workers: int) -> Table:
    """Lay out the results of each way, which are one at `rows` or two at smaller sizes."""
    table = Table(title=f'{rows:,} rows, {workers} forked workers')
    for column in ('', 'measured rows', 'open', 'access', 'parent', 'workers: own', 'workers: PSS'):
        table.add_column(column, justify='left' if not column else 'right')
    for name, sizes in results.items():
        about, last = '~' if len(sizes) > 1 else '', sizes[-1]

        def follow(field: str, sizes: list[Result] = sizes) -> float:
            values = [getattr(result, field) for result in sizes]
            if len(sizes) == 1:
                return values[0]
            slope = (values[1] - values[0]) / (sizes[1].rows - sizes[0].rows)
            return values[1] + max(slope, 0) * (rows - sizes[1].rows)

        table.add_row(
            name,
            f'{last.rows:,}',
            f'{about}{follow("open_s"):.3g} s',
            f'{1e6 * last.access_s:.1f} us',
            f'{about}{follow("parent") / MB:,.1f} MB',
            f'{about}{follow("workers") / MB:,.1f} MB',
            f'{last.workers_pss / MB:,.0f} MB',
        )
    return table


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rows', type=int, default=15_000_000, help='rows of the caption table')
    parser.add_argument('--small-rows', type=int, default=300_000, help='rows of the others')
    parser.add_argument('--workers', type=int, default=8)
    parser.add_argument('--folder', help='where to write the table, about 2.5 GB; removed again')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    visits = 2 * args.small_rows

    def both_sizes(build: Callable[[int], Sequence]) -> list[Result]:
        return [
            run(partial(build, rows), args.workers, 2 * rows)
            for rows in (args.small_rows // 2, args.small_rows)
        ]

    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder, 'table')
        begin = time.perf_counter()
        rows = make_rows(args.rows, args.seed)
        CaptionTable.write(path, track(rows, 'writing', total=args.rows))
        written_s = time.perf_counter() - begin
        size = sum(file.stat().st_size for file in path.iterdir())
        results = {
            'caption table': [run(lambda: CaptionTable(path), args.workers, visits)],
            'list of tuples': both_sizes(
                lambda rows: [(key, *texts) for key, texts in make_rows(rows, args.seed)]
            ),
            'mmengine BaseDataset': both_sizes(lambda rows: Listed(rows, args.seed)),
        }
    console = Console()
    console.print(f'written in {written_s:.0f} s, {size / 1e9:.2f} GB on disk')
    console.print(report(results, args.rows, args.workers))
    console.print(
        '"workers: own" is what visiting the rows added to their private memory, all together; '
        '"workers: PSS" their whole memory as measured, Python and libraries included. "~" follows '
        'the line through the measured rows and half of them.'
    )


if __name__ == '__main__':
    main()
