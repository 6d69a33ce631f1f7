"""Towers of which only the last groups train."""

from collections.abc import Callable

import pytest
import torch

from mmslip.models import SLIP
from mmslip.models.depth import number_of_groups
from mmslip.registry import MODELS
from mmslip.weights import FORMATS
from tests.weights.foreign_models import CLIP, open_clip_config, random_slip


@pytest.mark.parametrize('number', [0, 1, 2, 3])
def test_groups_are_those_of_open_clip(number: int) -> None:
    """open_clip counts the projection as the first group, which is a part of its own here."""
    peer = pytest.importorskip('open_clip.model').CLIP(**open_clip_config())
    peer.visual.lock(unlocked_groups=number + 1)
    trains = {
        name: torch.full_like(param, float(param.requires_grad))
        for name, param in peer.named_parameters()
    }
    expected, _ = FORMATS['open_clip'].to_mmslip(trains)
    model = MODELS.build(
        dict(CLIP.model(), frozen=['backbone'], unlocked_groups=dict(backbone=number))
    )
    found = {name: float(param.requires_grad) for name, param in model.named_parameters()}
    expected = {
        name: float(value.flatten()[0])
        for name, value in expected.items()
        if name.startswith(('backbone.', 'neck.'))
    }
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ('number', 'trains'),
    [
        (0, ()),
        (1, ('layers.1.', 'ln_final.')),
        (2, ('layers.0.', 'layers.1.', 'ln_final.')),
        (3, ('',)),
    ],
)
def test_groups_of_the_text_tower(
    make_slip: Callable[..., SLIP], number: int, trains: tuple[str, ...]
) -> None:
    model = make_slip(frozen=['text_backbone'], unlocked_groups=dict(text_backbone=number))
    for name, param in model.named_parameters():
        tower, _, rest = name.partition('.')
        expected = tower != 'text_backbone' or rest.startswith(trains)
        assert param.requires_grad is expected, name


def test_groups_of_the_convolutional_tower() -> None:
    tower = dict(type='mmslip.ConvTower', width=8, num_stages=2, out_channels=8)
    text = dict(vocab_size=9, context_length=4, width=8, num_layers=1, num_heads=1)
    neck = dict(type='mmslip.LinearProjection', out_channels=4)
    model = SLIP(
        tower,
        neck,
        dict(text, type='mmslip.TextTransformer'),
        neck,
        dict(type='mmslip.CLIPHead'),
        frozen=['backbone'],
        unlocked_groups=dict(backbone=1),
    )
    assert number_of_groups(model, 'backbone') == 3
    trains = {name for name, param in model.backbone.named_parameters() if param.requires_grad}
    assert {name.rpartition('.')[0][:8] for name in trains} == {'fc', 'stages.1'}


def test_frozen_layers_are_in_evaluation_mode(make_slip: Callable[..., SLIP]) -> None:
    """Drop path of an unlocked block stays on; all that is frozen behaves as in evaluation."""
    model = make_slip(frozen=['backbone'], unlocked_groups=dict(backbone=1))
    for trained in (model, model.train(), model.eval().train()):
        first, last = trained.backbone.layers
        assert not any(module.training for module in first.modules())
        assert all(module.training for module in last.modules())
        assert not trained.backbone.patch_embed.training
        assert trained.text_backbone.training
    assert not any(module.training for module in model.eval().modules())


def test_gradients_stop_at_the_frozen_layers(make_slip: Callable[..., SLIP]) -> None:
    model = make_slip(frozen=['backbone'], unlocked_groups=dict(backbone=1), ssl=None)
    image = torch.randn(2, 3, 32, 32, requires_grad=True)
    model.encode_image(image.detach()).square().sum().backward()
    got = {name for name, param in model.backbone.named_parameters() if param.grad is not None}
    assert {name.split('.')[0] for name in got} == {'layers', 'ln1'}
    assert all(name.startswith(('layers.1.', 'ln1.')) for name in got)


@pytest.mark.parametrize(
    ('frozen', 'unlocked', 'message'),
    [
        ([], dict(backbone=1), "names 'backbone', which is no frozen tower: add it to frozen"),
        (['neck'], dict(neck=1), r"names 'neck', which is no frozen tower"),
        (['backbone'], dict(backbone=4), 'backbone is 4: the tower has 3 groups, 2 blocks and'),
        (['backbone'], dict(backbone=-1), 'unlocked_groups.backbone is -1'),
        (['backbone'], dict(backbone='2'), "unlocked_groups.backbone is '2'"),
    ],
)
def test_what_cannot_be_meant(
    make_slip: Callable[..., SLIP], frozen: list[str], unlocked: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_slip(frozen=frozen, unlocked_groups=unlocked)


def test_the_norm_before_the_blocks_is_an_embedding() -> None:
    """mmpretrain counts CLIP's with what follows the blocks."""
    tower = random_slip(CLIP).backbone
    depths = {name: tower.get_layer_depth(f'x.{name}', 'x.') for name in tower.state_dict()}
    assert depths['pre_norm.weight'] == depths['cls_token'] == (0, 4)
    assert depths['ln1.weight'] == (3, 4)
