"""Trainings of text towers in shards against one process."""

from pathlib import Path

import pytest

from tests.distributed.pool import run
from tests.distributed.test_sharding import SHARDED, check, train_all
from tests.models.test_text_grid import NO_DROPOUT
from tests.text_parts import MODELS

pytest.importorskip('transformers')

CASES = {
    'modern': dict(
        type='mmslip.ModernTextTransformer', vocab_size=50, width=16, num_layers=2, num_heads=2
    ),
    'hugging_face': dict(
        type='mmslip.HuggingFaceText', config={**MODELS['bert'], **NO_DROPOUT}, pooling='last'
    ),
}


@pytest.mark.dist
def test_two_processes_equal_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('LOCAL_RANK', '0')
    cases = {name: dict(model=dict(text_backbone=tower, ssl=None)) for name, tower in CASES.items()}
    whole = train_all(0, 1, str(tmp_path), dict(one={}), cases)
    check(tmp_path, whole, run(train_all, 2, str(tmp_path), dict(sharded=SHARDED), cases))
