"""Weights under the names of a model, behind what trainers and wrappers put in front."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mmslip.models import SLIP
from mmslip.registry import MODELS
from mmslip.weights import fit_weights
from mmslip.weights.fit import plain_name
from tests.weights.foreign_models import ModelSpec as Spec
from tests.weights.foreign_models import shake, vit

State = dict[str, Tensor]

# From the names of a model to those of a file.
RENAMED = {
    'plain': lambda name: name,
    'ddp': lambda name: f'module.{name}',
    'compiled': lambda name: f'_orig_mod.{name}',
    'compiled in ddp': lambda name: f'module._orig_mod.{name}',
    'compiled blocks': lambda name: re.sub(r'(layers\.\d+)', r'\1._orig_mod', name),
    'ddp of a tower': lambda name: re.sub('^backbone', 'backbone.module', name),
    'fsdp': lambda name: '_fsdp_wrapped_module.' + name.replace('.', '._fsdp_wrapped_module.', 1),
    'lightning': lambda name: f'model.{name}',
    'lightning, compiled': lambda name: f'model._orig_mod.{name}',
    'lightning, other attribute': lambda name: f'net.{name}',
    'two deep': lambda name: f'learner.online.{name}',
}


@pytest.mark.parametrize('kind', RENAMED)
def test_every_weight_finds_its_place(kind: str, make_slip: Callable[..., SLIP]) -> None:
    model = make_slip()
    weights = {RENAMED[kind](name): value for name, value in model.state_dict().items()}
    fit = fit_weights(weights, model)
    assert fit.exact
    assert fit.loaded == list(model.state_dict())
    assert all(fit.weights[name] is weights[RENAMED[kind](name)] for name in fit.loaded)
    assert fit.report().startswith(f'{len(weights)} of {len(weights)} weights of the model are')
    assert len(fit.report().splitlines()) == 1


def test_tower_alone_in_both_directions(make_slip: Callable[..., SLIP]) -> None:
    model = make_slip()
    tower = model.backbone.state_dict()
    fit = fit_weights(tower, model)
    assert fit.loaded == [f'backbone.{name}' for name in tower]
    assert set(fit.missing) == model.state_dict().keys() - set(fit.loaded)
    assert fit.renamed == ('', 'backbone.')
    whole = {f'model.{name}': value for name, value in model.state_dict().items()}
    fit = fit_weights(whole, model.backbone)
    assert fit.loaded == list(tower)
    assert fit.renamed == ('model.backbone.', '')
    assert not fit.missing
    assert all(fit.weights[name].equal(value) for name, value in tower.items())


def test_a_part_is_never_taken_for_another(make_slip: Callable[..., SLIP]) -> None:
    """Both towers are 32 wide and name their norms alike."""
    model = make_slip()
    text = {k: v for k, v in model.state_dict().items() if k.startswith('text_backbone.')}
    fit = fit_weights(text, model)
    assert fit.loaded == list(text)
    fit = fit_weights(text, model.backbone)
    assert (fit.loaded, fit.unexpected) == ([], list(text))
    with pytest.raises(
        ValueError, match=r'Not one weight of a\.pth fits .* text_backbone\..*layers'
    ):
        fit.require_some('a.pth')


def test_copies_inside_a_model_keep_their_names(make_slip: Callable[..., SLIP]) -> None:
    """A momentum encoder is named ``module.0`` by mmengine; beside it the backbone fits too."""

    class Momentum(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.backbone = inner
            self.momentum = nn.ModuleDict(
                dict(module=shake(MODELS.build(Spec(vit(32, 2)).model()).backbone))
            )

    tower = shake(MODELS.build(Spec(vit(32, 2)).model()).backbone, seed=3)
    model = Momentum(tower)
    fit = fit_weights(model.state_dict(), model)
    assert fit.exact
    assert all(fit.weights[name].equal(value) for name, value in model.state_dict().items())
    compiled = {f'_orig_mod.{name}': value for name, value in model.state_dict().items()}
    fit = fit_weights(compiled, model)
    assert fit.exact
    assert all(fit.weights[name].equal(value) for name, value in model.state_dict().items())


def test_partial_report() -> None:
    old = MODELS.build(Spec(vit(32, 2, image_size=32)).model()).state_dict()
    model = MODELS.build(Spec(vit(32, 2)).model())
    old = {name: value for name, value in old.items() if 'layers.0.ln2' not in name}
    old['backbone.ln1.weight'] = torch.ones(3)
    old['head.fc.weight'] = torch.ones(3)
    fit = fit_weights(old, model)
    assert fit.resized == {'backbone.pos_embed': ((1, 5, 32), (1, 17, 32))}
    assert fit.other_shape == {'backbone.ln1.weight': ((3,), (32,))}
    assert fit.missing == ['backbone.layers.0.ln2.weight', 'backbone.layers.0.ln2.bias']
    assert fit.unexpected == ['head.fc.weight']
    assert fit.weights['backbone.pos_embed'].shape == (1, 5, 32)  # the model does it when loading
    lines = fit.report().splitlines()
    assert lines[0] == '15 of 18 weights of the model are loaded'
    assert lines[1].split() == 'loaded resized other shape missing unexpected'.split()
    assert lines[2].split() == 'backbone 15 1 1 2 0'.split()
    assert lines[3].split() == 'head 0 0 0 0 1'.split()
    assert lines[4:] == [
        'backbone.pos_embed: (1, 5, 32) in the file, (1, 17, 32) in the model',
        'backbone.ln1.weight: (3,) in the file, (32,) in the model',
    ]


def test_plain_name() -> None:
    for name, plain in {
        'module.a.b': 'a.b',
        'a._orig_mod.module.b': 'a.b',
        'a.module': 'a.module',
        'my_module.a': 'my_module.a',
        'modules.a': 'modules.a',
    }.items():
        assert plain_name(name) == plain
