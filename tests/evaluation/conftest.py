"""Runs of ``tools/test.py`` with a tiny model, real or planted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmslip.cli import test
from mmslip.registry import MODELS
from tests.evaluation.fixtures import class_of

ROOT = Path(__file__).parents[2]
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
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    """Evaluates a model of random weights in an empty folder; returns the figures.

    Its arguments are the config's path below ``configs/benchmarks`` and settings ``KEY=VALUE``.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('gc.collect', lambda: 0)  # slow, and called for each data set
    Path('model.py').write_text(MODEL)
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile('model.py').model)
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), 'weights.pth')

    def run(config: str, *options: str) -> dict:
        arguments = [str(ROOT / 'configs' / 'benchmarks' / config), 'weights.pth']
        arguments += ['--model', 'model.py', '--out', 'figures.json', '--work-dir', 'work']
        settings = ['test_dataloader.num_workers=0', f'experiment_name={tmp_path.name}', *options]
        test.main([*arguments, '--cfg-options', *settings])
        return json.loads(Path('figures.json').read_text())

    return run


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Tensor], Tensor]], None]:
    """Lets the image tower give what a function makes of the pixels, and its projection that."""

    def replace(features: Callable[[Tensor], Tensor] = colour_features) -> None:
        # The planted tower has a width of its own.
        monkeypatch.setattr('mmslip.models.slip.feature_width', lambda *_, **__: None)
        monkeypatch.setattr('mmslip.models.VisionTransformer.forward', lambda _, x: (features(x),))
        monkeypatch.setattr('mmslip.models.LinearProjection.forward', lambda _, feats: feats[-1])

    return replace


def colour_features(image: Tensor) -> Tensor:
    """One-hot class ``(B, CLASSES)`` of the colour of each image ``(B, 3, H, W)``, normalised."""
    deviation = torch.tensor([58.395, 57.12, 57.375])
    mean = torch.tensor([123.675, 116.28, 103.53])
    colours = image.mean(dim=(2, 3)) * deviation + mean  # (B, 3), RGB
    return nn.functional.one_hot(torch.tensor([class_of(c) for c in colours]), CLASSES).float()
