"""Widths that follow from the towers: stated once, by the tower, and inferred everywhere else."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mmslip.models.necks import pool
from mmslip.registry import model_class

__all__ = ['feature_width', 'image_size_of', 'text_feature_width', 'with_width']

# Names under which the necks of mmpretrain and mmslip take the width of what they read.
_ARGUMENTS = ('in_channels', 'embed_dim')


def image_size_of(backbone: nn.Module, cfg: dict) -> tuple[int, int] | None:
    """Height and width of the images that a backbone is built for; None where any will do.

    Args:
        backbone: The image tower.
        cfg: Its config; not every tower keeps the ``img_size`` that it was given.

    Raises:
        ValueError: The size is no multiple of that of the tower's patches.
    """
    size = getattr(backbone, 'img_size', None) or cfg.get('img_size')
    size = (size, size) if isinstance(size, int) else size and tuple(size)
    patches = getattr(getattr(backbone, 'patch_embed', None), 'projection', None)
    stride = getattr(patches, 'stride', None) if hasattr(backbone, 'pos_embed') else None
    if size and stride and (size[0] % stride[0] or size[1] % stride[1]):
        raise ValueError(
            f'model.backbone.img_size is {size[0]} x {size[1]}, no multiple of its patches of '
            f'{stride[0]}: the rest of an image would be cut off or padded in silence. Choose '
            'another image_size, or another model.backbone.patch_size.'
        )
    return size


def feature_width(
    backbone: nn.Module, image_size: tuple[int, int] | None, **kwargs: Any
) -> int | None:
    """Width ``C`` of the feature that :func:`mmslip.models.necks.pool` finds in an image tower.

    Args:
        backbone: Maps images ``(B, 3, H, W)`` to a tuple.
        image_size: Of :func:`image_size_of`.
        **kwargs: Further arguments of its forward pass.

    Returns:
        The width; None if the tower does not run without values.

    Raises:
        ValueError: The tower is a model of timm that puts channels last, where pooling would take
            a row of pixels for the channels.
    """
    timm = getattr(backbone, 'timm_model', None)
    size = image_size or getattr(timm, 'pretrained_cfg', {}).get('input_size', (3, 224, 224))[1:]
    width = _width(backbone, torch.empty(2, 3, *size, device='meta'), **kwargs)
    if None not in (timm, width) and width != timm.num_features:
        raise ValueError(
            f'{type(timm).__name__} of timm gives features of width {timm.num_features}, but not '
            'in the dimension where mmslip reads them: models with channels last, such as its '
            'Swin, are not supported; take another, or the one of mmpretrain.'
        )
    return width


def text_feature_width(text_backbone: nn.Module) -> int | None:
    """Width of the feature of a text tower, which maps token ids ``(B, L)`` to a tuple.

    That of the attribute ``width`` where the tower has one and does not run without values.
    """
    length = min(8, getattr(text_backbone, 'context_length', None) or 8)
    ids = torch.zeros(2, length, dtype=torch.int64, device='meta')
    return _width(text_backbone, ids) or getattr(text_backbone, 'width', None)


def _width(tower: nn.Module, inputs: Tensor, **kwargs: Any) -> int | None:
    """Run a tower on shapes alone: nothing is computed, and no weight is copied."""
    tensors = {**dict(tower.named_parameters()), **dict(tower.named_buffers())}
    tensors = {name: torch.empty_like(value, device='meta') for name, value in tensors.items()}
    try:
        with torch.no_grad():
            return pool(functional_call(tower, tensors, (inputs,), kwargs)).shape[-1]
    except (RuntimeError, NotImplementedError):
        return None


def with_width(cfg: Any, width: int | None, key: str) -> Any:
    """The config of a neck with the width of the tower in front of it.

    Args:
        cfg: Its config; a neck that takes no such width, or is built already, is returned as it is.
        width: Width of the tower's feature; None where it is not known.
        key: Where the neck stands in the config, for messages.

    Raises:
        ValueError: The config states another width, or none where it cannot be inferred.
    """
    if not isinstance(cfg, dict):
        return cfg
    cls = model_class(cfg)
    name = next((name for name in _ARGUMENTS if _takes(cls, name)), None)
    if name is None or (width is None and name in cfg):
        return cfg
    if width is None:
        raise ValueError(f'{key}.{name} cannot be inferred from the tower: state it.')
    if cfg.get(name, width) != width:
        raise ValueError(
            f'{key}.{name} is {cfg[name]}, and the tower before it gives features of width '
            f'{width}: set {key}.{name}={width}, or leave it out, and it is inferred.'
        )
    return {**cfg, name: width}


def _takes(cls: type, name: str) -> bool:
    """Whether a class, or a base class that it passes arguments on to, takes an argument."""
    inits = (vars(base).get('__init__') for base in cls.__mro__)
    return any(name in inspect.signature(init).parameters for init in inits if init is not None)
