"""Checks of the model, built from its config."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset

from mmslip.analysis.cost import cut_batch
from mmslip.analysis.data import read_samples
from mmslip.analysis.finding import Finding
from mmslip.models.chunks import ByteImages
from mmslip.utils.parts import find_all

__all__ = [
    'check_activation',
    'check_batch_norm',
    'check_halves',
    'check_negatives',
    'check_views',
]

# Samples of a step: SimCLR at 8 was at chance (accumulation does not help). Its loss needs
# negatives, and batch norm needs samples for its statistics.
_FEW, _RATHER_FEW = 16, 64
# Methods of self-supervision whose loss tells samples of a batch from each other.
_CONTRASTIVE = ('SimCLR', 'MoCoV3')
# Fewer places than these leave a tower nothing of where things are.
_FEW_PLACES = 9


def check_negatives(model: nn.Module, rows: int, samples: int, world_size: int) -> Finding:
    """Whether the contrastive losses have enough to compare with.

    Args:
        model: A built :class:`mmslip.models.SLIP`.
        rows: Samples of one process with a caption.
        samples: Samples of one process.
        world_size: Number of processes.
    """
    seen = {}
    if model.with_text:
        seen['captions'] = rows * world_size - 1
    if model.ssl is not None and type(model.ssl).__name__ in _CONTRASTIVE:
        seen['images'] = samples * world_size - 1
    if not seen:
        return Finding('negatives', 'no loss compares samples')
    least = min(seen.values())
    verdict = 'fail' if least < _FEW - 1 else 'warn' if least < _RATHER_FEW - 1 else 'ok'
    remedy = '' if verdict == 'ok' else 'a larger batch_size (accumulating steps does not help)'
    text = ' and '.join(f'{number} other {kind}' for kind, number in seen.items())
    return Finding('negatives', f'each sample is told from {text}', verdict, remedy)


def check_batch_norm(model: nn.Module, batch_size: int, world_size: int, synced: bool) -> Finding:
    """Whether batch norm in the self-supervised head sees enough samples.

    Args:
        model: A built :class:`mmslip.models.SLIP`.
        batch_size: Samples of one process.
        world_size: Number of processes.
        synced: Whether the statistics are shared between them.
    """
    name = 'batch norm of the SSL head'
    if model.ssl is None:
        return Finding(name, 'there is no self-supervised half')
    parts = (part for key, part in model.ssl.named_children() if key != 'backbone')
    if not any(isinstance(inner, _BatchNorm) for part in parts for inner in part.modules()):
        return Finding(name, 'the head has none')
    seen = batch_size * (world_size if synced else 1)
    verdict = 'fail' if seen < _FEW else 'warn' if seen < _RATHER_FEW else 'ok'
    remedy = '' if verdict == 'ok' else 'more samples in a step (accumulating steps does not help)'
    if verdict != 'ok' and world_size > 1 and not synced:
        remedy = "sync_bn = 'torch', or " + remedy
    return Finding(name, f'statistics over {seen} samples', verdict, remedy)


def check_activation(model: nn.Module, cfg: dict) -> Finding:
    """GELU variant of each tower; the wrong one under loaded weights costs accuracy silently."""
    kinds = {}
    for tower in ('backbone', 'text_backbone'):
        names = {type(part).__name__ for part in (getattr(model, tower) or nn.Module()).modules()}
        kinds[tower] = ' and '.join(sorted(names & {'QuickGELU', 'GELU', 'ReLU'})) or 'none'
    loads = cfg.get('load_from') or any(find_all(cfg['model'], 'Pretrained'))
    text = ', '.join(f'{tower}: {kind}' for tower, kind in kinds.items())
    if not loads:
        return Finding('activation', text)
    remedy = 'make sure that the loaded weights were trained with these'
    return Finding('activation', text, 'warn', remedy)


def check_halves(model: nn.Module, dataset: Dataset, batch: dict, number: int = 200) -> Finding:
    """Whether what the data gives and what the halves of the model need are the same.

    Args:
        model: A built :class:`mmslip.models.SLIP`.
        dataset: The training data.
        batch: A batch of it.
        number: Samples that are looked at for captions.
    """
    name, inputs = 'halves and data', batch['inputs']
    lacks = [key for key in ('image', 'text') if model.with_text and key not in inputs]
    lacks += ['views'] if model.ssl is not None and 'views' not in inputs else []
    if lacks:
        remedy = 'SLIPViews, TokenizeCaption and PackSLIPInputs as in configs/_base_/views/slip.py'
        return Finding(name, f'the batch has no {", no ".join(lacks)}', 'fail', remedy)
    idle = []
    if not model.with_text and 'text' in inputs:
        idle.append(
            ('captions, which no text tower reads', "captions='ignored', no TokenizeCaption")
        )
    if model.ssl is None and 'views' in inputs:
        idle.append(('views, which no self-supervised half sees', 'ssl_views=0 of SLIPViews'))
    bare = [not info.get('text') for info, _ in read_samples(dataset, number)]
    share = sum(bare) / max(len(bare), 1)
    if model.with_text and share and model.ssl is None:
        idle.append(
            (f'images without a caption ({share:.0%}), which train nothing', 'an `ssl` half')
        )
    if idle:
        text, remedy = ('; '.join(column) for column in zip(*idle, strict=True))
        return Finding(name, f'the data gives {text}', 'warn', remedy)
    kinds = [f'{1 - share:.0%} of the samples have a caption'] if model.with_text else []
    kinds += ['views for the self-supervised half'] if model.ssl is not None else []
    return Finding(name, ', '.join(kinds))


def check_views(model: nn.Module, batch: dict) -> Finding:
    """Whether the image tower sees more than a few places of an image.

    Two samples go through it, and its last convolution tells: of a vision transformer that is the
    one that cuts patches, of a ResNet the one before the mean.

    Args:
        model: A built :class:`mmslip.models.SLIP`.
        batch: A batch of its training data.
    """
    model.eval()
    inputs = model.data_preprocessor(cut_batch(batch, 2), training=True)['inputs']
    views = {(kind, tuple(view.shape[-2:])): view for kind, view in _views(inputs)}
    grids = {key: _grid(model, view) for key, view in views.items()}
    finding = ', '.join(
        f'{kind} of {_times(size)} as {_times(grid)} places'
        for (kind, size), grid in grids.items()
        if grid is not None
    )
    # Self-supervised views beside images are made smaller on purpose.
    first = next(iter(grids.values()), None)
    if first is None:
        return Finding('views and tower', 'the image tower has no convolution that tells')
    if math.prod(first) >= _FEW_PLACES:
        return Finding('views and tower', f'the image tower sees {finding}')
    remedy = 'a larger image_size, or a smaller patch_size or stride of the image tower'
    return Finding('views and tower', f'the image tower sees {finding}', 'warn', remedy)


def _times(size: tuple[int, ...]) -> str:
    return ' x '.join(map(str, size))


def _views(inputs: dict) -> Iterator[tuple[str, Tensor | ByteImages]]:
    """Kind and pixels of the views of a batch, those of the language half first."""
    for key, kind in (('image', 'images'), ('views', 'views')):
        views = inputs.get(key, ())
        for view in views if isinstance(views, list | tuple) else [views]:
            yield kind, view


@torch.no_grad()
def _grid(model: nn.Module, images: Tensor | ByteImages) -> tuple[int, ...] | None:
    """Height and width of what the last convolution of the image tower makes."""
    sizes = []
    handles = [
        module.register_forward_hook(lambda _, __, output: sizes.append(tuple(output.shape[-2:])))
        for module in model.backbone.modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        model.backbone(images, **model.whole_image)
    finally:
        for handle in handles:
            handle.remove()
    return sizes[-1] if sizes else None
