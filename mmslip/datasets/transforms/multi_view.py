"""Several views of one picture."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform, Compose

from mmslip.datasets.transforms.crop import RandomResizedCrop
from mmslip.datasets.transforms.load_image import EncodedImage
from mmslip.registry import TRANSFORMS

__all__ = ['MultiView']


@TRANSFORMS.register_module()
class MultiView(BaseTransform):
    """Make ``img`` a list of views, as mmpretrain's transform of that name does, but faster.

    The views share one picture instead of a deep copy each; it is marked read-only, so that a
    transform which writes into it fails instead of changing the views that follow. After
    ``mmslip.LoadImage(defer=True)``, the crops of all views are drawn first, and the picture is
    decoded once at the smallest scale that gives every one of them its output size; a view that
    does not begin with ``mmslip.RandomResizedCrop`` needs the full picture.

    Args:
        transforms: A list of transforms for each kind of view.
        num_views: How many views of each kind.
    """

    def __init__(self, transforms: Sequence[Sequence[dict]], num_views: Sequence[int]) -> None:
        kinds = [Compose(list(steps)) for steps in transforms]
        self.views = [
            kind for kind, number in zip(kinds, num_views, strict=True) for _ in range(number)
        ]

    def transform(self, results: dict) -> dict:
        """Replace ``img`` by the list of its views."""
        image = results['img']
        boxes = {}
        if isinstance(image, EncodedImage):
            image, boxes = self._draw_and_decode(image)
        image.flags.writeable = False
        results['img'] = [
            view({**results, 'img': image, **boxes.get(index, {})})['img']
            for index, view in enumerate(self.views)
        ]
        return results

    def _draw_and_decode(self, source: EncodedImage) -> tuple[np.ndarray, dict[int, dict]]:
        """The picture, and for each view what its crop finds in ``results``."""
        crops = [view.transforms[0] if view.transforms else None for view in self.views]
        if not all(isinstance(crop, RandomResizedCrop) for crop in crops):
            return source.decode(), {}
        boxes = [crop.draw(*source.shape) for crop in crops]
        factor = min(crop.reduction(box) for crop, box in zip(crops, boxes, strict=True))
        return source.decode(factor), {
            index: dict(crop_box=box.shrink(factor)) for index, box in enumerate(boxes)
        }
