"""The comparison on photographs: its data, its runs, its intervals and its plot."""

import json
import math
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from tests.scripts import load_script

pa = pytest.importorskip('pyarrow')

NAMES, EACH = ('goldfish', 'pole'), 5


@pytest.fixture
def tool(monkeypatch):
    tool = load_script('benchmarks/real_photos')
    # All, two or one of the five photographs of a name.
    monkeypatch.setattr(tool, 'CAPTIONED', {100: 5, 10: 2, 2: 1})
    monkeypatch.setattr(tool, 'BATCH', 4)
    return tool


@pytest.fixture
def photos(tmp_path):
    """Parquet files of photographs whose grey says their number."""
    from pyarrow import parquet

    for split in ('train', 'val'):
        labels = [place % 2 for place in range(2 * EACH)]
        images = [
            cv2.imencode('.webp', np.full((32, 32, 3), 20 * place, np.uint8))[1].tobytes()
            for place in range(2 * EACH)
        ]
        names = [[NAMES[label], 'Synonym'] for label in labels]
        table = pa.table(dict(image=images, label=pa.array(labels, pa.int32()), names=names))
        parquet.write_table(table, tmp_path / f'{split}.parquet')
    return tmp_path


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_data(tool, photos, tmp_path):
    data = tmp_path / 'data'
    tool.prepare(photos, data, [0, 1])
    chosen = {}
    for seed in (0, 1):
        for share, number in tool.CAPTIONED.items():
            folder = data / f'{share}_seed{seed}'
            captioned, bare = rows(folder / 'captioned.jsonl'), rows(folder / 'bare.jsonl')
            images = {row['image']: row for row in captioned + bare}
            assert len(images) == len(captioned) + len(bare) == 2 * EACH
            assert not any('caption' in row for row in bare)
            # Equally many of both names, and each has its own.
            labels = {row['image']: int(row['image'][-6]) % 2 for row in captioned}
            assert sorted(labels.values()) == number * [0] + number * [1]
            for row in captioned:
                name = NAMES[labels[row['image']]]
                assert row['caption'] == [text.format(name) for text in tool.TEMPLATES]
            listed = (folder / 'labelled.txt').read_text().split('\n')[:-1]
            assert dict(line.split() for line in listed) == {k: str(v) for k, v in labels.items()}
            chosen[seed, share] = set(labels)
    assert chosen[0, 2] < chosen[0, 10] < chosen[0, 100]
    assert chosen[0, 10] != chosen[1, 10]
    pixels = cv2.imread(str(data / 'train' / '00007.webp'))
    assert np.abs(pixels.astype(int) - 140).max() <= 2
    task = json.loads((data / 'task' / 'photos.json').read_text())
    assert task['classes'] == list(NAMES)
    assert (data / 'task' / 'val.txt').read_text().startswith('val/00000.webp 0\nval/00001.webp 1')
    # What is there stays.
    before = (data / 'train').stat().st_mtime_ns
    tool.prepare(photos, data, [0])
    assert (data / 'train').stat().st_mtime_ns == before


@pytest.mark.parametrize('number', range(5))
def test_batches_of_each_method(tool, photos, tmp_path, number):
    method = list(tool.METHODS.values())[number]
    tool.prepare(photos, tmp_path / 'data', [0])
    cfg = Config.fromfile(method.path)
    cfg.merge_from_dict(tool.training_options(method, tmp_path / 'data', 10, 0, length=12))
    cfg.train_dataloader.batch_size = 4
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
        batches = [batch['inputs'] for batch in loader]
    assert len(batches) == 3
    for inputs in batches:
        captioned = {tool.BARE: 2, tool.SIMCLR: 0}.get(method, 4)
        assert len(inputs.get('image', ())) == len(inputs.get('text', ())) == captioned
        assert [len(view) for view in inputs.get('views', ())] == [4, 4] * (method != tool.CLIP)


def test_figures(tool, photos, tmp_path, monkeypatch, capsys):
    comparison = load_script('benchmarks/comparison')
    calls, started_from = [], []

    def call(name: str, config: Path, *arguments: object, log: Path) -> float:
        calls.append((name, log.parent.name, log.stem))
        started_from.extend(a for a in map(str, arguments) if a.startswith('load_from='))
        if name == 'test.py':
            path = Path(arguments[arguments.index('--out') + 1])
            value = 10.0 + 2 * int(log.parent.name[-1]) + 5 * ('few' in config.name)
            keys = [
                key
                for key in tool.COLUMNS.values()
                if not config.name.startswith('simclr') or 'z' not in key
            ]
            figures = dict.fromkeys(keys, value)
            figures |= {f'{key}_low': value - 3 for key in keys}
            figures |= {f'{key}_high': value + 3 for key in keys}
            path.write_text(json.dumps(figures))
        return 120.0

    monkeypatch.setattr(comparison, 'call', call)
    costs = {method.config: comparison.Cost(1.0, 10.0) for method in tool.METHODS.values()}
    monkeypatch.setattr(tool, 'step_costs', lambda experiments, cache: costs)
    arguments = [str(photos), '--out', str(tmp_path / 'out'), '--seeds', '0', '1', '--minutes', '1']
    monkeypatch.setattr(sys, 'argv', ['real_photos.py', *arguments])
    tool.main()
    # Twelve trainings of a seed, of which two begin with one of SimCLR; that of SimCLR alone is
    # judged with three sets of labels, that in the beginning not at all.
    assert sum(name == 'train.py' for name, *_ in calls) == 2 * 12
    assert sum(name == 'test.py' for name, *_ in calls) == 2 * 13
    first = tmp_path / 'out' / 'simclr_tiny_photos_100_40_seed1' / 'epoch_10.pth'
    assert started_from.count(f'load_from={first}') == 2
    lines = capsys.readouterr().out.splitlines()
    # 10 and 12: Student's t of one degree times a standard error of 1, and 3 of the photographs.
    half = math.hypot(12.706, 3)
    assert any('10 %' in line and '60' in line and f'11.0 ± {half:.1f}' in line for line in lines)
    assert any('bare images - CLIP' in line and '+5.0 ± 0.0' in line for line in lines)
    # Of 60 s at one second a step, SimCLR has seven tenths, rounded to the ten epochs.
    (staged,) = (line for line in lines if '40 + 20' in line and ' 2 %' in line)
    assert 'SimCLR, then SLIP' in staged
    assert ' 4.0 ' in staged
    assert (tmp_path / 'out' / 'evidence.png').stat().st_size > 10_000
    calls.clear()
    capsys.readouterr()
    monkeypatch.setattr(sys, 'argv', ['real_photos.py', *arguments, '--captions', '2'])
    tool.main()
    assert not calls
    shares = [line.split()[1] for line in capsys.readouterr().out.splitlines() if ' % |' in line]
    assert shares == 11 * ['2']  # five trainings, SimCLR's among them, and six leads


def test_a_step_is_measured(tool, photos, tmp_path):
    comparison = load_script('benchmarks/comparison')
    tool.prepare(photos, tmp_path / 'data', [0])
    options = tool.training_options(tool.CLIP, tmp_path / 'data', 10, 0, length=12)
    options['train_dataloader.batch_size'] = 4
    experiments = dict(clip=(tool.CLIP.path, options))
    cache = tmp_path / 'costs.json'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        cost = comparison.step_costs(experiments, cache, steps=3, warm_up=1)['clip']
    assert 0 < cost.step < 10
    assert cost.epoch == pytest.approx(3 * cost.step)
    assert comparison.step_costs({}, cache) == dict(clip=cost)
