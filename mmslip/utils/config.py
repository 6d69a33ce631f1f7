"""Reading configs, with one truth for the size of the images.

The image tower, every view and every evaluation pipeline state a size of their own, so that a
config is complete as it is written. ``image_size = 336`` in a config of one's own, or
``--cfg-options image_size=336``, changes all of them; sizes that disagree are an error before
anything runs.
"""

import copy
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from mmslip.registry import MODELS, TRANSFORMS
from mmslip.shipped import find_config

__all__ = ['apply_options', 'check_image_sizes', 'image_size_of', 'load_config']

# Transforms that decide the size of a picture, and the argument that states it.
_SIZES = {
    'CenterCrop': 'crop_size',
    'DeviceWarp': 'size',
    'RandomCrop': 'crop_size',
    'RandomResizedCrop': 'scale',
    'RandomResizedCropAndInterpolationWithTwoPic': 'size',
    'Resize': 'scale',
    'ResizeCenterCrop': 'size',
    'SLIPViews': 'size',
    'SimMIMMaskGenerator': 'input_size',
    'torchvision/CenterCrop': 'size',
    'torchvision/RandomResizedCrop': 'size',
}
# Those whose argument is the shorter side before a crop: it changes in proportion.
_EDGES = {'ResizeCenterCrop': 'edge', 'ResizeEdge': 'scale', 'torchvision/Resize': 'size'}


class Setting(NamedTuple):
    """A place of a config that states a size.

    Attributes:
        key: Its name, as ``--cfg-options`` takes it.
        size: Height and width in pixels.
        at_most: Whether it may be smaller than that of the image tower.
    """

    key: str
    size: tuple[int, int]
    at_most: bool = False


def load_config(config: str | Path | Config, options: dict[str, Any] | None = None) -> Config:
    """Read a config, change it by options, and write its ``image_size`` to wherever it belongs.

    Args:
        config: A config, which is copied; or its file or name, as :func:`find_config` takes it.
        options: Settings by dotted key, as of ``--cfg-options``.

    Returns:
        The config; the modules that it imports are imported.

    Raises:
        FileNotFoundError: There is no such config.
        ValueError: Several configs have the name, or two sizes of images disagree.
    """
    if isinstance(config, Config):
        cfg = copy.deepcopy(config)
    else:
        cfg = Config.fromfile(find_config(config))
    if cfg.get('custom_imports'):
        import_modules_from_strings(**cfg.custom_imports)
    apply_options(cfg, options)
    return cfg


def apply_options(cfg: Config, options: dict[str, Any] | None = None) -> None:
    """Change a config by options, and write its ``image_size`` to wherever it belongs.

    Args:
        cfg: The config, which is changed.
        options: Settings by dotted key, as of ``--cfg-options``.

    Raises:
        ValueError: Two sizes of images disagree.
    """
    options = dict(options or {})
    if 'image_size' in options:
        cfg.image_size = options.pop('image_size')
    # Before the other options, so that one of them that disagrees is an error instead of undone.
    _write_image_size(cfg)
    cfg.merge_from_dict(options)
    check_image_sizes(cfg)


def check_image_sizes(cfg: Config) -> None:
    """Raise ``ValueError`` if two settings of a config disagree on the size of the images.

    ``image_size``, where it is stated, and the size of the image tower, where it has one, must be
    that of every pipeline's picture. Self-supervised views may be smaller where ``ssl_size`` says
    so, or, beside an image, transforms of one's own.
    """
    stated = [*_stated(cfg), *_of_backbone(cfg)]
    if not stated:
        return
    truth = stated[0]
    for other in [*stated, *_of_pipelines(cfg)]:
        if other.size == truth.size or (other.at_most and max(other.size) <= min(truth.size)):
            continue
        if other.at_most:
            remedy = 'self-supervised views may be smaller than the images, not larger'
        elif truth.key == 'image_size':
            remedy = 'read the config by mmslip.load_config, as the tools do, which writes it there'
        else:
            remedy = (
                'state the size once instead, by `image_size = N` in the config or '
                '--cfg-options image_size=N; mmslip.load_config, and so every tool, writes it '
                'to both'
            )
        raise ValueError(
            f'{truth.key} is {_text(truth.size)}, but {other.key} is {_text(other.size)}: {remedy}.'
        )


def image_size_of(cfg: Config) -> int | None:
    """Side in pixels of the images that a config's model takes, if any setting states it."""
    settings = [*_stated(cfg), *_of_backbone(cfg), *_of_pipelines(cfg)]
    return next((setting.size[0] for setting in settings if not setting.at_most), None)


def _stated(cfg: Config) -> Iterator[Setting]:
    yield from _setting('image_size', cfg.get('image_size'))


def _of_backbone(cfg: Config) -> Iterator[Setting]:
    backbone = _part(_part(cfg, 'model'), 'backbone')
    size = backbone.get('img_size') or _default(MODELS, cfg, backbone.get('type'), 'img_size')
    yield from _setting('model.backbone.img_size', size)


def _of_pipelines(cfg: Config) -> Iterator[Setting]:
    for key, steps in _pipelines(cfg):
        yield from _of_steps(cfg, key, steps)
    for key, steps in _augments(cfg, 'image_augment'):
        yield from _of_steps(cfg, key, steps)
    for key, steps in _augments(cfg, 'view_augment'):
        for setting in _of_steps(cfg, key, steps):
            yield setting._replace(at_most=True)


def _augments(cfg: Config, name: str) -> Iterator[tuple[str, list[dict]]]:
    """Steps of the data preprocessor that may cut the views of a batch."""
    steps = _part(_part(cfg, 'model'), 'data_preprocessor').get(name)
    if isinstance(steps, list | tuple):
        yield f'model.data_preprocessor.{name}', steps


def _pipelines(cfg: Config) -> Iterator[tuple[str, list[dict]]]:
    """Every pipeline of the loaders and its key, those of nested data sets included."""
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        yield from _find_pipelines(_part(cfg, loader).get('dataset'), f'{loader}.dataset')


def _find_pipelines(node: Any, key: str) -> Iterator[tuple[str, list[dict]]]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == 'pipeline' and isinstance(value, list | tuple):
                yield f'{key}.{name}', list(value)
            else:
                yield from _find_pipelines(value, f'{key}.{name}')
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _find_pipelines(value, f'{key}.{index}')


def _of_steps(cfg: Config, key: str, steps: Sequence[dict]) -> Iterator[Setting]:
    """The sizes of what leaves a pipeline: decided by its last transform that resizes or cuts."""
    for index, step in reversed(list(enumerate(steps))):
        name, place = _name(step), f'{key}.{index}'
        if name == 'SLIPViews':
            yield from _of_views(cfg, place, step)
            return
        if name in _SIZES and _SIZES[name] in step and not step.get('keep_ratio'):
            yield from _setting(f'{place}.{_SIZES[name]}', step[_SIZES[name]])
            return


def _of_views(cfg: Config, key: str, step: dict) -> Iterator[Setting]:
    size = step.get('size') or _default_size(cfg, step)
    if step.get('image_views', 1):
        if step.get('image') is not None:  # an empty list leaves the picture whole
            yield from _of_steps(cfg, f'{key}.image', step['image'])
        else:
            yield from _setting(f'{key}.size', size)
    if not step.get('ssl_views', 2):
        return
    alone = not _states_image(step)
    if step.get('ssl') is not None:
        # Without images, these are what the tower is for.
        for setting in _of_steps(cfg, f'{key}.ssl', step['ssl']):
            yield setting._replace(at_most=not alone)
    elif step.get('ssl_size'):
        if alone and step.get('size'):  # the size that they are smaller than
            yield from _setting(f'{key}.size', step['size'])
        sizes = step['ssl_size']
        for side in sizes if isinstance(sizes, list | tuple) else [sizes]:
            yield from _setting(f'{key}.ssl_size', side, at_most=True)
    else:
        yield from _setting(f'{key}.size', size)


def _write_image_size(cfg: Config) -> None:
    """Write ``image_size``, where it is stated, into the model and every pipeline."""
    size = cfg.get('image_size')
    if size is None:
        return
    if not isinstance(size, int) or size < 1:
        raise ValueError(f'image_size is a side in pixels, such as 224, not {size!r}.')
    if any(_of_backbone(cfg)):
        cfg.model.backbone.img_size = size
    neck = _part(_part(_part(cfg, 'model'), 'ssl'), 'neck')
    if 'num_patches' in neck and 'patch_size' in neck:  # MAE's decoder
        neck['num_patches'] = (size // neck['patch_size']) ** 2
    for _, steps in _pipelines(cfg):
        _resize(cfg, steps, size)
    for _, steps in _augments(cfg, 'image_augment'):
        old = _side(cfg, steps)
        _resize(cfg, steps, size)
        for _, views in _augments(cfg, 'view_augment'):
            if _side(cfg, views) == old:
                _resize(cfg, views, size)


def _resize(cfg: Config, steps: Sequence[dict], size: int) -> None:
    """Let a pipeline end in pictures of ``size``; what it makes smaller on purpose stays so."""
    old = _side(cfg, steps)
    for step in steps if old else []:
        name = _name(step)
        if name == 'SLIPViews':
            _resize_views(cfg, step, size)
            continue
        if name in _SIZES and _SIZES[name] in step and not step.get('keep_ratio'):
            step[_SIZES[name]] = _replace(step[_SIZES[name]], old, size)
        if name in _EDGES and isinstance(step.get(_EDGES[name]), int):
            step[_EDGES[name]] = round(step[_EDGES[name]] * size / old)


def _resize_views(cfg: Config, step: dict, size: int) -> None:
    own = step.get('image') if _states_image(step) else step.get('ssl')
    old = _side(cfg, own or []) or step.get('size') or _default_size(cfg, step)
    for half in ('image', 'ssl'):
        if _side(cfg, step.get(half) or []) == old:
            _resize(cfg, step[half], size)
    if step.get('ssl_size'):
        step['ssl_size'] = _replace(step['ssl_size'], old, size)
    if not (step.get('image') and step.get('ssl')):
        step['size'] = size


def _states_image(step: dict) -> bool:
    """Whether views of the language half are described, which have the size of the tower.

    Images without a caption may take the description of others, with ``image_views=0``.
    """
    return bool(step.get('image_views', 1) or step.get('image'))


def _default_size(cfg: Config, step: dict) -> int:
    return _default(TRANSFORMS, cfg, step['type'], 'size')


def _side(cfg: Config, steps: Sequence[dict]) -> int | None:
    """Side of the pictures that a pipeline makes; None if no transform states it."""
    return next((setting.size[0] for setting in _of_steps(cfg, '', steps)), None)


def _replace(value: int | Sequence[int], old: int, new: int) -> int | Sequence[int]:
    if isinstance(value, list | tuple):
        return type(value)(new if side == old else side for side in value)
    return new if value == old else value


def _part(cfg: dict, name: str) -> dict:
    """A part of a config; nothing, where it is absent or no dict, which others report."""
    part = cfg.get(name)
    return part if isinstance(part, dict) else {}


def _name(step: dict) -> str:
    """A transform without its scope; torchvision's keep theirs, since their arguments differ."""
    kind = step.get('type', '') if isinstance(step, dict) else ''
    kind = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return kind if kind.startswith('torchvision/') else re.split(r'[./]', kind)[-1]


def _default(registry: Any, cfg: Config, kind: Any, argument: str) -> Any:
    """The default of a registered class's argument; None if it has none."""
    if isinstance(kind, str):
        scope = cfg.get('default_scope', 'mmpretrain')
        with registry.switch_scope_and_registry(scope) as scoped:
            kind = scoped.get(kind)
    if not callable(kind):
        return None
    parameter = inspect.signature(kind).parameters.get(argument)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def _setting(key: str, size: Any, at_most: bool = False) -> Iterator[Setting]:
    """The setting, if its value is a size: a side, or height and width."""
    size = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(size) == 2 and all(isinstance(side, int) for side in size):
        yield Setting(key, size, at_most)


def _text(size: tuple[int, int]) -> str:
    return str(size[0]) if size[0] == size[1] else f'{size[0]} x {size[1]}'
