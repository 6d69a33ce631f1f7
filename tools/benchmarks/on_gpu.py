"""What your GPU does with mmslip: ``python tools/benchmarks/on_gpu.py --minutes 10 --out DIR``.

Runs the table of parts below in its order, each in a process of its own with a limit of its own,
for as long as there are minutes left, and writes ``report.md`` and ``report.json`` after each:
card, versions, commands, figures, and what failed with its traceback. ``--device cpu --toy`` tries
all of it on a CPU at toy size, where the figures say nothing.

Needs no package beside those of mmslip and of the parts; says at the start which are missing.
"""

import argparse
import ast
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
BASE = '--size base --batch 256 --amp'
TINY = '--size tiny --image-size 32 --batch 4 --context 16'
MODELS = 'clip slip slip_cheap simclr open_clip'
# Others need packages that a GPU has nothing to do with.
TESTS = 'tests/models tests/parity tests/test_devices.py tests/test_training.py'
SLIP = 'configs/slip/slip_vit-b16_yfcc15m.py'

_SECONDS_TO_END = 10


@dataclass(frozen=True)
class Part:
    """A command and what it shows.

    Attributes:
        shows: Its line in the report.
        minutes: It is stopped after these; at toy size only when no minutes are left.
        command: Arguments of Python, from the root of the checkout; ``{json}`` is where figures go,
            ``{folder}`` a folder that is deleted, ``{data}`` that of ``--data``.
        toy: The command at toy size.
        figures: Reads figures from ``{json}`` or ``{folder}``.
    """

    shows: str
    minutes: float
    command: str
    toy: str
    figures: Callable[[Path, Path], object] = lambda file, folder: json.loads(file.read_text())


def tests(file: Path, folder: Path) -> dict:
    """Numbers of tests, and names of those that failed, of a JUnit file."""
    suite = ElementTree.parse(file).getroot().find('testsuite')
    failed = [
        f'{case.get("classname")}::{case.get("name")}'
        for case in suite.iter('testcase')
        if case.find('failure') is not None or case.find('error') is not None
    ]
    ran, skipped = int(suite.get('tests')), int(suite.get('skipped'))
    return dict(passed=ran - skipped - len(failed), skipped=skipped, failed=failed)


def last_metrics(file: Path, folder: Path) -> dict:
    """The last value of everything that a training logged."""
    found: dict = {}
    for path in sorted(folder.glob('run/*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            found.update(json.loads(line))
    return found


PARTS = {
    'correctness': Part(
        'pytest -m gpu: losses, gradients, groups, compile, SIGKILL, no waiting for the GPU',
        5,
        f'-m pytest -n 6 {TESTS} -m gpu -vv --tb short --junitxml {{json}}',
        '-m pytest tests/models/test_no_sync.py --junitxml {json}',
        tests,
    ),
    'throughput': Part(
        'ViT-B/16 at 224 in bf16: images/s, utilisation, memory, against open_clip',
        2,
        f'tools/benchmarks/train_throughput.py {BASE} --models {MODELS} --rounds 5 --steps 4'
        ' --json {json}',
        f'tools/benchmarks/train_throughput.py {TINY} --models clip slip --rounds 1 --steps 1'
        ' --json {json}',
    ),
    'profile': Part(
        'where the time of a step goes: attention, matrix products, optimiser, copies, gaps',
        1.5,
        f'tools/benchmarks/profile_step.py {BASE} --models clip slip --longest 12 --json {{json}}',
        f'tools/benchmarks/profile_step.py {TINY} --models slip --steps 1 --json {{json}}',
    ),
    'large_batch': Part(
        'SLIP ViT-B/16, batch of 4,096 in slices: memory, time against the largest whole batch',
        3,
        f'tools/benchmarks/large_batch.py --config {SLIP} --amp --whole 256 --batches 4096'
        ' --chunk-sizes 64 256 --repeats 2 --json {json}',
        'tools/benchmarks/large_batch.py --batches 8 --chunk-sizes 4 --time-batch 8 --repeats 1'
        ' --json {json}',
    ),
    'loader': Part(
        'share of time that the GPU waits for JPEGs, and the rate of nvJPEG',
        3,
        f'tools/benchmarks/loader_wait.py {BASE} --json {{json}}',
        f'tools/benchmarks/loader_wait.py {TINY} --workers 1 --steps 1 --number 4 --side 64'
        ' --json {json}',
    ),
    'compiled': Part(
        'the same with compiled blocks',
        4,
        f'tools/benchmarks/train_throughput.py {BASE} --models clip slip open_clip --compile'
        ' --rounds 3 --steps 4 --json {json}',
        f'tools/benchmarks/train_throughput.py {TINY} --models clip slip --rounds 1 --steps 1'
        ' --amp --json {json}',
    ),
    'main_job': Part(
        'SLIP on the embedded emoji, as the README trains it: accuracy',
        4,
        'tools/train.py configs/slip/slip_tiny_emoji.py --amp --work-dir {folder}/run',
        'tools/train.py configs/slip/slip_tiny_emoji.py --no-validate --work-dir {folder}/run'
        ' --cfg-options train_cfg.max_epochs=2 train_dataloader.batch_size=8'
        ' train_dataloader.dataset.indices=16 default_hooks.logger.interval=1',
        last_metrics,
    ),
    'photographs': Part(
        'Tiny ImageNet, a tenth with captions: CLIP, SLIP, SimCLR (--data DIR; see its docstring)',
        30,
        'tools/benchmarks/real_photos.py {data} --out {folder}/run --captions 10 --seeds 0'
        ' --minutes 10 --jobs 4',
        '',
        lambda file, folder: json.loads((folder / 'run' / 'evidence.json').read_text()),
    ),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog='\n'.join(
            f'{name:12} {part.minutes:4} min  {part.shows}' for name, part in PARTS.items()
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--minutes', type=float, required=True, help='for all parts together')
    parser.add_argument('--out', type=Path, required=True, help='folder of the report')
    parser.add_argument('--only', nargs='+', choices=PARTS, metavar='PART', help='of those below')
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda')
    parser.add_argument('--toy', action='store_true', help='at toy size')
    parser.add_argument('--data', type=Path, help='folder with train.parquet and val.parquet')
    return parser.parse_args()


def missing_packages() -> list[str]:
    """Requirements of mmslip and of the parts that are not installed, or too old or new.

    Those of what is installed are among them: a folder of wheels may lack any.
    """
    from packaging.requirements import Requirement

    (lines,) = (
        ast.literal_eval(node.value)
        for node in ast.parse((ROOT / 'setup.py').read_text()).body
        if isinstance(node, ast.Assign) and node.targets[0].id == 'REQUIREMENTS'
    )
    missing = []
    left = [*lines, 'pytest', 'pytest-xdist', 'open_clip_torch', 'pyarrow', 'webdataset']
    seen = {'opencv-python'}
    if find_spec('cv2') is None:  # whose distributions have several names
        missing.append('opencv-python')
    while left:
        wanted = Requirement(left.pop(0))
        if wanted.name in seen or (wanted.marker and not wanted.marker.evaluate(dict(extra=''))):
            continue
        seen.add(wanted.name)
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            missing.append(str(wanted))
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            missing.append(f'{wanted} (there is {found})')
        left += metadata.requires(wanted.name) or []
    return missing


def describe(device: str) -> dict:
    """Card, versions, and what is missing."""
    card = platform.processor() or platform.machine()
    if device == 'cuda':
        if shutil.which('nvidia-smi') is None:
            raise SystemExit(
                'There is no GPU: nvidia-smi is not installed. To try the parts, add '
                '--device cpu --toy.'
            )
        query = '--query-gpu=name,driver_version,memory.total,power.limit'
        card = subprocess.run(
            ['nvidia-smi', query, '--format=csv,noheader'], capture_output=True, text=True
        ).stdout.strip()
    versions = {'python': platform.python_version()}
    for name in ('torch', 'torchvision', 'triton', 'mmengine', 'mmpretrain', 'open_clip_torch'):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return dict(card=card, cores=os.cpu_count(), versions=versions, missing=missing_packages())


def run(part: Part, args: argparse.Namespace, seconds: float) -> dict:
    """Run a part for so many seconds at most; what came of it, however it ended."""
    with TemporaryDirectory() as folder:
        file = Path(folder, 'figures')
        text = (part.toy if args.toy else part.command).format(
            json=file, folder=folder, data=args.data and args.data.absolute()
        )
        environment = dict(os.environ, PYTHONUNBUFFERED='1', MPLBACKEND='Agg')
        environment['PYTHONPATH'] = os.pathsep.join(
            filter(None, (str(ROOT), os.environ.get('PYTHONPATH')))
        )
        if args.device == 'cpu':
            environment['CUDA_VISIBLE_DEVICES'] = ''
        log = Path(folder, 'log')
        begin = time.monotonic()
        with log.open('wb') as output:
            process = subprocess.Popen(
                [sys.executable, *shlex.split(text)],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
                process.send_signal(signal.SIGINT)  # it tells where it was, or what it has found
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_SECONDS_TO_END)
            finally:
                _end(process)
        found = dict(
            shows=part.shows,
            command=f'python {text}',
            seconds=round(time.monotonic() - begin, 1),
            status={0: 'ok', None: f'stopped after {seconds:.0f} s'}.get(code, f'failed: {code}'),
            output=log.read_text(errors='replace')[-20000:],
        )
        try:
            found['figures'] = part.figures(file, Path(folder))
        except Exception as error:
            found['figures'] = None
            if code == 0:
                found['status'] = f'no figures: {error!r}'
        return found


def _end(process: subprocess.Popen) -> None:
    """End a process with all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def markdown(report: dict) -> str:
    """The report to read."""
    lines = [f'# mmslip on {report["card"]}', '']
    if report['toy']:
        lines += ['**At toy size: the figures say nothing.**', '']
    versions = ', '.join(f'{name} {value}' for name, value in report['versions'].items() if value)
    lines += [f'{report["cores"]} cores; {versions}; `{report["command"]}`', '']
    if report['missing']:
        lines += [f'Missing packages: {", ".join(report["missing"])}', '']
    lines += ['| part | status | seconds | shows |', '| :-- | :-- | --: | :-- |']
    for name, part in report['parts'].items():
        lines.append(f'| {name} | {part["status"]} | {part["seconds"]} | {part["shows"]} |')
    for name, part in report['parts'].items():
        if 'command' in part:
            tail = '\n'.join(part['output'].splitlines()[-80:])
            lines += ['', f'## {name}', '', f'`{part["command"]}`', '', '```', tail, '```']
    return '\n'.join(lines) + '\n'


def write(report: dict, out: Path) -> None:
    """Both files, each whole at any moment."""
    for name, text in (
        ('report.json', json.dumps(report, indent=1)),
        ('report.md', markdown(report)),
    ):
        unfinished = out / f'.{name}.part'
        unfinished.write_text(text, encoding='utf-8')
        unfinished.replace(out / name)


def main() -> None:
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    report = dict(
        describe(args.device), command=shlex.join(['python', *sys.argv]), toy=args.toy, parts={}
    )
    print(report['card'], report['versions'])
    if report['missing']:
        print('Missing packages, whose parts will fail:', ', '.join(report['missing']))
    end = time.monotonic() + 60 * args.minutes
    for name in args.only or PARTS:
        part, left = PARTS[name], end - time.monotonic()
        needs_data = '{data}' in part.command and (args.toy or args.data is None)
        reason = 'no data' if needs_data else 'no time left' if left < 20 else None
        if reason:
            found = dict(shows=part.shows, status=f'not run: {reason}', seconds=0)
        else:
            print(f'{name}: {part.shows} ...', flush=True)
            found = run(part, args, left if args.toy else min(60 * part.minutes, left))
        report['parts'][name] = found
        write(report, args.out)
        print(f'{name}: {found["status"]}, {found["seconds"]} s', flush=True)
    print(f'Report: {args.out / "report.md"}')


if __name__ == '__main__':
    main()
