"""Models by name and by config."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config

import mmslip
from mmslip.apis import get_model, init_model, list_models
from mmslip.models import SLIP

ROOT = Path(__file__).parents[2]


def test_every_model_of_the_metafiles_is_listed() -> None:
    names = []
    for path in ROOT.glob('configs/*/metafile.yml'):
        names += [model['Name'] for model in yaml.safe_load(path.read_text())['Models']]
    assert list_models() == sorted(names)
    assert len(names) > 15
    assert list_models('clip_vit-b16_cc?m') == ['clip_vit-b16_cc3m']
    assert list_models('nothing*') == []


def test_a_model_by_name() -> None:
    model = get_model('clip_vit-s16_yfcc15m', device='cpu')
    assert isinstance(model, SLIP)
    assert not model.training
    cfg = Config.fromfile(ROOT / 'configs' / 'clip' / 'clip_vit-s16_yfcc15m.py')
    assert model._config.model == dict(cfg.model, ssl=None)
    assert model.backbone.pos_embed.std() > 0.01  # initialised, not just allocated


def test_weights_are_those_of_the_file(files: tuple[Path, Path]) -> None:
    model = init_model(*files)
    assert model.ssl is None
    weights = torch.load(files[1], weights_only=True)['state_dict']
    own = model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in own.items())
    assert all(name.startswith('ssl.') for name in weights.keys() - own.keys())
    assert not model.training


def test_a_model_without_text_keeps_its_half(files: tuple[Path, Path]) -> None:
    cfg = Config.fromfile(files[0])
    for part in ('neck', 'text_backbone', 'text_neck', 'head'):
        cfg.model.pop(part)
    assert init_model(cfg).ssl is not None
    assert 'neck' not in cfg.model
    assert cfg.model.ssl is not None


@pytest.mark.parametrize(
    ('call', 'kind', 'message'),
    [
        (
            lambda files: get_model('slip_vit-b'),
            FileNotFoundError,
            'slip_vit-b; is slip_',
        ),
        (
            lambda files: get_model('slip_vit-b16_cc3m', True),
            ValueError,
            'No weights of slip_vit-b16_cc3m come',
        ),
        (lambda files: init_model('none.py'), FileNotFoundError, 'no config none.py'),
        (lambda files: init_model(files[0], 'none.pth'), FileNotFoundError, 'none.pth'),
        (lambda files: init_model(Config(dict(lr=1))), ValueError, 'no `model`'),
    ],
)
def test_errors_name_the_fault(files, call, kind, message) -> None:
    with pytest.raises(kind, match=message):
        call(files)


def test_incomplete_weights_are_refused(files: tuple[Path, Path]) -> None:
    weights = torch.load(files[1], weights_only=True)['state_dict']
    del weights['neck.weight']
    weights['text_neck.weight'] = torch.zeros(2, 2)
    torch.save(weights, files[1])
    with pytest.raises(ValueError, match=r'neck.weight is missing; text_neck.weight is \(2, 2\)'):
        init_model(*files)


def test_the_package_offers_them_when_they_are_asked_for() -> None:
    assert mmslip.list_models is list_models
    with pytest.raises(AttributeError, match='nothing'):
        mmslip.nothing  # noqa: B018
    # The interpreter reads the names only when they are asked for. (Where transformers and
    # pycocotools meet, mmslip has to touch mmpretrain at once.)
    code = 'import sys, mmslip; print("mmslip.apis" in sys.modules, mmslip.list_models("slip*3m"))'
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, cwd=ROOT
    )
    expected = "False ['slip_clip-vit-b16_cc3m', 'slip_vit-b16_cc3m']"
    assert run.stdout.strip() == expected, run.stderr
