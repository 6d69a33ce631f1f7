"""Colour jitter on uint8 images."""

from collections.abc import Callable

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from mmslip.registry import TRANSFORMS

__all__ = ['ColorJitter']

# ITU-R BT.601 luma of a BGR image.
_LUMA_BGR = np.array([[0.114, 0.587, 0.299]], dtype=np.float32)


@TRANSFORMS.register_module()
class ColorJitter(BaseTransform):
    """Change brightness, contrast, saturation and hue at random, in random order.

    The operations and distributions of torchvision's ``ColorJitter``, on a BGR uint8 image:
    factors are uniform in ``[1 - x, 1 + x]``, the hue shift is uniform in ``[-hue, hue]`` of a
    full turn. mmpretrain's own transform fails on NumPy 2.

    Args:
        brightness: Factor range ``x`` around 1.
        contrast: Likewise; blends with the mean luma of the image.
        saturation: Likewise; blends with the luma of each pixel.
        hue: Largest shift, at most 0.5.
        prob: Probability that an image is changed at all; 0.8 in SimCLR.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        prob: float = 1.0,
    ) -> None:
        if not 0 <= hue <= 0.5:
            raise ValueError(f'hue must be in [0, 0.5], not {hue}.')
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Change ``img``."""
        if np.random.rand() >= self.prob:
            return results
        operations: list[tuple[Callable, float, float]] = [
            (adjust_brightness, 1, self.brightness),
            (adjust_contrast, 1, self.contrast),
            (adjust_saturation, 1, self.saturation),
            (adjust_hue, 0, self.hue),
        ]
        image = results['img']
        for which in np.random.permutation(len(operations)):
            adjust, centre, extent = operations[which]
            if extent:
                amount = np.random.uniform(max(centre - extent, centre - 1), centre + extent)
                image = adjust(image, amount)
        results['img'] = image
        return results


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with black."""
    return _scale(image, factor)


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the image's mean luma, rounded as torchvision rounds it."""
    mean = np.floor(cv2.mean(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))[0] + 0.5)
    return _scale(image, factor, mean * (1 - factor))


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend every pixel with its luma: one colour matrix."""
    matrix = factor * np.eye(3, dtype=np.float32) + (1 - factor) * _LUMA_BGR
    return cv2.transform(image, matrix)


def adjust_hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Turn the hue by ``shift`` of a full turn (256 steps a turn)."""
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV_FULL)
    step = np.array([round(shift * 255) % 256, 0, 0], np.uint8)
    # Wraps around, as hue does. Adding to all channels of a row at once is fastest.
    np.add(hsv.reshape(len(hsv), -1), np.tile(step, hsv.shape[1]), out=hsv.reshape(len(hsv), -1))
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR_FULL)


def _scale(image: np.ndarray, factor: float, offset: float = 0.0) -> np.ndarray:
    """``factor * image + offset``, clipped and truncated as Pillow's blend does.

    OpenCV rounds to the nearest instead, hence the half; the remainder keeps whole numbers that
    float32 misses from below. Two values in ten thousand are one grey level off, in half the time
    of a table.
    """
    return cv2.addWeighted(image, factor, image, 0, offset - 0.5 + 1e-4)
