"""Colour jitter, grayscale and blur of a whole batch, on its device."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank
from torch import Tensor, nn

from mmslip.registry import MODELS
from mmslip.utils import mix_seed

__all__ = ['DeviceAugment']


@MODELS.register_module()
class DeviceAugment(nn.Module):
    """The appearance half of SimCLR's views, with random numbers of its own for every image.

    Each image draws whether and in which order its brightness, contrast, saturation and hue
    change, whether it turns grey, and whether and how far it is blurred, as the classic CPU
    transforms do. Values stay float, so nothing is rounded between the operations. Crop and flip
    remain on the CPU, where they are cheap and make the bytes to copy fewer; a flip commutes
    with all that happens here.

    ``configs/slip/slip_vit-b16_yfcc15m_device-views.py`` puts it to use.

    All random numbers come from PyTorch's CPU generator and the rank: the same seed draws the same
    views on every device, ranks draw different ones, and nothing waits for the device.

    Args:
        brightness: Largest change of the factor, which is uniform in ``[1 - x, 1 + x]``.
        contrast: Likewise; blends with the mean luma of the image.
        saturation: Likewise; blends with the luma of each pixel.
        hue: Largest shift as a part of the colour circle, at most 0.5.
        jitter_prob: Probability of these four together.
        gray_prob: Probability of grayscale.
        blur_prob: Probability of a Gaussian blur.
        sigma: Standard deviation of the blur in pixels, uniform in this range.
    """

    def __init__(
        self,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        jitter_prob: float = 0.8,
        gray_prob: float = 0.2,
        blur_prob: float = 0.5,
        sigma: Sequence[float] = (0.1, 2.0),
    ) -> None:
        super().__init__()
        if not 0 <= hue <= 0.5:
            raise ValueError(f'hue must be in [0, 0.5], not {hue}.')
        self.operations: list[tuple[Callable[[Tensor, Tensor], Tensor], float, float]] = [
            (adjust_brightness, max(1 - brightness, 0), 1 + brightness),
            (adjust_contrast, max(1 - contrast, 0), 1 + contrast),
            (adjust_saturation, max(1 - saturation, 0), 1 + saturation),
            (adjust_hue, -hue, hue),
        ]
        self.jitter_prob = jitter_prob
        self.gray_prob = gray_prob
        self.blur_prob = blur_prob
        self.sigma = sigma

    def draw(self, number: int) -> dict[str, Tensor]:
        """Draw the parameters of a batch, on the CPU.

        Returns:
            ``factors`` ``(B, 4)`` and ``order`` int64 ``(B, 4)`` of brightness, contrast,
            saturation and hue; ``sigma`` ``(B,)``; and bool ``jitter``, ``gray``, ``blur``
            ``(B,)``.
        """
        rng = rank_generator()
        low, high = torch.tensor([limits for _, *limits in self.operations]).T  # (4,) each
        return dict(
            factors=low + (high - low) * torch.rand(number, 4, generator=rng),
            order=torch.rand(number, 4, generator=rng).argsort(1),
            sigma=torch.empty(number).uniform_(*self.sigma, generator=rng),
            jitter=torch.rand(number, generator=rng) < self.jitter_prob,
            gray=torch.rand(number, generator=rng) < self.gray_prob,
            blur=torch.rand(number, generator=rng) < self.blur_prob,
        )

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Change a batch.

        Args:
            images: Float RGB ``(B, 3, H, W)`` in [0, 255], which is left as it is.

        Returns:
            Float ``(B, 3, H, W)`` in [0, 255].
        """
        drawn = self.draw(len(images))
        factors, sigma = (
            drawn[key].to(images.device, non_blocking=True) for key in ('factors', 'sigma')
        )
        images = images.clone()
        for step in range(len(self.operations)):
            for which, (adjust, *_) in enumerate(self.operations):
                chosen = _where(drawn['jitter'] & (drawn['order'][:, step] == which), images)
                images[chosen] = adjust(images[chosen], factors[chosen, which])
        chosen = _where(drawn['gray'], images)
        images[chosen] = luma(images[chosen]).expand(-1, 3, -1, -1)
        chosen = _where(drawn['blur'], images)
        images[chosen] = blur(images[chosen], sigma[chosen], radius=math.ceil(3 * self.sigma[1]))
        return images


def rank_generator() -> torch.Generator:
    """Random numbers of one batch: from PyTorch's CPU generator, and different on every rank."""
    return torch.Generator().manual_seed(mix_seed(int(torch.randint(2**62, ())), get_rank()))


def _where(mask: Tensor, images: Tensor) -> Tensor:
    """Indices of a mask, found on the host: the device would have to be waited for."""
    return mask.nonzero()[:, 0].to(images.device, non_blocking=True)


def luma(images: Tensor) -> Tensor:
    """ITU-R BT.601 luma of RGB, ``(B, 3, H, W) -> (B, 1, H, W)``."""
    red, green, blue = images.split(1, dim=1)
    return 0.2989 * red + 0.587 * green + 0.114 * blue


def _blend(images: Tensor, other: Tensor | float, factors: Tensor) -> Tensor:
    """``factors`` ``(B,)`` parts of the images, the rest of the other, cut to [0, 255]."""
    factors = factors.view(-1, 1, 1, 1)
    return (factors * images + (1 - factors) * other).clamp(0, 255)


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with black."""
    return _blend(images, 0.0, factors)


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the mean luma of each image."""
    return _blend(images, luma(images).mean((1, 2, 3), keepdim=True), factors)


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Blend every pixel with its luma."""
    return _blend(images, luma(images), factors)


def adjust_hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Turn the hue by ``shifts`` ``(B,)`` of a full turn, in HSV."""
    red, green, blue = images.unbind(1)  # (B, H, W) each
    value = images.amax(1)
    chroma = value - images.amin(1)
    # Hue in sixths of a turn, counted from the channel that is largest; grey has any.
    safe = chroma.where(chroma > 0, torch.ones_like(chroma))
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = hue + 6 * shifts.view(-1, 1, 1)
    # Every channel is a trapezium over the circle: up for two sixths, flat for one on either side.
    phase = torch.stack([hue + 5, hue + 3, hue + 1], dim=1).remainder(6)  # (B, 3, H, W)
    ramp = torch.minimum(phase, 4 - phase).clamp(0, 1)
    return value.unsqueeze(1) - chroma.unsqueeze(1) * ramp


def blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Gaussian blur of each image with its own sigma ``(B,)``, rows and columns in turn."""
    number, channels, height, width = images.shape
    if not number:
        return images
    places = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.exp(-0.5 * (places / sigma.unsqueeze(1)) ** 2)  # (B, K)
    kernel = kernel / kernel.sum(1, keepdim=True)
    kernel = kernel.repeat_interleave(channels, 0).unsqueeze(1)  # (B * 3, 1, K)
    # One group for every channel of every image, so that each meets its own kernel.
    flat = images.reshape(1, number * channels, height, width)
    flat = F.pad(flat, (radius, radius, radius, radius), mode='reflect')
    flat = F.conv2d(flat, kernel.unsqueeze(2), groups=number * channels)
    flat = F.conv2d(flat, kernel.unsqueeze(3), groups=number * channels)
    return flat.view_as(images)
