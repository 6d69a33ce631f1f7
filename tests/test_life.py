"""A stranger's first hour with an installed mmslip: own data, an experiment, training, use."""

import csv
import json
import re
import shlex
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import pyarrow
import pytest
from pyarrow import parquet

from mmslip.datasets.io.folder import list_images
from tests.conftest import draw_shape
from tests.installed import Installed
from tests.scripts import lines_of

PAIRS = 48


def caption(number: int) -> str:
    return f'{"disc" if number % 2 else "square"} number {number}'


def write_table(folder: Path) -> str:
    lines = (json.dumps(dict(image=f'{n:02d}.png', caption=caption(n))) for n in range(PAIRS))
    (folder / 'pairs.jsonl').write_text('\n'.join(lines))
    return 'pairs.jsonl --images images'


def write_csv(folder: Path) -> str:
    """One row a caption, two an image."""
    with open(folder / 'pairs.csv', 'w', newline='') as file:
        rows = csv.writer(file)
        rows.writerow(['image', 'caption'])
        rows.writerows([f'{n:02d}.png', caption(n)] for n in range(PAIRS))
        rows.writerows([f'{n:02d}.png', f'shape {n}'] for n in range(PAIRS))
    return 'pairs.csv --images images'


def write_folder(folder: Path) -> str:
    for number in range(PAIRS):
        image = folder / 'images' / f'{number:02d}.png'
        image.with_suffix('.txt').write_text(caption(number))
    return 'images'


def write_shards(folder: Path) -> str:
    write_folder(folder)
    with tarfile.open(folder / 'shard-000.tar', 'w') as shard:
        for path in sorted((folder / 'images').iterdir()):
            shard.add(path, path.name)
    return 'shard-*.tar'


def write_parquet(folder: Path) -> str:
    images = [path.read_bytes() for path in sorted((folder / 'images').glob('*.png'))]
    captions = [caption(number) for number in range(PAIRS)]
    parquet.write_table(pyarrow.table(dict(image=images, caption=captions)), folder / 'p.parquet')
    return 'p.parquet'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / 'images').mkdir()
    for number in range(PAIRS):
        cv2.imwrite(str(tmp_path / 'images' / f'{number:02d}.png'), draw_shape(number))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize('write', [write_csv, write_folder, write_shards, write_parquet])
def test_an_experiment_for_every_kind_of_data(
    installed: Installed, place: Path, write: Callable[[Path], str]
) -> None:
    data = write(place)
    out = installed.run('mmslip', 'init', 'mine', '--data', *data.split(), cwd=place)
    assert f'{PAIRS} images' in out


def interrupt(installed: Installed, command: list[str], cwd: Path) -> str:
    """Output of a training that is stopped by Ctrl-C once it is in its third epoch."""
    lines = []
    with lines_of(command, cwd=cwd, env=installed.environment) as process:
        for line in process.stdout:
            lines.append(line)
            if re.search(r'Epoch\(train\) +\[3\]', line):
                process.send_signal(signal.SIGINT)
                lines += process.stdout
    assert process.returncode == 130, ''.join(lines)
    return ''.join(lines)


@pytest.mark.slow
def test_from_a_folder_of_pairs_to_a_search(installed: Installed, place: Path) -> None:
    def mmslip(line: str) -> str:
        return installed.run('mmslip', *shlex.split(line), cwd=place)

    out = mmslip(f'init mine --data {write_table(place)} --arch tiny --image-size 32')
    assert len((place / 'mine.py').read_text().splitlines()) <= 60
    commands = re.findall(r'mmslip (doctor|train) mine\.py', out)
    assert commands == ['doctor', 'train']

    assert ' fail ' not in mmslip('doctor mine.py --seconds 1')
    mmslip('browse mine.py --samples 2')
    assert cv2.imread(str(place / 'samples.png')).shape[1] > 100

    train = ['mmslip', 'train', 'mine.py', '--cfg-options', 'train_cfg.max_epochs=30']
    out = interrupt(installed, train, place)
    assert 'Ctrl-C: saving after this step.' in out
    (command,) = re.findall(r'Go on with: (mmslip train mine\.py .*--resume)$', out, re.M)
    out = mmslip(command.removeprefix('mmslip '))
    assert 'resumed epoch' in out
    assert 'Epoch(train)   [1]' not in out
    best = next((place / 'work_dirs/mine').glob('best_*.pth'))
    assert (place / 'work_dirs/mine/report.html').is_file()

    out = mmslip(f'test mine.py {best} --out scores.json')
    scores = json.loads((place / 'scores.json').read_text())
    assert all(0 <= value <= 100 for value in scores.values())
    out = mmslip('report work_dirs/mine --out page.html')
    assert '</html>' in (place / 'page.html').read_text()
    mmslip(f'classify mine.py {best} images --labels disc square --json labels.json')
    assert len(json.loads((place / 'labels.json').read_text())) == PAIRS
    mmslip(f'search mine.py {best} images --text disc --topk 3 --json hits.json')
    (result,) = json.loads((place / 'hits.json').read_text())
    assert len({hit['image'] for hit in result['hits']}) == 3
    mmslip(f'export {best} exported --config mine.py --to torch')
    assert {path.name for path in (place / 'exported').iterdir()} == {
        'export.json',
        'image.pt2',
        'text.pt2',
        'merges.txt',
        'special_tokens_map.json',
        'tokenizer.json',
        'tokenizer_config.json',
        'vocab.json',
    }
    assert len(list(list_images(place / 'images'))) == PAIRS  # nothing of the user's was touched
