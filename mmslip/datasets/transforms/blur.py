"""Grey and blurred images."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from mmslip.registry import TRANSFORMS

__all__ = ['GaussianBlur', 'RandomGrayscale']


@TRANSFORMS.register_module()
class RandomGrayscale(BaseTransform):
    """Replace a BGR uint8 image by its luma in three equal channels, with probability ``prob``.

    Args:
        prob: Probability of the change; 0.2 in SimCLR.
    """

    def __init__(self, prob: float = 0.2) -> None:
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Change ``img``."""
        if np.random.rand() < self.prob:
            grey = cv2.cvtColor(results['img'], cv2.COLOR_BGR2GRAY)  # (H, W)
            results['img'] = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)  # (H, W, 3)
        return results


@TRANSFORMS.register_module()
class GaussianBlur(BaseTransform):
    """Blur a uint8 image with probability ``prob``.

    A Gaussian of three sigma each way; Pillow's filter, which the published runs used, is three
    box filters in a row that come close to one.

    Args:
        sigma: Standard deviation in pixels, uniform in this range.
        prob: Probability of the change; 0.5 in SLIP.
    """

    def __init__(self, sigma: Sequence[float] = (0.1, 2.0), prob: float = 0.5) -> None:
        self.sigma = sigma
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Change ``img``."""
        if np.random.rand() < self.prob:
            results['img'] = blur(results['img'], np.random.uniform(*self.sigma))
        return results


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve rows and columns; the kernel is no longer than this sigma needs."""
    kernel = cv2.getGaussianKernel(2 * math.ceil(3 * sigma) + 1, sigma, cv2.CV_32F)
    # Twice as fast as cv2.GaussianBlur, which computes the same bits on every machine.
    return cv2.sepFilter2D(image, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)
