"""The comparison of CLIP, SimCLR and SLIP: its table, and that it goes on where it stopped."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools' / 'benchmarks' / 'paper_claim.py'


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('paper_claim', TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules['paper_claim'] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules['paper_claim']


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

    monkeypatch.setattr(tool, 'call', call)
    monkeypatch.setattr(
        sys, 'argv', ['paper_claim.py', '--out', str(tmp_path), '--seeds', '1', '3']
    )
    tool.main()
    runs = {method.folder(tmp_path, seed).name for method in tool.METHODS for seed in (1, 3)}
    assert len(runs) == 2 * len(tool.METHODS)
    assert sorted(calls) == sorted((name, run) for run in runs for name in ('train.py', 'test.py'))
    lines = capsys.readouterr().out.splitlines()
    # Seeds 1 and 3: mean 22 and 20; standard error 1 and 10, times Student's t of one degree, 12.7.
    clip = next(line for line in lines if line.startswith('│ CLIP  '))
    assert '1.5' in clip
    assert '22.0 ± 12.7' in clip
    assert '20.0 ± 127.1' in clip
    assert '5.0 ± 0.0' in clip
    # Seed against seed the lead does not vary.
    assert any('SLIP - CLIP ' in line and '+7.0 ± 0.0' in line for line in lines)
    simclr = next(line for line in lines if line.startswith('│ SimCLR'))
    assert simclr.count(' - ') == 4

    calls.clear()
    tool.main()
    assert not calls
