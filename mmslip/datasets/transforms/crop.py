"""Random crops, drawn before the picture is decoded where that saves work."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform

from mmslip.datasets.transforms.load_image import EncodedImage
from mmslip.registry import TRANSFORMS

__all__ = ['Box', 'RandomFlip', 'RandomResizedCrop', 'resize']


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    def shrink(self, factor: int) -> 'Box':
        """The same rectangle on the picture decoded at ``1 / factor``, to the nearest pixel."""
        top, left = round(self.top / factor), round(self.left / factor)
        bottom = round((self.top + self.height) / factor)
        right = round((self.left + self.width) / factor)
        return Box(top, left, bottom - top, right - left)


@TRANSFORMS.register_module()
class RandomResizedCrop(BaseTransform):
    """Cut a rectangle of random area, shape and place, and resize it to a square.

    The distribution of torchvision's ``RandomResizedCrop``; its pixels up to the filter of
    :func:`resize`. Reads ``img``, BGR uint8 ``(H, W, 3)`` or an
    :class:`EncodedImage`; a ``crop_box`` that ``mmslip.SLIPViews`` has drawn is used up.

    Args:
        scale: Side of the result.
        crop_ratio_range: Area of the rectangle as a part of the picture, uniform in this range.
        aspect_ratio_range: Width / height of the rectangle; its logarithm is uniform.
    """

    def __init__(
        self,
        scale: int,
        crop_ratio_range: Sequence[float] = (0.08, 1.0),
        aspect_ratio_range: Sequence[float] = (3 / 4, 4 / 3),
    ) -> None:
        self.scale = scale
        self.crop_ratio_range = crop_ratio_range
        self.aspect_ratio_range = aspect_ratio_range

    def draw(self, height: int, width: int) -> Box:
        """Draw a rectangle in a picture; the largest central one if ten attempts do not fit."""
        log_low, log_high = map(math.log, self.aspect_ratio_range)
        for _ in range(10):
            area = np.random.uniform(*self.crop_ratio_range) * height * width
            aspect = math.exp(np.random.uniform(log_low, log_high))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                top = np.random.randint(height - h + 1)
                left = np.random.randint(width - w + 1)
                return Box(top, left, h, w)
        low, high = self.aspect_ratio_range
        h, w = min(height, round(width / low)), min(width, round(height * high))
        return Box((height - h) // 2, (width - w) // 2, h, w)

    def reduction(self, box: Box) -> int:
        """How many times smaller the picture may be decoded for this rectangle: 1, 2, 4 or 8.

        The rectangle keeps one pixel more than the result has, since rounding its edges may cost
        one. So an edge moves by half a decoded pixel at most, less than half a pixel of the result.
        """
        spare = min(box.height, box.width) / (self.scale + 1)
        return next((factor for factor in (8, 4, 2) if spare >= factor), 1)

    def transform(self, results: dict) -> dict:
        """Replace ``img`` by its crop."""
        image, box = results['img'], results.pop('crop_box', None)
        if box is None:
            box = self.draw(*image.shape[:2])
            if isinstance(image, EncodedImage):
                factor = self.reduction(box)
                image, box = image.decode(factor), box.shrink(factor)
        crop = image[box.top : box.top + box.height, box.left : box.left + box.width]
        results['img'] = resize(crop, self.scale)
        results['img_shape'] = results['img'].shape[:2]
        return results


@TRANSFORMS.register_module()
class RandomFlip(BaseTransform):
    """Mirror ``img`` left to right with probability ``prob``.

    Args:
        prob: Probability of the change.
    """

    def __init__(self, prob: float = 0.5) -> None:
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Change ``img``."""
        if np.random.rand() < self.prob:
            results['img'] = cv2.flip(results['img'], 1)  # not a view, which packing would copy
        return results


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resize to a square by Pillow's bilinear filter, without aliasing.

    Shrinking by ``s``, that filter widens its triangle to ``s`` pixels each way; OpenCV's always
    takes the nearest two. PyTorch has Pillow's, to within one grey level. On processors with AVX2
    it takes a fifth of Pillow's time, on others more than that.

    Args:
        image: uint8 ``(H, W, 3)``.
        size: Side of the result.

    Returns:
        A new uint8 array ``(size, size, 3)``.
    """
    # Copied, since the pixels have to be contiguous, and a read-only picture would raise a warning.
    # The batch has to be there before the channels move: only then does PyTorch see interleaved
    # pixels, for which it has the fast way.
    pixels = torch.from_numpy(image.copy())[None].permute(0, 3, 1, 2)  # (1, 3, H, W)
    out = F.interpolate(pixels, (size, size), mode='bilinear', antialias=True)
    return out[0].permute(1, 2, 0).numpy()  # (size, size, 3)
