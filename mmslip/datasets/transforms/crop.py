"""Random crops, drawn before the picture is decoded where that saves work."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
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
    :class:`EncodedImage`; a ``crop_box`` that ``mmslip.MultiView`` has drawn is used up.

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
    """Resize to a square as Pillow's bilinear filter does: without aliasing.

    When Pillow shrinks by ``s`` it widens its triangle to ``s`` pixels each way; OpenCV's bilinear
    resize always takes the nearest two and aliases, and its area mode is slow and cuts detail
    apart differently. Smoothing first with the variance that the narrow triangle lacks gives
    nearly Pillow's filter (the same one at ``s = 2``), at a third of the time. Photographs differ
    from Pillow's by half a grey level on average, one of fine stripes by three.

    Args:
        image: uint8 ``(H, W, 3)``.
        size: Side of the result.

    Returns:
        A new uint8 array ``(size, size, 3)``.
    """
    while min(image.shape[:2]) >= 4 * size:  # a mean of four pixels is cheaper than a long kernel
        image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    height, width = image.shape[:2]
    if max(height, width) > size:
        image = cv2.sepFilter2D(
            image,
            -1,
            _smoothing_kernel(width / size),
            _smoothing_kernel(height / size),
            borderType=cv2.BORDER_REPLICATE,
        )
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)


def _smoothing_kernel(shrink: float) -> np.ndarray:
    """What has to come before a bilinear resize by ``1 / shrink``.

    A triangle of half-width s has variance s^2 / 6. ``[a, 1 - 2a, a]`` has variance 2a; as many of
    them in a row as it takes to keep a at 1/4 or below, where no frequency turns negative.
    """
    variance = max(shrink**2 - 1, 0) / 6
    times = max(math.ceil(2 * variance), 1)
    a = variance / times / 2
    kernel = step = [a, 1 - 2 * a, a]
    for _ in range(times - 1):
        kernel = np.convolve(kernel, step)
    return np.array(kernel, np.float32)
