"""The comparison of one caption with all of them: its data, its runs and its table."""

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

from mmslip.registry import DATASETS
from tests.scripts import load_script

NUMBER, HELD_OUT = 9, 3


@pytest.fixture
def tool():
    return load_script('benchmarks/several_captions')


@pytest.fixture
def photos(tmp_path):
    """Photographs of several sizes with five captions each."""
    (tmp_path / 'images').mkdir()
    rows = []
    for place in range(NUMBER):
        pixels = np.full((70 + place, 90, 3), 20 * place, np.uint8)
        cv2.imwrite(str(tmp_path / 'images' / f'{place}.png'), pixels)
        captions = [f'picture {place} told in way {way}' for way in range(5)]
        rows.append(json.dumps(dict(image=f'{place}.png', caption=captions)))
    (tmp_path / 'captions.jsonl').write_text('\n'.join(rows))
    return tmp_path


def test_batches(tool, photos, tmp_path):
    """One caption or five of each photograph; none of those that are judged is trained on."""
    split = tmp_path / 'split.json'
    tool.hold_out(photos, split, HELD_OUT)
    for name, captions in zip(tool.METHODS, ((), (5,)), strict=True):
        cfg = Config.fromfile(tool.METHODS[name])
        cfg.merge_from_dict(tool.training_options(photos, split, seed=0, length=12))
        cfg.merge_from_dict(tool.test_options(photos, split))
        cfg.train_dataloader.batch_size = 4
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
            judged = DATASETS.build(cfg.test_dataloader.dataset)
            batches = [batch['inputs'] for batch in loader]
        assert len(batches) == 3
        assert {inputs['text'].shape for inputs in batches} == {(4, *captions, 24)}
        assert {inputs['image'].shape for inputs in batches} == {(4, 3, 64, 64)}
        trained = loader.dataset.datasets[0]
        assert (len(trained), len(judged)) == (NUMBER - HELD_OUT, HELD_OUT)
        paths = [
            {part.get_data_info(n)['img_path'] for n in range(len(part))}
            for part in (trained, judged)
        ]
        assert not paths[0] & paths[1]
        assert judged[0]['data_samples'].caption_ids.shape == (5, 24)


def test_table(tool, photos, tmp_path, monkeypatch, capsys):
    comparison = load_script('benchmarks/comparison')
    calls = []

    def call(name: str, config: Path, *arguments: object, log: Path) -> float:
        calls.append(name)
        if name == 'test.py':
            path = Path(arguments[arguments.index('--out') + 1])
            value = 10.0 + 2 * int(log.parent.name[-1]) - 4 * ('five' in config.name)
            figures = {}
            for key in tool.COLUMNS.values():
                figures |= {key: value, f'{key}_low': value - 3, f'{key}_high': value + 3}
            path.write_text(json.dumps(figures))
        return 120.0

    monkeypatch.setattr(comparison, 'call', call)
    costs = {name: comparison.Cost(1.0 + place, 10.0) for place, name in enumerate(tool.METHODS)}
    monkeypatch.setattr(tool, 'step_costs', lambda experiments, cache: costs)
    arguments = [str(photos), '--out', str(tmp_path / 'out'), '--seeds', '0', '1']
    monkeypatch.setattr(sys, 'argv', ['several_captions.py', *arguments, '--held-out', '3'])
    tool.main()
    assert calls.count('train.py') == calls.count('test.py') == 4
    lines = capsys.readouterr().out.splitlines()
    half = math.hypot(12.706, 3)  # Student's t of one degree times 1, and 3 of the photographs
    assert any('drawn' in line and '120' in line and f'11.0 ± {half:.1f}' in line for line in lines)
    assert any('five' in line and '60' in line and f'7.0 ± {half:.1f}' in line for line in lines)
    assert any('all - one' in line and '-4.0 ± 0.0' in line for line in lines)
