"""The view of an evaluation: short side resized, centre cut out."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import mmcv
import numpy as np
import PIL
from mmcv.transforms import BaseTransform
from mmengine.utils import digit_version

from mmslip.registry import TRANSFORMS

__all__ = ['ResizeCenterCrop']

# Pillow resizes and crops an image up to this many times as long as wide in milliseconds.
_LONG = 8
_ROUNDINGS = dict(even=round, down=math.floor)
# Fraction bits of Pillow's weights for 8-bit images.
_BITS = 22


@TRANSFORMS.register_module()
class ResizeCenterCrop(BaseTransform):
    """Resize the short side of ``img`` by Pillow's filter, and cut out the central square.

    The pixels are those of mmpretrain's ``ResizeEdge(edge, edge='short', backend='pillow')`` and
    ``CenterCrop(size)``, to the last bit. Of a banner only the square is computed: resized whole,
    20,000 x 1 pixels would become 4,480,000 x 224.

    Args:
        size: Side of the square.
        edge: Short side of the resized image; ``size`` by default.
        interpolation: ``'bilinear'`` or ``'bicubic'``, both without aliasing.
        rounding: Of half a pixel, where an odd number of pixels is cut off: ``'even'`` as
            torchvision does, and with it open_clip, timm and mmpretrain, or ``'down'`` as
            transformers does. The crops are a pixel apart where 3, 7, 11 ... are cut off.

    Raises:
        ValueError: ``edge`` is smaller than ``size``, or the interpolation or the rounding is
            another one.
    """

    def __init__(
        self,
        size: int,
        edge: int | None = None,
        interpolation: str = 'bilinear',
        rounding: Literal['even', 'down'] = 'even',
    ) -> None:
        self.size = size
        self.edge = size if edge is None else edge
        self.interpolation = interpolation
        self.rounding = rounding
        if not 0 < self.size <= self.edge:
            raise ValueError(f'size={size} must be above zero and at most edge={edge}.')
        if interpolation not in _FILTERS:
            raise ValueError(
                f'interpolation must be one of {", ".join(_FILTERS)}, not {interpolation!r}.'
            )
        if rounding not in _ROUNDINGS:
            raise ValueError(f"rounding must be 'even' or 'down', not {rounding!r}.")

    def transform(self, results: dict) -> dict:
        """Replace ``img`` uint8 ``(H, W, 3)`` by ``(size, size, 3)``."""
        image, size = results['img'], self.size
        old = height, width = image.shape[:2]
        short = min(old)
        new = [self.edge if side == short else int(self.edge * side / short) for side in old]
        top, left = (_ROUNDINGS[self.rounding]((side - size) / 2) for side in new)
        if max(old) <= _LONG * short:
            image = mmcv.imresize(
                image, new[::-1], interpolation=self.interpolation, backend='pillow'
            )[top : top + size, left : left + size]
        else:
            rows, weights = self._taps(height, new[0], top)
            image = image[rows.min() : rows.max() + 1]
            passes = [(1, *self._taps(width, new[1], left)), (0, rows - rows.min(), weights)]
            # Pillow rounds in between, so the order matters.
            if _rows_first(old, new):
                passes.reverse()
            for axis, taps, weights in passes:
                image = _blend(image, axis, taps, weights)
        results.update(img=np.ascontiguousarray(image), img_shape=(size, size))
        return results

    def _taps(self, old: int, new: int, start: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each pixel of the square along one axis, the source pixels and their weights.

        Pillow's arithmetic: weights are normalised, then rounded to ``_BITS`` fraction bits.
        """
        scale = old / new
        widening = max(scale, 1.0)
        support, weigh = _FILTERS[self.interpolation]
        reach = support * widening
        centres = (np.arange(start, start + self.size) + 0.5) * scale  # (size,)
        first = np.maximum((centres - reach + 0.5).astype(int), 0)
        last = np.minimum((centres + reach + 0.5).astype(int), old)
        taps = first[:, None] + np.arange((last - first).max())  # (size, taps)
        weights = weigh(np.abs((taps - centres[:, None] + 0.5) * (1 / widening)))
        weights[taps >= last[:, None]] = 0
        weights = weights / weights.sum(1, keepdims=True) * 2**_BITS
        weights = np.trunc(weights + np.copysign(0.5, weights)).astype(np.int32)
        return np.minimum(taps, old - 1), weights


def _rows_first(old: Sequence[int], new: Sequence[int]) -> bool:
    """Whether Pillow resizes the height of an image before its width."""
    if old[0] <= new[0]:
        return False
    if digit_version(PIL.__version__) >= digit_version('13'):
        return old[0] - new[0] > 2 * (old[1] - new[1])
    return old[0] > 100 * old[1]


def _blend(image: np.ndarray, axis: int, taps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sums of rows (axis 0) or columns (1), of which there are ``size`` afterwards."""
    lines = image.swapaxes(0, axis)  # (n, m, 3)
    total = np.full((len(taps), *lines.shape[1:]), 2 ** (_BITS - 1), np.int32)  # rounds
    for tap, weight in zip(taps.T, weights.T, strict=True):
        total += lines[tap] * weight[:, None, None]
    return np.clip(total >> _BITS, 0, 255).astype(np.uint8).swapaxes(0, axis)


def _bilinear(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - x, 0)


def _bicubic(x: np.ndarray) -> np.ndarray:
    near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


# How many source pixels each filter reaches, and its weight at a distance.
_FILTERS: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    'bilinear': (1.0, _bilinear),
    'bicubic': (2.0, _bicubic),
}
