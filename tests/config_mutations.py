"""Break valid configs at random, train on each, and count how the runs end.

    python tests/config_mutations.py --seed 0 --number 200

Each mutation runs in a process of its own: the resolved config of a small experiment, shortened to
a few steps, with one fault planted in it. How a run ends:

- clear: stopped, and the last words name the key or the part that the fault is in;
- raw: stopped by a traceback, or without naming it;
- trained: ran to its end. A fault that leaves a config without one (a key removed that has a
  default) is counted as valid, anything else as silent;
- hanging: over the time limit.
"""

import argparse
import contextlib
import copy
import json
import os
import random
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config

from mmslip.analysis.config_check import RUNNER_SETTINGS
from mmslip.cli import train

ROOT = Path(__file__).parents[1]
CONFIGS = [
    'slip/slip_vit-tiny_emoji.py',
    'benchmarks/paper_claim/clip_tiny_emoji.py',
    'benchmarks/paper_claim/simclr_tiny_emoji.py',
]
# Written by the machine that runs the job, or harmless whatever they say.
LEFT_ALONE = {'work_dir', 'load_from', 'launcher', 'log_level', 'experiment_name', 'visualizer'}
NUMBERS = [float('nan'), float('inf'), -1, -0.5, 1e30, 10**12]
# Sizes that something else has to agree with.
WIDTHS = re.compile(
    r'model\.((text_)?neck\.\w+_channels|ssl\.neck\.in_channels)|'
    r'train_dataloader\..*tokenizer\.context_length'
)
CLASSES = ['mmslip.CLIPHead', 'mmslip.BadSampleHook', 'AdamW', 'CosineAnnealingLR', 'BN1d']


class Mutation(NamedTuple):
    """A fault.

    Attributes:
        kind: What was done.
        path: Keys and places down to the changed value.
        value: What stands there now.
        name: The key that stands there now.
    """

    kind: str
    path: tuple
    value: Any
    name: Any


def shortened(name: str) -> dict:
    """A valid config that trains two epochs of two steps."""
    cfg = Config.fromfile(ROOT / 'configs' / name)
    cfg = {key: value for key, value in cfg.to_dict().items() if key in RUNNER_SETTINGS}
    loader = cfg['train_dataloader']
    loader.update(batch_size=16, num_workers=0)
    loader['dataset']['indices'] = 40
    for part in cfg['param_scheduler']:
        part.update({key: 1 for key in ('begin', 'end') if key in part})
    cfg['train_cfg'].update(max_epochs=2, val_interval=2)
    if cfg['val_dataloader']:
        cfg['val_dataloader'].update(batch_size=32, num_workers=0)
        for part in cfg['val_dataloader']['dataset']['datasets']:
            part['indices'] = 32
    return {key: value for key, value in cfg.items() if not key.startswith('test_')}


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Paths of all values of a config."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if path or key not in LEFT_ALONE:
            yield (*path, key)
            if isinstance(item, dict | list | tuple):
                yield from places(item, (*path, key))


def at(cfg: Any, path: tuple) -> Any:
    for key in path:
        cfg = cfg[key]
    return cfg


def misspelt(name: str, draw: random.Random) -> str | None:
    """A name with a letter left out, doubled, or two letters exchanged."""
    n = draw.randrange(max(len(name) - 1, 1))
    new = draw.choice(
        [
            name[:n] + name[n + 1 :],
            name[: n + 1] + name[n:],
            name[:n] + name[n + 1 : n + 2] + name[n : n + 1] + name[n + 2 :],
        ]
    )
    return new if new != name else None


def mutate(cfg: dict, draw: random.Random) -> tuple[dict, Mutation]:
    """A copy of a config with a fault, and the fault.

    All kinds are equally frequent, but for those that a config has no place for.
    """
    everywhere, kinds = list(places(cfg)), list(KINDS)
    draw.shuffle(kinds)
    for kind, path in ((kind, draw.choice(everywhere)) for kind in kinds for _ in range(1000)):
        holder, key = at(cfg, path[:-1]), path[-1]
        new = None if isinstance(holder, tuple) else KINDS[kind](path, holder[key], draw)
        if new is None or new == holder[key] or (kind == 'misspelt key' and new in holder):
            continue
        changed = copy.deepcopy(cfg)
        holder = at(changed, path[:-1])
        if kind == 'removed key':
            return changed, Mutation(kind, path, holder.pop(key), key)
        if kind == 'misspelt key':
            holder[new] = holder.pop(key)
            return changed, Mutation(kind, path, holder[new], new)
        holder[key] = new
        return changed, Mutation(kind, path, new, key)
    raise ValueError('No fault can be planted in this config.')


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# What stands in the place of a key's name or value, or None where the fault cannot be planted.
KINDS = {
    'misspelt key': lambda path, value, draw: (
        misspelt(path[-1], draw) if isinstance(path[-1], str) and path[-1] != 'type' else None
    ),
    'removed key': lambda path, value, draw: path[-1] if isinstance(path[-1], str) else None,
    'impossible number': lambda path, value, draw: (
        draw.choice(NUMBERS) if is_number(value) else None
    ),
    'wrong width': lambda path, value, draw: (
        value + draw.choice([5, value] if path[-1] == 'context_length' else [-3, 5, value])
        if is_number(value) and WIDTHS.fullmatch('.'.join(map(str, path)))
        else None
    ),
    'wrong type': lambda path, value, draw: (
        draw.choice(['many', [[]], {}]) if isinstance(value, int | float) else None
    ),
    'text for a dict': lambda path, value, draw: 'text' if isinstance(value, dict) else None,
    'swapped type': lambda path, value, draw: draw.choice(CLASSES) if path[-1] == 'type' else None,
    'wrong scope': lambda path, value, draw: wrong_scope(value) if path[-1] == 'type' else None,
    'misspelt type': lambda path, value, draw: (
        misspelt(value, draw) if path[-1] == 'type' else None
    ),
}


def wrong_scope(name: str) -> str | None:
    """The name without its scope, or in another one."""
    return name.removeprefix('mmslip.') if '.' in name else f'mmslip.{name}'


def run(cfg: dict, folder: Path, limit: float) -> tuple[str, str, float]:
    """Train in a process of its own: how it ended, and what it said last."""
    folder.mkdir(parents=True)
    # As a user writes it: `nan` and `inf` are no Python names.
    text = re.sub(
        r'\b(nan|inf)\b', r"float('\1')", ''.join(f'{k} = {v!r}\n' for k, v in cfg.items())
    )
    (folder / 'config.py').write_text(text)
    start, process = time.monotonic(), os.fork()
    if not process:
        status = 99
        with contextlib.suppress(BaseException), open(folder / 'output', 'w', buffering=1) as out:
            os.dup2(out.fileno(), 1), os.dup2(out.fileno(), 2)
            try:
                train.main([str(folder / 'config.py'), '--work-dir', str(folder / 'run')])
                status = 0
            except SystemExit as error:
                print(error.code, file=sys.stderr)
                status = 1
            except BaseException:
                traceback.print_exc()
        os._exit(status)
    while time.monotonic() - start < limit:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            output = (folder / 'output').read_text(errors='replace')
            code = os.waitstatus_to_exitcode(status)
            kind = {0: 'trained', 1: 'stopped'}.get(code, 'raw')
            return kind, output, time.monotonic() - start
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return 'hanging', '', limit


def judge(how: str, output: str, fault: Mutation) -> str:
    """How a run ended, in the words at the top of this file."""
    if how == 'stopped':
        last = '\n'.join(output[-3000:].splitlines()[-12:])
        path = ''.join(f'[{key}]' if isinstance(key, int) else f'.{key}' for key in fault.path)
        part = path.removeprefix('.').removesuffix(f'.{fault.path[-1]}')
        # The key itself, or the part that it belongs to.
        names = {path.removeprefix('.'), part, fault.name, fault.path[-1]}
        if fault.kind == 'wrong width' and re.search(rf'\b{fault.value}\b', last):
            names.add('model')  # told by its value, with the setting that it disagrees with
        named = any(re.search(rf'(^|\W){re.escape(str(name))}(\W|$)', last) for name in names)
        return 'clear' if named and 'Traceback (most' not in last else 'raw'
    if how == 'trained':
        # mmengine's own classes are found in every scope.
        same = fault.kind == 'wrong scope' and str(fault.value).startswith('mmslip.')
        return 'valid' if same or fault.kind == 'removed key' else 'silent'
    return how


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--number', type=int, default=200)
    parser.add_argument('--limit', type=float, default=60, help='seconds for a run')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/config_mutations'))
    args = parser.parse_args()
    torch.set_num_threads(1)
    draw, counts = random.Random(args.seed), Counter()
    base = [shortened(name) for name in CONFIGS]
    records = []
    for number in range(args.number):
        cfg, fault = mutate(base[number % len(base)], draw)
        folder = args.out / f'{args.seed}_{number:03d}'
        how, output, took = run(cfg, folder, args.limit)
        verdict = judge(how, output, fault)
        counts[fault.kind, verdict] += 1
        path = '.'.join(map(str, fault.path))
        last = ' / '.join(output.strip().splitlines()[-4:])
        line = f'{number:3d} {verdict:8} {took:5.1f} s  {fault.kind}: {path} -> {fault.name}'
        print(f'{line} = {str(fault.value)[:60]!r}', flush=True)
        if verdict != 'clear':
            print(f'      {last[-600:]}', flush=True)
        records.append(dict(kind=fault.kind, path=path, verdict=verdict, said=last[-2000:]))
    (args.out / f'{args.seed}.json').write_text(json.dumps(records, indent=1))
    verdicts = ['clear', 'valid', 'raw', 'silent', 'hanging']
    print('| fault | ' + ' | '.join(verdicts) + ' |\n|---' + '|---:' * len(verdicts) + '|')
    for kind in [*sorted({kind for kind, _ in counts}), 'all']:
        row = [
            sum(n for (k, v), n in counts.items() if v == verdict and kind in (k, 'all'))
            for verdict in verdicts
        ]
        print(f'| {kind} | ' + ' | '.join(map(str, row)) + ' |')


if __name__ == '__main__':
    main()
