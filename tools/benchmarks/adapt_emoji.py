"""The worked example of docs/finetuning.md: shipped weights meet another vendor's drawings.

python tools/benchmarks/adapt_emoji.py --out work_dirs/adapt_emoji

writes ten of Fluent's drawings of every Unicode subgroup (half of them, where there are fewer than
twenty) for training and the others for judgement, as pictures and a table; then it types the
commands of the page in that folder.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import mmcv

from mmslip.apis.model import shipped_weights
from mmslip.datasets import EmojiDataset

_DRAWINGS = 10
_COMMANDS = """
init fluent --data pairs.jsonl --from slip_tiny_emoji
train fluent.py --work-dir run
interpolate BEFORE run/epoch_30.pth --config fluent.py --keep slip_tiny_emoji
    --keep-metric zero_shot/concepts_top1 --alpha 0 0.2 0.4 0.6 0.8 1
"""


def write_pairs(folder: Path) -> dict[str, int]:
    """Write pictures and ``pairs.jsonl``; returns the number of rows of each part."""
    dataset = EmojiDataset('val', label='subgroup')
    (folder / 'images').mkdir(parents=True)
    groups = defaultdict(list)
    for row in range(len(dataset)):
        info = dataset.get_data_info(row)
        groups[info['gt_label']].append(row)
    rows = []
    for members in groups.values():
        for place, row in enumerate(members):  # in hash order
            info = dataset.get_data_info(row)
            name = f'{row:04d}.png'
            mmcv.imwrite(info['img'], str(folder / 'images' / name))
            part = 'train' if place < min(_DRAWINGS, len(members) // 2) else 'val'
            rows.append(dict(image=name, caption=info['text'], split=part))
    with (folder / 'pairs.jsonl').open('w', encoding='utf-8') as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
    return {part: sum(row['split'] == part for row in rows) for part in ('train', 'val')}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=Path('work_dirs', 'adapt_emoji'))
    folder = parser.parse_args().out
    print(f'{folder}: {write_pairs(folder)}')
    commands = _COMMANDS.replace('\n    ', ' ').strip().splitlines()
    for command in commands:
        command = command.replace('BEFORE', str(shipped_weights('slip_tiny_emoji')))
        print(f'$ mmslip {command}', flush=True)
        line = [sys.executable, '-m', 'mmslip', *shlex.split(command)]
        subprocess.run(line, cwd=folder, check=True)


if __name__ == '__main__':
    main()
