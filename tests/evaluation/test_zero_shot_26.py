"""The command that evaluates on all 26 sets, on a few images of each in its published layout."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmslip.evaluation import ClassEmbedder, list_tasks, load_task
from mmslip.registry import MODELS
from tests.evaluation.fixtures import class_of, write_sets

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs' / 'benchmarks' / 'zero_shot' / 'zero_shot_26.py'
CLASSES = 1000  # of the largest task

MODEL = f"""
model = dict(
    type='mmslip.SLIP',
    data_preprocessor=dict(type='mmslip.SLIPDataPreprocessor'),
    backbone=dict(
        type='mmslip.VisionTransformer',
        arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32),
        img_size=224,
        patch_size=32,
    ),
    neck=dict(type='mmslip.LinearProjection', in_channels=16, out_channels={CLASSES}),
    text_backbone=dict(
        type='mmslip.TextTransformer', context_length=77, width=16, num_layers=1, num_heads=2
    ),
    text_neck=dict(type='mmslip.LinearProjection', in_channels=16, out_channels={CLASSES}),
    head=dict(type='mmslip.CLIPHead'),
)
"""


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict]:
    """Runs ``tools/test.py`` on a few images a set with random weights; returns the figures."""
    write_sets(tmp_path / 'data')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('mmpretrain.datasets.cifar.check_md5', lambda *_: True)
    spec = importlib.util.spec_from_file_location('evaluate', ROOT / 'tools' / 'test.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    Path('model.py').write_text(MODEL)
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile('model.py').model)
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), 'weights.pth')

    def run() -> dict:
        samples = [f'test_dataloader.dataset.datasets.{name}.samples=None' for name in list_tasks()]
        options = [
            'test_dataloader.num_workers=0',
            f'experiment_name={tmp_path.name}',
        ]
        arguments = [str(CONFIG), 'weights.pth', '--model', 'model.py', '--out', 'figures.json']
        arguments += ['--work-dir', 'work', '--cfg-options', *samples, *options]
        monkeypatch.setattr(sys, 'argv', ['test.py', *arguments])
        tool.main()
        return json.loads(Path('figures.json').read_text())

    return run


def planted_features(image: Tensor) -> Tensor:
    """One-hot class ``(B, CLASSES)`` of the colour of each image ``(B, 3, H, W)``, normalised."""
    deviation = torch.tensor([58.395, 57.12, 57.375])
    mean = torch.tensor([123.675, 116.28, 103.53])
    colours = image.mean(dim=(2, 3)) * deviation + mean  # (B, 3), RGB
    return nn.functional.one_hot(torch.tensor([class_of(c) for c in colours]), CLASSES).float()


def plant(monkeypatch: pytest.MonkeyPatch, features: Callable[[Tensor], Tensor]) -> None:
    """Let the image tower give ``features`` and the text tower one-hot class embeddings."""
    monkeypatch.setattr('mmslip.models.VisionTransformer.forward', lambda _, x: (features(x),))
    monkeypatch.setattr('mmslip.models.LinearProjection.forward', lambda _, feats: feats[-1])
    monkeypatch.setattr(
        ClassEmbedder,
        '__call__',
        lambda _, model, tasks: {
            name: torch.eye(CLASSES)[: len(classes)] for name, (classes, _) in tasks.items()
        },
    )


def official_figures(figures: dict) -> dict[str, float]:
    return {name: figures[f'zero_shot/{name}_{load_task(name).metric}'] for name in list_tasks()}


def test_a_planted_model_is_right_on_every_set(
    evaluate: Callable[[], dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, planted_features)
    figures = evaluate()
    assert official_figures(figures) == dict.fromkeys(list_tasks(), 100.0)
    assert figures['zero_shot/mean'] == 100


def test_a_random_model_is_at_chance(
    evaluate: Callable[[], dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    random = torch.Generator().manual_seed(0)
    plant(monkeypatch, lambda image: torch.randn(len(image), CLASSES, generator=random))
    figures = evaluate()
    many = [name for name in list_tasks() if len(load_task(name).classes) >= 37]
    # 46 images or so of which one in 37 or less is right by chance: more than 5 has p < 0.01.
    assert np.mean([figures[f'zero_shot/{name}_top1'] for name in many]) < 10
    assert figures['zero_shot/mean'] < 40


def test_real_towers_on_every_set_and_absent_sets_are_named(
    evaluate: Callable[[], dict], capfd: pytest.CaptureFixture
) -> None:
    Path('data/kitti').rename('data/elsewhere')
    figures = evaluate()
    present = [name for name in list_tasks() if name != 'kitti_distance']
    official = [figures[f'zero_shot/{name}_{load_task(name).metric}'] for name in present]
    assert all(0 <= figure <= 100 for figure in official)
    assert figures['zero_shot/mean'] == pytest.approx(np.mean(official))
    assert not [key for key in figures if 'kitti' in key]
