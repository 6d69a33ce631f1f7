"""The command that evaluates on all 26 sets, on a few images of each in its published layout."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmslip.datasets.tasks import list_tasks, load_task
from mmslip.evaluation import ClassEmbedder
from tests.evaluation.conftest import CLASSES
from tests.evaluation.fixtures import write_sets

CONFIG = 'zero_shot/zero_shot_26.py'
# The sets here are not the complete ones.
ANY_SIZE = [f'test_dataloader.dataset.datasets.{name}.samples=None' for name in list_tasks()]


@pytest.fixture(scope='module')
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('sets')
    write_sets(folder)
    return folder


@pytest.fixture(autouse=True)
def _data(sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'data').symlink_to(sets)
    monkeypatch.setattr('mmpretrain.datasets.cifar.check_md5', lambda *_: True)


@pytest.fixture
def plant_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Class embeddings are one-hot."""
    monkeypatch.setattr(
        ClassEmbedder,
        '__call__',
        lambda _, model, tasks: {
            name: torch.eye(CLASSES)[: len(classes)] for name, (classes, _) in tasks.items()
        },
    )


def official_figures(figures: dict) -> dict[str, float]:
    return {name: figures[f'zero_shot/{name}_{load_task(name).metric}'] for name in list_tasks()}


@pytest.mark.usefixtures('plant_classes')
def test_a_planted_model_is_right_on_every_set(
    evaluate: Callable[..., dict], plant: Callable
) -> None:
    plant()
    figures = evaluate(CONFIG, *ANY_SIZE)
    assert official_figures(figures) == dict.fromkeys(list_tasks(), 100.0)
    assert figures['zero_shot/mean'] == 100


@pytest.mark.usefixtures('plant_classes')
def test_a_random_model_is_at_chance(evaluate: Callable[..., dict], plant: Callable) -> None:
    random = torch.Generator().manual_seed(0)
    plant(lambda image: torch.randn(len(image), CLASSES, generator=random))
    figures = evaluate(CONFIG, *ANY_SIZE)
    many = [name for name in list_tasks() if len(load_task(name).classes) >= 37]
    # 46 images or so of which one in 37 or less is right by chance: more than 5 has p < 0.01.
    assert np.mean([figures[f'zero_shot/{name}_top1'] for name in many]) < 10
    assert figures['zero_shot/mean'] < 40


def test_real_towers_on_every_set_but_an_absent_one(evaluate: Callable[..., dict]) -> None:
    kitti = 'test_dataloader.dataset.datasets.kitti_distance.dataset.data_root'
    figures = evaluate(CONFIG, *ANY_SIZE, f'{kitti}=data/nowhere')
    present = [name for name in list_tasks() if name != 'kitti_distance']
    official = [figures[f'zero_shot/{name}_{load_task(name).metric}'] for name in present]
    assert all(0 <= figure <= 100 for figure in official)
    assert figures['zero_shot/mean'] == pytest.approx(np.mean(official))
    assert not [key for key in figures if 'kitti' in key]
    lines = [json.loads(line) for line in Path('work/results.jsonl').read_text().splitlines()]
    skipped = [line for line in lines if 'kitti_distance' in line.values()]
    assert len(skipped) == 1
    assert 'there is no folder data/nowhere' in skipped[0].values()
