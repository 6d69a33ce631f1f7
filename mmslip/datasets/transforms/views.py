"""The views of a picture: for the language half and for the self-supervised half."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform, Compose

from mmslip.datasets.transforms.crop import RandomResizedCrop
from mmslip.datasets.transforms.load_image import EncodedImage
from mmslip.registry import TRANSFORMS

__all__ = ['SLIPViews']


@TRANSFORMS.register_module()
class SLIPViews(BaseTransform):
    """Cut the views of both halves out of one picture; by default those SLIP was published with.

    Language half: a mild random crop, without a flip, since a caption may say where something is.
    Self-supervised half: SimCLR's random crop, colour jitter, grayscale, blur and flip, without
    solarisation. Reads ``img``, BGR uint8 ``(H, W, 3)`` or an :class:`EncodedImage`, and replaces
    it by ``image`` ``(size, size, 3)`` (a list, where ``image_views`` is more than one) and
    ``views``, a list of ``(ssl_size, ssl_size, 3)``.

    The views share one picture; it is marked read-only, so that a transform which writes into it
    fails instead of changing the views that follow. After ``mmslip.LoadImage(defer=True)`` all
    crops are drawn first, and the picture is decoded once, at the smallest scale that gives every
    one of them its output size; a view that does not begin with ``mmslip.RandomResizedCrop`` needs
    the full picture. The ``mask`` of a view, for masked image modelling, is kept.

    A list as ``ssl_views`` makes groups of self-supervised views, and every argument of that half
    may be a list, too, with a value for each group. Six small views beside two large ones::

        dict(type='mmslip.SLIPViews', ssl_views=[2, 6], ssl_size=[224, 96],
             ssl_crop=[(0.4, 1.0), (0.05, 0.4)])

    Args:
        size: Side of the views in pixels; that of the image tower.
        ssl_size: Side of the self-supervised views, where it is smaller.
        image_views: Number of views of the language half; 0 without one.
        ssl_views: Number of views of the self-supervised half; 0 without one.
        image_crop: Area of a crop as a part of the picture, uniform in this range.
        ssl_crop: Likewise, of the self-supervised half.
        jitter: Extent of the changes in brightness, contrast, saturation and hue
            (:class:`ColorJitter`); None for none.
        jitter_prob: Probability of these four together.
        gray_prob: Probability of grayscale.
        blur_prob: Probability of a Gaussian blur.
        blur_sigma: Standard deviation of the blur in pixels, uniform in this range.
        flip_prob: Probability of mirroring left to right.
        image: Transforms of your own for a view of the language half, in place of its arguments.
        ssl: Likewise, of the self-supervised half.

    Raises:
        ValueError: A list is not as long as ``ssl_views``; or an argument stands beside transforms
            of your own, which leave it without effect.

    Source: facebookresearch/SLIP, as summarised in arXiv 2112.12750.
    """

    def __init__(
        self,
        size: int = 224,
        ssl_size: int | Sequence[int] | None = None,
        image_views: int = 1,
        ssl_views: int | Sequence[int] = 2,
        image_crop: Sequence[float] = (0.5, 1.0),
        ssl_crop: Sequence = (0.08, 1.0),
        jitter: Sequence | None = (0.4, 0.4, 0.4, 0.1),
        jitter_prob: float | Sequence[float] = 0.8,
        gray_prob: float | Sequence[float] = 0.2,
        blur_prob: float | Sequence[float] = 0.5,
        blur_sigma: Sequence = (0.1, 2.0),
        flip_prob: float | Sequence[float] = 0.5,
        image: Sequence[dict] | None = None,
        ssl: Sequence[dict] | None = None,
    ) -> None:
        described = dict(
            ssl_size=ssl_size,
            ssl_crop=ssl_crop,
            jitter=jitter,
            jitter_prob=jitter_prob,
            gray_prob=gray_prob,
            blur_prob=blur_prob,
            blur_sigma=blur_sigma,
            flip_prob=flip_prob,
        )
        if image is None:
            image = [_crop(size, image_crop)]
        else:
            _refuse('image', image_crop=image_crop)
        counts = [ssl_views] if isinstance(ssl_views, int) else list(ssl_views)
        if ssl is None:
            described['ssl_size'] = ssl_size or size
            groups = [_ssl_view(**group) for group in _per_group(described, len(counts))]
        else:
            _refuse('ssl', **described)
            groups = [ssl] * len(counts)
        self.image_views = image_views
        self.views = [Compose(list(image))] * image_views
        for count, transforms in zip(counts, groups, strict=True):
            self.views += [Compose(list(transforms))] * count

    def transform(self, results: dict) -> dict:
        """Replace ``img`` by ``image`` and ``views``."""
        image, boxes = results.pop('img'), {}
        if isinstance(image, EncodedImage):
            image, boxes = self._draw_and_decode(image)
        image.flags.writeable = False
        made = [
            view({**results, 'img': image, **boxes.get(index, {})})
            for index, view in enumerate(self.views)
        ]
        images = [view['img'] for view in made[: self.image_views]]
        if images:
            results['image'] = images if len(images) > 1 else images[0]
        for view in made[self.image_views :]:
            # mmpretrain's crop for BEiT makes two of one: the view and its target.
            several = isinstance(view['img'], list)
            results.setdefault('views', []).extend(view['img'] if several else [view['img']])
            if 'mask' in view:
                results['mask'] = view['mask']
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


def _crop(size: int, area: Sequence[float]) -> dict:
    return dict(type='mmslip.RandomResizedCrop', scale=size, crop_ratio_range=tuple(area))


def _ssl_view(
    ssl_size: int,
    ssl_crop: Sequence[float],
    jitter: Sequence[float] | None,
    jitter_prob: float,
    gray_prob: float,
    blur_prob: float,
    blur_sigma: Sequence[float],
    flip_prob: float,
) -> list[dict]:
    """Transforms of a self-supervised view; what never happens is left out."""
    steps = [(1.0, _crop(ssl_size, ssl_crop))]
    if jitter is not None:
        extents = dict(zip(('brightness', 'contrast', 'saturation', 'hue'), jitter, strict=True))
        steps.append((jitter_prob, dict(type='mmslip.ColorJitter', prob=jitter_prob, **extents)))
    steps += [
        (gray_prob, dict(type='mmslip.RandomGrayscale', prob=gray_prob)),
        (blur_prob, dict(type='mmslip.GaussianBlur', prob=blur_prob, sigma=tuple(blur_sigma))),
        (flip_prob, dict(type='mmslip.RandomFlip', prob=flip_prob)),
    ]
    return [step for prob, step in steps if prob > 0]


def _per_group(arguments: dict[str, Any], groups: int) -> list[dict[str, Any]]:
    """The arguments of each group, where one value stands for all of them.

    ``ssl_crop``, ``jitter`` and ``blur_sigma`` are lists themselves: a list of lists for groups.
    """
    columns = {}
    for name, value in arguments.items():
        grouped = isinstance(value, Sequence)
        if grouped and name in ('ssl_crop', 'jitter', 'blur_sigma'):
            grouped = not all(isinstance(part, int | float) for part in value)
        if grouped and len(value) != groups:
            raise ValueError(
                f'{name}={value} of SLIPViews has {len(value)} values for {groups} groups of '
                'ssl_views: give one for each, or one for all.'
            )
        columns[name] = value if grouped else [value] * groups
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _refuse(given: str, **arguments: Any) -> None:
    """Raise ``ValueError`` for arguments that transforms given by the user leave without effect."""
    parameters = inspect.signature(SLIPViews).parameters
    idle = [name for name, value in arguments.items() if value != parameters[name].default]
    if idle:
        raise ValueError(
            f'SLIPViews has {given}, transforms of your own, and {", ".join(idle)}, which they '
            f'leave without effect: set it in {given}, or leave {given} out.'
        )
