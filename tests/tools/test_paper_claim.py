"""The comparison of CLIP, SimCLR and SLIP: equal time, its table, going on where it stopped."""

import json
import sys
from pathlib import Path

import pytest

from tests.scripts import load_script


@pytest.fixture
def tool(monkeypatch):
    tool, comparison = load_script('benchmarks/paper_claim'), load_script('benchmarks/comparison')
    # Minutes of an epoch.
    minutes = dict(CLIP=1.0, SimCLR=2.0, SLIP=3.0)
    costs = {name: comparison.Cost(1.5, 60 * value) for name, value in minutes.items()}
    monkeypatch.setattr(tool, 'step_costs', lambda experiments, cache: costs)
    return tool


def test_every_method_is_trained_and_judged_once(tool, tmp_path, monkeypatch, capsys):
    calls = []

    def call(name: str, config: Path, *arguments: object, log: Path) -> float:
        assert config.is_file()
        calls.append((name, log.parent.name))
        if name == 'test.py':
            seed = int(log.parent.name[-1])
            figures = {'linear/kinds_top1': 10.0 * seed, 'knn/kinds_top1': 5.0}
            if 'simclr' not in config.name:
                figures['zero_shot/unseen_top1'] = 20.0 + seed + 7 * ('slip' in config.name)
            Path(arguments[-1]).write_text(json.dumps(figures))
        return 90.0

    monkeypatch.setattr(load_script('benchmarks/comparison'), 'call', call)
    arguments = ['--out', str(tmp_path), '--seeds', '1', '3', '--minutes', '6']
    monkeypatch.setattr(sys, 'argv', ['paper_claim.py', *arguments])
    tool.main()
    # As many epochs as take six minutes.
    lengths = dict(clip=6, simclr=3, slip=2)
    runs = [
        f'{name}_tiny_emoji_{epochs}e_seed{seed}'
        for name, epochs in lengths.items()
        for seed in (1, 3)
    ]
    assert sorted(calls) == sorted((name, run) for run in runs for name in ('train.py', 'test.py'))
    lines = capsys.readouterr().out.splitlines()
    # Seeds 1 and 3: mean 22 and 20; standard error 1 and 10, times Student's t of one degree, 12.7.
    clip = next(line for line in lines if line.startswith('| CLIP  '))
    assert '1.5' in clip
    assert '22.0 ± 12.7' in clip
    assert '20.0 ± 127.1' in clip
    assert '5.0 ± 0.0' in clip
    # Seed against seed the lead does not vary.
    assert any('SLIP - CLIP ' in line and '+7.0 ± 0.0' in line for line in lines)
    simclr = next(line for line in lines if line.startswith('| SimCLR'))
    assert simclr.count(' - ') == 4

    calls.clear()
    tool.main()
    assert not calls
