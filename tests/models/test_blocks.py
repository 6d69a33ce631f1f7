"""Blocks of towers: the exact list, of each kind."""

import copy
import re
from collections.abc import Callable

import pytest
from mmpretrain.registry import MODELS
from torch import nn

from mmslip.models import SLIP
from mmslip.models.blocks import find_blocks

TOWERS = {
    'VisionTransformer': (
        dict(type='mmslip.VisionTransformer', arch='small', img_size=32),
        [f'layers.{block}' for block in range(12)],
    ),
    'TextTransformer': (
        dict(type='mmslip.TextTransformer', width=32, num_heads=2, num_layers=1),
        ['layers.0'],
    ),
    'MAEViT': (dict(type='MAEViT', img_size=32), [f'layers.{block}' for block in range(12)]),
    'ResNet': (
        dict(type='ResNet', depth=50),
        [f'layer{s + 1}.{block}' for s, depth in enumerate((3, 4, 6, 3)) for block in range(depth)],
    ),
    'SwinTransformer': (
        dict(type='SwinTransformer', arch='tiny', img_size=64),
        [f'stages.{s}.blocks.{block}' for s, n in enumerate((2, 2, 6, 2)) for block in range(n)],
    ),
    'ConvNeXt': (
        dict(type='ConvNeXt', arch='atto'),
        [f'stages.{stage}.{block}' for stage, n in enumerate((2, 2, 6, 2)) for block in range(n)],
    ),
    'CoAtNet of timm': (
        dict(type='TIMMBackbone', model_name='coatnet_pico_rw_224'),
        [
            f'timm_model.stages.{stage}.blocks.{block}'
            for stage, n in enumerate((2, 3, 5, 2))
            for block in range(n)
        ],
    ),
    # Blocks of lists within lists, and squeeze-and-excitation within blocks.
    'EfficientNet of timm': (
        dict(type='TIMMBackbone', model_name='efficientnet_b0'),
        [
            f'timm_model.blocks.{stage}.{block}'
            for stage, n in enumerate((1, 2, 2, 3, 3, 4, 1))
            for block in range(n)
        ],
    ),
}


@pytest.mark.parametrize('tower', TOWERS)
def test_blocks_of_a_tower(tower: str) -> None:
    cfg, names = TOWERS[tower]
    model = MODELS.build(cfg)
    found = find_blocks(model)
    assert list(found) == names
    assert all(found[name] is model.get_submodule(name) for name in names)


def test_both_towers_and_those_of_the_method_are_searched(make_slip: Callable[..., SLIP]) -> None:
    model = make_slip()
    both = [f'{tower}.layers.{n}' for tower in ('backbone', 'text_backbone') for n in (0, 1)]
    assert list(find_blocks(model)) == both
    # As in MoCo v3: the neck beside the momentum encoder is no block.
    model.ssl.momentum = nn.Sequential(copy.deepcopy(model.backbone), copy.deepcopy(model.ssl.neck))
    momentum = [f'ssl.momentum.0.layers.{n}' for n in (0, 1)]
    assert list(find_blocks(model)) == [*both, *momentum]


def test_a_tower_without_blocks_is_named(make_slip: Callable[..., SLIP]) -> None:
    model = make_slip()
    model.backbone = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.Conv2d(8, 8, 4))
    message = 'in backbone: set block_types of mmslip.SpeedHook to the classes of its blocks'
    with pytest.raises(ValueError, match=message):
        find_blocks(model)
    # VGG is a list of single layers, which can be named.
    model = MODELS.build(dict(type='VGG', depth=11))
    with pytest.raises(ValueError, match=re.escape('VGG holds ConvModule.')):
        find_blocks(model)
    assert len(find_blocks(model, ['ConvModule'])) == 8
    with pytest.raises(ValueError, match='no block of type ConvModul'):
        find_blocks(model, ['ConvModule', 'ConvModul'])


class Halves(nn.Module):
    """Says itself what its blocks are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

    def get_blocks(self) -> list[nn.Module]:
        return [self.second]


def test_a_tower_may_say_which_its_blocks_are() -> None:
    model = Halves()
    assert find_blocks(model) == dict(second=model.second)
    assert list(find_blocks(model, ['Linear'])) == ['first', 'second']
