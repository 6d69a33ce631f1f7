"""Appearance changes on the device, sample by sample against torchvision."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as reference
from mmengine.dataset import default_collate
from torch import Tensor

from mmslip.models import DeviceAugment, SLIPDataPreprocessor, device_augment
from mmslip.utils import seeded

NAMES = ('brightness', 'contrast', 'saturation', 'hue')


def make_images(number: int, size: int = 24) -> Tensor:
    """Smooth pictures, noise, and one that is grey with black and white in it."""
    rng = torch.Generator().manual_seed(0)
    images = 255 * torch.rand(number, 3, size, size, generator=rng)
    images[::2] = reference.gaussian_blur(images[::2], 9, 3.0)
    images[-1] = images[-1, :1].round()
    images[-1, :, :2], images[-1, :, -2:] = 0, 255
    return images


def expected(name: str, image: Tensor, factor: float) -> Tensor:
    """torchvision's operation on one float image in [0, 255]."""
    return 255 * getattr(reference, f'adjust_{name}')(image / 255, factor)


@pytest.mark.parametrize('name', NAMES)
def test_jitter_equals_torchvision(name: str) -> None:
    images = make_images(9)
    before = images.clone()
    low, high = (-0.5, 0.5) if name == 'hue' else (0.0, 2.0)
    factors = torch.linspace(low, high, len(images))
    out = getattr(device_augment, f'adjust_{name}')(images, factors)
    for ours, image, factor in zip(out, images, factors.tolist(), strict=True):
        torch.testing.assert_close(ours, expected(name, image, factor), atol=2e-3, rtol=0)
    torch.testing.assert_close(images, before, atol=0, rtol=0)


def test_luma_and_blur_equal_torchvision() -> None:
    images = make_images(5)
    torch.testing.assert_close(
        device_augment.luma(images), reference.rgb_to_grayscale(images), atol=1e-3, rtol=0
    )
    sigmas = torch.tensor([0.1, 0.6, 1.0, 1.5, 2.0])
    out = device_augment.blur(images, sigmas, radius=6)
    for ours, image, sigma in zip(out, images, sigmas.tolist(), strict=True):
        torch.testing.assert_close(
            ours, reference.gaussian_blur(image, 13, sigma), atol=1e-3, rtol=0
        )


def by_hand(image: Tensor, drawn: dict[str, Tensor], index: int) -> Tensor:
    """One image through torchvision, in the order that was drawn for it."""
    if drawn['jitter'][index]:
        for which in drawn['order'][index].tolist():
            image = expected(NAMES[which], image, float(drawn['factors'][index, which]))
    if drawn['gray'][index]:
        image = reference.rgb_to_grayscale(image, 3)
    if drawn['blur'][index]:
        image = reference.gaussian_blur(image, 13, float(drawn['sigma'][index]))
    return image


def test_batch_equals_one_by_one() -> None:
    images, augment = make_images(40), DeviceAugment()
    before = images.clone()
    with seeded(1):
        drawn = augment.draw(40)
    with seeded(1):
        out = augment(images)
    for index in range(40):
        torch.testing.assert_close(
            out[index], by_hand(images[index], drawn, index), atol=1e-2, rtol=0
        )
    assert {int(drawn[key].sum()) for key in ('jitter', 'gray', 'blur')}.isdisjoint({0, 40})
    torch.testing.assert_close(images, before, atol=0, rtol=0)
    assert out.min() >= 0
    assert out.max() <= 255


def test_draws() -> None:
    number = 4000
    with seeded(2):
        drawn = DeviceAugment().draw(number)
    for key, prob in dict(jitter=0.8, gray=0.2, blur=0.5).items():
        share = drawn[key].float().mean().item()
        assert abs(share - prob) <= 4 * (prob * (1 - prob) / number) ** 0.5, key
    columns = dict(zip(NAMES, drawn['factors'].T, strict=True), sigma=drawn['sigma'])
    limits = dict.fromkeys(NAMES[:3], (0.6, 1.4)) | dict(hue=(-0.1, 0.1), sigma=(0.1, 2.0))
    for key, values in columns.items():
        low, high = limits[key]
        uniform = ((values - low) / (high - low)).sort().values.numpy()
        # Kolmogorov-Smirnov distance; passed by chance once in 1,500 seeds.
        assert np.abs(uniform - np.arange(1, number + 1) / number).max() <= 2 / number**0.5, key
    orders = Counter(map(tuple, drawn['order'].tolist()))
    assert len(orders) == 24
    # 167 expected of each, standard deviation 12.6.
    assert 110 <= min(orders.values()) <= max(orders.values()) <= 225


def test_extremes() -> None:
    images = make_images(6)
    nothing = DeviceAugment(jitter_prob=0, gray_prob=0, blur_prob=0)
    torch.testing.assert_close(nothing(images), images, atol=0, rtol=0)
    still = DeviceAugment(0, 0, 0, 0, jitter_prob=1, gray_prob=0, blur_prob=0)
    torch.testing.assert_close(still(images), images, atol=1e-3, rtol=0)
    grey = DeviceAugment(jitter_prob=0, gray_prob=1, blur_prob=1)(images)
    torch.testing.assert_close(grey[:, 0], grey[:, 2], atol=1e-3, rtol=0)
    with seeded(3):
        low = DeviceAugment(brightness=1.7).draw(500)['factors'][:, 0]
    assert 0 <= low.min() < 0.1  # cut at zero, as torchvision does
    with pytest.raises(ValueError, match=r'hue must be in \[0, 0.5\], not 0.7'):
        DeviceAugment(hue=0.7)


def test_seeds_and_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    augment, images = DeviceAugment(), make_images(8)

    def draw(seed: int, rank: int = 0) -> list[Tensor]:
        monkeypatch.setattr(device_augment, 'get_rank', lambda: rank)
        with seeded(seed):
            return [augment(images), augment(images)]

    first, second = draw(4)
    assert first.equal(draw(4)[0])
    assert second.equal(draw(4)[1])
    others = [second, draw(5)[0], draw(4, rank=1)[0]]
    assert all((first - other).abs().mean() > 3 for other in others)


@pytest.fixture
def batch() -> Callable[[], dict]:
    images = make_images(8).byte()

    def make() -> dict:
        samples = [dict(inputs=dict(image=one, views=[one, one])) for one in images]
        return default_collate(samples)

    return make


def test_preprocessor_changes_views_in_training_only(batch: Callable[[], dict]) -> None:
    plain = SLIPDataPreprocessor()
    augmented = SLIPDataPreprocessor(view_augment=dict(type='mmslip.DeviceAugment'))
    assert not augmented.state_dict()
    assert not list(augmented.parameters())
    for training in (False, True):
        without = plain(batch(), training=training)['inputs']
        with seeded(6):
            out = augmented(batch(), training=training)['inputs']
        assert out['image'].equal(without['image'])
        same = [one.equal(two) for one, two in zip(out['views'], without['views'], strict=True)]
        assert same == [not training] * 2
    assert (out['views'][0] - out['views'][1]).abs().mean() > 0.05

    # RGB in [0, 255] is what the module sees: the bytes, from BGR.
    with seeded(6):
        view = augmented.view_augment(batch()['inputs']['views'][0].flip(1).float())
    torch.testing.assert_close(out['views'][0], (view - plain.mean) / plain.std)


def test_autocast_does_not_reach_the_views(batch) -> None:
    """mmengine prepares a batch under autocast, in whose bfloat16 places would be off by pixels."""
    preprocessor = SLIPDataPreprocessor(
        image_augment=dict(type='mmslip.DeviceWarp', size=24, degrees=10),
        view_augment=dict(type='mmslip.DeviceAugment'),
    )
    found = []
    for enabled in (False, True):
        with seeded(6), torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            inputs = preprocessor(batch(), training=True)['inputs']
        found.append([inputs['image'], *inputs['views']])
    for plain, under_autocast in zip(*found, strict=True):
        assert under_autocast.dtype == torch.float32
        assert torch.equal(under_autocast, plain)
