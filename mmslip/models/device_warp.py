"""Random crop, rotation, shear, bending and flip of a whole batch, on its device."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmslip.models.device_augment import rank_generator
from mmslip.registry import MODELS

__all__ = ['DeviceWarp']


@MODELS.register_module()
class DeviceWarp(nn.Module):
    """The geometry of a view, drawn for every image: one map of its pixels, sampled once.

    For small images, which a data set holds decoded and a batch carries whole: cutting 256 of them
    one by one takes longer than a small tower does. ``data_preprocessor.image_augment`` applies it
    to the language half, ``view_augment`` to the self-supervised views, with
    :class:`DeviceAugment` behind it for the colours.

    A crop of an area above 1 is larger than the picture, which then lies anywhere within it.

    Args:
        size: Side of the result in pixels.
        area: Area of the crop as a part of the picture, uniform in this range.
        aspect: Width / height of the crop; its logarithm is uniform.
        degrees: Largest rotation, either way.
        shear: Largest shear along the rows, as a part of the height.
        bend: Standard deviation of a smooth displacement, drawn at 4 x 4 places and interpolated
            between them, in halves of the side. It changes the shape of things, as the hand of
            another artist does.
        flip_prob: Probability of mirroring left to right.
        samples: Points along each side of a pixel that its value is the mean of.
        fill: Value outside the picture.
    """

    def __init__(
        self,
        size: int,
        area: Sequence[float] = (0.08, 1.0),
        aspect: Sequence[float] = (3 / 4, 4 / 3),
        degrees: float = 0.0,
        shear: float = 0.0,
        bend: float = 0.0,
        flip_prob: float = 0.0,
        samples: int = 2,
        fill: float = 255.0,
    ) -> None:
        super().__init__()
        self.size = size
        self.area = area
        self.aspect = aspect
        self.degrees = degrees
        self.shear = shear
        self.bend = bend
        self.flip_prob = flip_prob
        self.samples = samples
        self.fill = fill

    def draw(self, number: int) -> tuple[Tensor, Tensor]:
        """Draw the maps of a batch, on the CPU.

        Returns:
            The affine part ``(B, 2, 3)``, from places in the result to places in the picture, both
            with -1 and 1 at the edges; and what is added to it, ``(B, 2, 4, 4)``.
        """
        rng = rank_generator()

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(number, generator=rng)

        area = uniform(*self.area)
        aspect = uniform(*map(math.log, self.aspect)).exp()
        angle = math.radians(self.degrees) * uniform(-1, 1)
        width, height = (area * aspect).sqrt(), (area / aspect).sqrt()
        left, top = (uniform(-1, 1) * (1 - side).abs() for side in (width, height))
        mirror = torch.where(uniform(0, 1) < self.flip_prob, -1.0, 1.0)
        shear = self.shear * uniform(-1, 1)
        cos, sin = angle.cos(), angle.sin()
        # Mirror and scale first, then shear, then turn, then move.
        across = torch.stack([cos * width * mirror, (cos * shear - sin) * height, left], 1)
        down = torch.stack([sin * width * mirror, (sin * shear + cos) * height, top], 1)
        bend = self.bend * torch.randn(number, 2, 4, 4, generator=rng)
        return torch.stack([across, down], 1), bend

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Cut a view out of every image.

        Args:
            images: Float ``(B, C, H, W)``.

        Returns:
            Float ``(B, C, size, size)``.
        """
        maps, bend = (part.to(images.device, non_blocking=True) for part in self.draw(len(images)))
        side = self.size * self.samples
        places = F.affine_grid(maps, [*images.shape[:2], side, side], align_corners=False)
        if self.bend:
            bend = F.interpolate(bend, size=(side, side), mode='bicubic', align_corners=True)
            places = places + bend.permute(0, 2, 3, 1)  # (B, side, side, 2)
        # Outside is zero to the sampler, so the fill is moved there.
        out = F.grid_sample(images - self.fill, places, align_corners=False)
        return F.avg_pool2d(out, self.samples) + self.fill
