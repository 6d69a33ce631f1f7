"""`tools/test.py`: a folder of one's own, a choice of sets, weights that do not fit."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmslip.cli import test
from mmslip.models import SLIP
from mmslip.registry import MODELS

ROOT = Path(__file__).parents[2]

MODEL = """
model = dict(
    type='mmslip.SLIP',
    backbone=dict(
        type='mmslip.VisionTransformer',
        arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32),
        img_size=32,
        patch_size=16,
    ),
    neck=dict(type='mmslip.LinearProjection', in_channels=16, out_channels=8),
    text_backbone=dict(
        type='mmslip.TextTransformer', context_length=16, width=16, num_layers=1, num_heads=2
    ),
    text_neck=dict(type='mmslip.LinearProjection', in_channels=16, out_channels=8),
    head=dict(type='mmslip.CLIPHead'),
    ssl=dict(
        type='mmslip.SimCLR',
        neck=dict(type='LinearNeck', in_channels=16, out_channels=8, gap_dim=0),
        head=dict(type='mmslip.SimCLRHead'),
    ),
)
"""
SETS = """
_base_ = ['{root}/configs/_base_/default_runtime.py']
pipeline = [
    dict(type='mmslip.LoadImage'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='mmslip.PackSLIPInputs'),
]
task = dict(classes=['red', 'green', 'blue'], labels=['a', 'b', 'c'])
sets = {{
    name: dict(
        type='mmslip.EvaluationDataset',
        task=dict(task, name=name),
        dataset=dict(type='CustomDataset', data_root='{data}/colours', with_label=True),
    )
    for name in ('first', 'second')
}}
test_dataloader = dict(
    batch_size=4,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='mmslip.EvaluationSuite', datasets=sets, pipeline=pipeline),
)
test_evaluator = dict(type='mmslip.ZeroShotAccuracy')
test_cfg = dict()
custom_hooks = [*_base_.custom_hooks, dict(type='mmslip.ZeroShotHook')]
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(vis_backends=vis_backends)
"""
COLOURS = dict(a=(0, 0, 255), b=(0, 255, 0), c=(255, 0, 0))  # BGR


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Configs, pictures of three colours, and the checkpoint of a random model."""
    for folder, colour in COLOURS.items():
        (tmp_path / 'colours' / folder).mkdir(parents=True)
        for number in range(3):
            image = np.full((40, 50, 3), colour, np.uint8)
            cv2.imwrite(str(tmp_path / 'colours' / folder / f'{number}.png'), image)
    (tmp_path / 'model.py').write_text(MODEL)
    (tmp_path / 'sets.py').write_text(SETS.format(root=ROOT, data=tmp_path))
    scope: dict = {}
    exec(MODEL, scope)
    torch.manual_seed(0)
    model = MODELS.build(scope['model'])
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'weights.pth')
    return tmp_path


@pytest.fixture
def evaluate(prepared: Path, monkeypatch) -> Callable[..., dict]:
    """Run the tool on the prepared files; returns the metrics."""

    def run(*options: object, model: Path | None = None) -> dict:
        out = prepared / 'metrics.json'
        command = [prepared / 'sets.py', prepared / 'weights.pth', '--work-dir', prepared / 'out']
        command += ['--model', model or prepared / 'model.py', '--out', out, *options]
        command += ['--cfg-options', f'experiment_name={prepared.name}']
        test.main([*map(str, command)])
        return json.loads(out.read_text())

    return run


def plant(monkeypatch) -> None:
    """A model that knows the mean colour of an image and the names of three colours."""

    def encode_text(self: SLIP, text: torch.Tensor) -> torch.Tensor:
        # ids of the vocabulary: red</w> 736, green</w> 1901, blue</w> 1746
        return torch.stack([(text == word).any(1).float() for word in (736, 1901, 1746)], dim=1)

    monkeypatch.setattr(SLIP, 'encode_text', encode_text)
    monkeypatch.setattr(
        'mmslip.models.LinearProjection.forward', lambda self, feats: feats[-1][:, :3]
    )
    monkeypatch.setattr(
        'mmslip.models.VisionTransformer.forward',
        lambda self, image: (torch.cat([image.mean((2, 3)), torch.zeros(len(image), 13)], 1),),
    )


def test_a_choice_of_sets(evaluate):
    assert {key for key in evaluate() if key.endswith('top1')} == {
        'zero_shot/first_top1',
        'zero_shot/second_top1',
    }
    chosen = evaluate('--tasks', 'second')
    assert 'zero_shot/second_top1' in chosen
    assert 'zero_shot/first_top1' not in chosen


def test_weights_that_do_not_fit_are_refused(evaluate, prepared):
    other = prepared / 'other.py'
    inferred = MODEL.replace('in_channels=16, ', '')
    other.write_text(inferred.replace('embed_dims=16', 'embed_dims=32'))
    with pytest.raises(SystemExit, match=r'cls_token is \(1, 1, 16\), not \(1, 1, 32\).*--model'):
        evaluate(model=other)
    other.write_text(MODEL.replace('num_layers=1', 'num_layers=2'))
    with pytest.raises(SystemExit, match=r'backbone\.layers\.1\S* is missing'):
        evaluate(model=other)


def test_mistakes_of_the_command_line(evaluate, prepared):
    with pytest.raises(SystemExit, match='no evaluation set third: choose among first, second'):
        evaluate('--tasks', 'third')
