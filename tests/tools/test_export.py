"""Exported towers, run by onnxruntime and by torch.export."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmslip.models import SLIP
from mmslip.models.adapters import Facts
from mmslip.models.adapters.facts import IMAGENET_PIXELS
from tests.models.foreign_models import CLIP, SIDE, images, load_tool, random_slip, save, texts, vit


@torch.no_grad()
@pytest.mark.parametrize('to', ['onnx', 'torch'])
def test_export(to: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip('onnxscript')
    clip = replace(CLIP, vision=replace(CLIP.vision, layers=1), text=replace(CLIP.text, layers=1))
    model = random_slip(clip)
    ours = save(model, clip, tmp_path / 'ours')
    load_tool('export').main([*map(str, (ours / 'config.py', ours, tmp_path / 'out')), '--to', to])
    assert 'embeddings differ by at most' in capsys.readouterr().out
    facts = json.loads((tmp_path / 'out' / 'export.json').read_text())
    for name, inputs, encode in (
        ('image', images(), model.encode_image),
        ('text', texts(), model.encode_text),
    ):
        path = tmp_path / 'out' / facts[name]['file']
        for batch in (inputs, inputs[:1], inputs.repeat(4, *[1] * (inputs.dim() - 1))):
            expected = F.normalize(encode(batch), dim=-1)
            got = run_exported(path, name, batch)
            np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=1e-4)
    assert facts['normalised'] is True
    assert facts['image']['size'] == SIDE
    assert facts['image']['mean'] == pytest.approx(CLIP.pixels[0])
    assert facts['image']['std'] == pytest.approx(CLIP.pixels[1])
    assert facts['text']['context_length'] == CLIP.text.context_length
    assert facts['scale'] == pytest.approx(model.head.logit_scale.exp().item())


def run_exported(path: Path, name: str, batch: torch.Tensor) -> np.ndarray:
    if path.suffix == '.pt2':
        return torch.export.load(path).module()(batch).numpy()
    onnxruntime = pytest.importorskip('onnxruntime')
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return session.run(['embed'], {name: batch.numpy()})[0]


@torch.no_grad()
def test_export_of_an_image_tower_alone(tmp_path: Path) -> None:
    facts = Facts(vit(32, 2), pixels=IMAGENET_PIXELS)
    model = random_slip(facts)
    ours = save(model, facts, tmp_path / 'ours')
    load_tool('export').main(
        [*map(str, (ours / 'config.py', ours, tmp_path / 'out')), '--to', 'torch']
    )
    described = json.loads((tmp_path / 'out' / 'export.json').read_text())
    assert described['normalised'] is False
    assert described.keys() == {'image', 'normalised'}
    got = run_exported(tmp_path / 'out' / 'image.pt2', 'image', images(64))
    np.testing.assert_allclose(got, model.backbone(images(64))[-1].numpy(), rtol=0, atol=1e-5)


def test_export_needs_the_scale_of_the_pixels(tmp_path: Path) -> None:
    facts = Facts(vit(32, 2))
    ours = save(random_slip(facts), facts, tmp_path / 'ours')
    model = {key: value for key, value in facts.config().items() if key != 'data_preprocessor'}
    (ours / 'config.py').write_text(f'model = {model!r}')
    with pytest.raises(SystemExit, match=r'config\.py has no data_preprocessor with mean and std'):
        load_tool('export').main([*map(str, (ours / 'config.py', ours, tmp_path / 'out'))])


@torch.no_grad()
def test_projections_that_return_tuples(make_slip: Callable[..., SLIP]) -> None:
    mlp = dict(
        type='mmslip.MLPProjection',
        in_channels=32,
        hid_channels=24,
        out_channels=16,
        num_layers=2,
        norm_cfg=dict(type='BN1d'),
    )
    model = make_slip(neck=mlp, text_neck=mlp).eval()
    tool = load_tool('export')
    for name, example in tool.example_inputs(model, 32, batch=3).items():
        encode = model.encode_image if name == 'image' else model.encode_text
        expected = F.normalize(encode(example), dim=-1)
        assert torch.equal(tool.towers_of(model)[name](example), expected)
