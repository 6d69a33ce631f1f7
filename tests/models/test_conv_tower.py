"""The convolutional tower."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmslip.models import SLIP, ConvTower
from mmslip.models.blocks import find_blocks


def test_feature_is_a_matrix_of_the_last_map() -> None:
    torch.manual_seed(0)
    tower = ConvTower(width=16, patch_size=2, num_blocks=2, grid=2, out_channels=6)
    x = torch.randn(3, 3, 8, 8)
    (out,) = tower(x)
    maps = x
    for stage in tower.stages:
        conv, norm, _, *blocks = stage
        padding = 1 if stage is tower.stages[1] else 0  # patches do not overlap
        maps = F.relu(norm(F.conv2d(maps, conv.weight, stride=2, padding=padding)))
        for block in blocks:
            inner = F.relu(block.norm1(F.conv2d(maps, block.conv1.weight, padding=1)))
            maps = F.relu(maps + block.norm2(F.conv2d(inner, block.conv2.weight, padding=1)))
    assert maps.shape == (3, 32, 2, 2)
    torch.testing.assert_close(out, maps.flatten(1) @ tower.fc.weight.T)
    # A view of half the size has one place, which stands for all four.
    (small,) = tower(x[..., :4, :4])
    alone = tower.stages(x[..., :4, :4]).expand(-1, -1, 2, 2)
    torch.testing.assert_close(small, alone.flatten(1) @ tower.fc.weight.T)


def test_an_image_is_encoded_alike_beside_any_other() -> None:
    """Whole images and the smaller self-supervised views share no statistics."""
    tower = ConvTower(width=8)
    x = torch.randn(4, 3, 32, 32)
    (together,) = tower(x)
    tower(torch.randn(4, 3, 16, 16))
    (alone,) = tower.eval()(x[:1])
    torch.testing.assert_close(alone, together[:1])
    assert not list(tower.buffers())


def test_blocks_start_as_their_shortcut() -> None:
    tower = ConvTower(width=8, num_stages=1)
    x = torch.rand(2, 8, 6, 6)
    torch.testing.assert_close(tower.stages[0][3](x), x)
    assert len(find_blocks(nn.ModuleDict(dict(backbone=ConvTower(num_blocks=2))))) == 4


def test_width_is_a_multiple_of_eight() -> None:
    with pytest.raises(ValueError, match='width=12 is no multiple of 8'):
        ConvTower(width=12)


def test_slip_infers_its_width() -> None:
    model = SLIP(
        backbone=dict(type='mmslip.ConvTower', width=8, out_channels=12),
        neck=dict(type='mmslip.LinearProjection', out_channels=8),
        text_backbone=dict(type='mmslip.TextTransformer', width=16, num_layers=1, num_heads=2),
        text_neck=dict(type='mmslip.LinearProjection', out_channels=8),
        head=dict(type='mmslip.CLIPHead'),
    )
    model.init_weights()
    assert model.neck.weight.shape == (12, 8)
    assert model.encode_image(torch.randn(2, 3, 32, 32)).shape == (2, 8)
