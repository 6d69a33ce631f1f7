"""How images are prepared for evaluation: read from a config, written as a pipeline."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

__all__ = ['CLIP_PIXELS', 'IMAGENET_PIXELS', 'Preprocessing', 'find_test_pipeline']

# Per-channel mean and standard deviation, RGB, on the 0-1 scale.
IMAGENET_PIXELS = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CLIP_PIXELS = dict(
    mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
)
# By what resizes, as mmcv names them. OpenCV's filters do not widen when they shrink an image, so
# that the same name means other pixels.
_INTERPOLATIONS = dict(
    pillow=('nearest', 'bilinear', 'bicubic', 'box', 'lanczos'),
    cv2=('nearest', 'bilinear', 'bicubic', 'area', 'lanczos'),
)


@dataclass(frozen=True)
class Preprocessing:
    """Resizing, centre crop and normalisation of an image for the image tower.

    Args:
        mean: Per channel, RGB, of values in [0, 1].
        std: Per channel, RGB, of values in [0, 1].
        interpolation: A filter that the backend has, such as ``'bilinear'``.
        backend: ``'pillow'``, with which other libraries resize, or ``'cv2'``.
        resize: ``'shortest'`` keeps the aspect ratio, ``'squash'`` makes a square.
        crop: Side of the centre crop, divided by that of the resized image (its short side).
        rounding: Of half a pixel where the crop is not quite central, as in
            :class:`mmslip.datasets.transforms.ResizeCenterCrop`, which alone has ``'down'``.

    Raises:
        ValueError: A value is none of these.
    """

    mean: tuple[float, ...] = IMAGENET_PIXELS['mean']
    std: tuple[float, ...] = IMAGENET_PIXELS['std']
    interpolation: str = 'bilinear'
    backend: str = 'pillow'
    resize: str = 'shortest'
    crop: float = 1.0
    rounding: str = 'even'

    def __post_init__(self) -> None:
        # JSON has lists.
        object.__setattr__(self, 'mean', tuple(self.mean))
        object.__setattr__(self, 'std', tuple(self.std))
        for key in ('mean', 'std'):
            values = getattr(self, key)
            if len(values) != 3 or not all(isinstance(value, int | float) for value in values):
                raise ValueError(f'{key} is {values!r}, not three numbers.')
        if self.interpolation not in _INTERPOLATIONS.get(self.backend, ()):
            raise ValueError(
                f'The interpolation {self.interpolation!r} of the backend {self.backend!r} is none '
                f'of {_INTERPOLATIONS}.'
            )
        if self.resize not in ('shortest', 'squash'):
            raise ValueError(f"resize is {self.resize!r}, not 'shortest' or 'squash'.")
        if not 0 < self.crop <= 1:
            raise ValueError(f'crop is {self.crop}, not above 0 and at most 1.')
        if self.rounding != 'even' and not (self.rounding == 'down' and self.is_plain()):
            raise ValueError(
                f"rounding is {self.rounding!r}, not 'even', or 'down' with Pillow's bilinear or "
                'bicubic filter and the short side resized.'
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> tuple['Preprocessing', int | None]:
        """Read the test pipeline and the preprocessor of a config, by the names of the transforms.

        Returns:
            The preprocessing (bilinear, short side, without a test pipeline), and the image size
            that the pipeline gives, where it gives one.

        Raises:
            ValueError: The pipeline resizes in another way.
        """
        model = config.get('model') or {}
        pixels = model.get('data_preprocessor') or config.get('data_preprocessor') or {}
        settings, size = _read_transforms(find_test_pipeline(config) or ())
        if pixels.get('mean') is not None:
            settings.update(
                {key: [round(value / 255, 8) for value in pixels[key]] for key in ('mean', 'std')}
            )
        return cls(**settings), size

    def short_side(self, size: int) -> int:
        """Short side of the resized image, of which ``size`` pixels are cut out."""
        return round(size / self.crop)

    def is_plain(self) -> bool:
        """Whether it is what :class:`mmslip.datasets.transforms.ResizeCenterCrop` does."""
        filtering = self.backend, self.interpolation
        return self.resize == 'shortest' and filtering in (
            ('pillow', 'bilinear'),
            ('pillow', 'bicubic'),
        )

    def rounded(self, rounding: str) -> 'Preprocessing':
        """The same with another rounding, where there is one."""
        return replace(self, rounding=rounding) if self.is_plain() else self

    def pipeline(self, size: int) -> list[dict]:
        """The transforms of an evaluation at ``size`` pixels."""
        side = self.short_side(size)
        filtering = dict(interpolation=self.interpolation, backend=self.backend)
        crop = dict(type='CenterCrop', crop_size=size)
        if self.resize == 'squash':
            steps = [dict(type='Resize', scale=(side, side), **filtering), crop]
        elif self.is_plain():
            crop = dict(type='mmslip.ResizeCenterCrop', size=size, edge=side)
            steps = [dict(crop, interpolation=self.interpolation, rounding=self.rounding)]
        else:
            steps = [dict(type='ResizeEdge', scale=side, edge='short', **filtering), crop]
        return [dict(type='mmslip.LoadImage'), *steps, dict(type='mmslip.PackSLIPInputs')]

    def pixels_255(self) -> dict[str, list[float]]:
        """Mean and standard deviation on the 0-255 scale, as preprocessors take them."""
        return {
            key: [round(255 * value, 6) for value in getattr(self, key)] for key in ('mean', 'std')
        }


def find_test_pipeline(config: Mapping[str, Any]) -> list[dict] | None:
    """The transforms of the evaluation: of the test or validation data, or ``test_pipeline``."""
    loaders = [config.get(name) or {} for name in ('test_dataloader', 'val_dataloader')]
    found = (part for loader in loaders for part in _pipelines(loader.get('dataset')))
    return next(found, config.get('test_pipeline'))


def _pipelines(dataset: Any) -> Iterator[list[dict]]:
    """The pipelines of a data set's config, outer ones first."""
    if isinstance(dataset, Mapping):
        if dataset.get('pipeline'):
            yield dataset['pipeline']
        dataset = list(dataset.values())
    if isinstance(dataset, list | tuple):
        for part in dataset:
            yield from _pipelines(part)


def _read_transforms(pipeline: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], int | None]:
    """Settings of :class:`Preprocessing` and the image size, of a list of transforms."""
    settings, side, size = {}, None, None
    for part in pipeline:
        kind = re.split(r'[./]', part['type'])[-1]
        if kind == 'ResizeCenterCrop':
            size = part['size']
            side = part.get('edge') or size
            settings['rounding'] = part.get('rounding', 'even')
        elif kind == 'ResizeEdge' and part.get('edge', 'short') == 'short':
            side = part['scale']
        elif kind == 'Resize':
            side, settings['resize'] = _read_resize(part)
        elif kind == 'CenterCrop' and not part.get('efficientnet_style'):
            size = _square(part, 'crop_size' if 'crop_size' in part else 'size')
        elif 'Resize' in kind or 'Crop' in kind:
            raise ValueError(
                f'The test pipeline has {dict(part)!r}; weights can only be described with '
                'mmslip.ResizeCenterCrop, Resize or ResizeEdge of the short side, and CenterCrop.'
            )
        if 'Resize' in kind:
            settings['interpolation'] = str(part.get('interpolation', 'bilinear'))
            own = kind == 'ResizeCenterCrop' or part['type'].startswith('torchvision/')
            settings['backend'] = part.get('backend', 'pillow' if own else 'cv2')
    size = size or (side if settings.get('resize') == 'squash' else None)
    if size and side:
        settings['crop'] = size / side
    return settings, size


def _read_resize(part: Mapping[str, Any]) -> tuple[int, str]:
    """Side and way of a ``Resize`` of torchvision (one number: the short side) or mmcv."""
    if part['type'].startswith('torchvision/'):
        way = 'shortest' if isinstance(part['size'], int) else 'squash'
        return _square(part, 'size'), way
    if part.get('keep_ratio') or part.get('scale') is None:
        raise ValueError(
            f'The test pipeline has {dict(part)!r}, whose result depends on the image: give it '
            'scale=(N, N), or use mmslip.ResizeCenterCrop.'
        )
    return _square(part, 'scale'), 'squash'


def _square(part: Mapping[str, Any], key: str) -> int:
    """The side that a number or a pair of equal numbers states."""
    value = part[key]
    sides = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise ValueError(f'{part["type"]} has {key}={value!r}: images of a model are square.')
    return sides.pop()
