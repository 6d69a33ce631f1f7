"""Crop, rotation, shear and flip of a batch, against simple cases by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmslip.models import DeviceWarp, SLIPDataPreprocessor
from mmslip.utils import seeded

WHOLE = dict(area=(1.0, 1.0), aspect=(1.0, 1.0))


def pictures(number: int = 3, side: int = 8) -> Tensor:
    return 255 * torch.rand(number, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_whole_picture_is_averaged_down() -> None:
    out = DeviceWarp(4, **WHOLE)(pictures())
    torch.testing.assert_close(out, F.avg_pool2d(pictures(), 2))


def test_flip_mirrors_left_to_right() -> None:
    out = DeviceWarp(8, **WHOLE, samples=1, flip_prob=1.0)(pictures())
    torch.testing.assert_close(out, pictures().flip(3), atol=1e-3, rtol=0)


@pytest.mark.parametrize('degrees', [90, -90])
def test_rotation(monkeypatch: pytest.MonkeyPatch, degrees: int) -> None:
    images = pictures()
    # Every number is drawn as the upper end of its range.
    monkeypatch.setattr(torch, 'rand', lambda number, generator: torch.ones(number))
    out = DeviceWarp(8, **WHOLE, samples=1, degrees=degrees)(images)
    turned = images.rot90(1 if degrees > 0 else -1, (2, 3))
    torch.testing.assert_close(out, turned, atol=1e-2, rtol=0)


def test_maps_stay_in_their_ranges() -> None:
    warp = DeviceWarp(8, area=(0.25, 2.25), aspect=(0.5, 2.0), flip_prob=0.25)
    with seeded(3):
        maps, bend = warp.draw(4000)
    assert not bend.any()
    width, height = maps[:, 0, 0].abs(), maps[:, 1, 1]
    area, aspect = width * height, width / height
    assert 0.25 <= area.min() < 0.26
    assert 2.24 < area.max() <= 2.25 + 1e-5
    assert area.mean().item() == pytest.approx(1.25, abs=0.03)
    assert aspect.log().mean().item() == pytest.approx(0, abs=0.03)
    assert aspect.min() >= 0.5 - 1e-5
    assert aspect.max() <= 2 + 1e-5
    assert (maps[:, 0, 0] < 0).double().mean().item() == pytest.approx(0.25, abs=0.03)
    for side, place in ((width, maps[:, 0, 2]), (height, maps[:, 1, 2])):
        # A smaller crop stays inside the picture, the picture stays inside a larger crop.
        assert (place.abs() <= (1 - side).abs() + 1e-6).all()
    assert maps[:, 0, 1].abs().max() == maps[:, 1, 0].abs().max() == 0  # no turn, no shear


def test_shear_keeps_rows_and_area() -> None:
    warp = DeviceWarp(8, **WHOLE, shear=0.5)
    maps, _ = warp.draw(100)
    torch.testing.assert_close(maps[:, 1, :2], torch.tensor([[0.0, 1.0]]).expand(100, -1))
    assert 0.4 < maps[:, 0, 1].abs().max() <= 0.5
    turned, _ = DeviceWarp(8, **WHOLE, shear=0.5, degrees=40).draw(100)
    torch.testing.assert_close(turned[:, :, :2].det(), torch.ones(100))
    assert turned[:, 1, 0].abs().max() <= math.sin(math.radians(40))


def test_bending_moves_places_smoothly() -> None:
    # The picture of a ramp shows where each pixel was taken from.
    ramp = torch.linspace(-1 + 1 / 64, 1 - 1 / 64, 64).expand(500, 1, 64, 64).contiguous()
    warp = DeviceWarp(64, **WHOLE, bend=0.05, samples=1)
    with seeded(0):
        _, bend = warp.draw(500)
    with seeded(0):
        out = warp(ramp)
    inner = (out - ramp)[:, 0, 16:48, 16:48]
    field = F.interpolate(bend[:, :1], size=(64, 64), mode='bicubic', align_corners=True)
    torch.testing.assert_close(inner, field[:, 0, 16:48, 16:48], atol=1e-4, rtol=0)
    assert bend.std().item() == pytest.approx(0.05, rel=0.03)
    assert inner.diff(dim=2).abs().max() < 0.03  # no tear between neighbours


def test_outside_is_filled() -> None:
    out = DeviceWarp(8, area=(4.0, 4.0), aspect=(1.0, 1.0), fill=200.0)(torch.zeros(1, 3, 8, 8))
    # A picture of half the side lies somewhere in it.
    assert (out == 200).double().mean().item() >= 0.5
    assert out.min().item() == pytest.approx(0, abs=1e-3)
    assert out.sum().item() == pytest.approx(200 * 3 * 64 * 3 / 4, rel=0.02)


def test_preprocessor_warps_images_in_training_only() -> None:
    pixels = pictures(4).round().byte()
    preprocess = SLIPDataPreprocessor(
        mean=(0, 0, 0),
        std=(1, 1, 1),
        to_rgb=False,
        image_augment=[dict(type='mmslip.DeviceWarp', size=4, **WHOLE)],
        view_augment=dict(type='mmslip.DeviceWarp', size=2, **WHOLE),
    )
    batch = dict(inputs=dict(image=pixels, views=[pixels, pixels]))
    trained = preprocess(batch, training=True)['inputs']
    torch.testing.assert_close(trained['image'], F.avg_pool2d(pixels.float(), 2))
    assert [view.shape[-1] for view in trained['views']] == [2, 2]
    evaluated = preprocess(batch)['inputs']
    torch.testing.assert_close(evaluated['image'], pixels.float())
    assert [view.shape[-1] for view in evaluated['views']] == [8, 8]
