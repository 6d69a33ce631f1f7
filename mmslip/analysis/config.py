"""Checks of what a config says, without data and without running the model."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from mmslip.analysis.finding import Finding

__all__ = [
    'check_activation',
    'check_aspect',
    'check_batch_norm',
    'check_checkpoints',
    'check_learning_rate',
    'check_official',
    'find_all',
]

# SimCLR at 8 per step was at chance (accumulation does not help); it needs other images to differ
# from, and batch norm their statistics.
_FEW, _RATHER_FEW = 16, 64


def find_all(cfg: Any, kind: str) -> Iterator[dict]:
    """All parts of a config whose ``type`` is ``kind``, with or without a scope, at any depth."""
    if isinstance(cfg, dict):
        if str(cfg.get('type')).rpartition('.')[2] == kind:
            yield cfg
        cfg = list(cfg.values())
    if isinstance(cfg, list | tuple):
        for part in cfg:
            yield from find_all(part, kind)


def check_aspect(cfg: dict) -> Finding:
    """Whether a pipeline squashes images to a square instead of cutting one out."""
    squashing = []
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for resize in find_all(cfg.get(name) or {}, 'Resize'):
            scale = resize.get('scale')
            fixed = isinstance(scale, int | list | tuple) and not resize.get('keep_ratio', False)
            if fixed and name not in squashing:
                squashing.append(name)
    if not squashing:
        return Finding('aspect ratio', 'no pipeline squashes images')
    return Finding(
        'aspect ratio',
        f'Resize to a fixed size squashes the images of {", ".join(squashing)}',
        'warn',
        "ResizeEdge(edge='short') and CenterCrop; squashing costs zero-shot accuracy",
    )


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
    # Not `modules()` of the algorithm's own backbone, which is not registered inside it.
    if not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.ssl.modules()):
        return Finding(name, 'the head has none')
    seen = batch_size * (world_size if synced else 1)
    verdict = 'fail' if seen < _FEW else 'warn' if seen < _RATHER_FEW else 'ok'
    remedy = '' if verdict == 'ok' else 'more samples in a step (accumulating steps does not help)'
    if verdict != 'ok' and world_size > 1 and not synced:
        remedy = "sync_bn = 'torch', or " + remedy
    return Finding(name, f'statistics over {seen} samples', verdict, remedy)


def check_learning_rate(cfg: dict, world_size: int) -> Finding:
    """Whether the learning rate was chosen for this batch size, and steps are not accumulated."""
    wrapper, scaling = cfg['optim_wrapper'], cfg.get('auto_scale_lr') or {}
    actual = cfg['train_dataloader']['batch_size'] * world_size
    lr, base = wrapper['optimizer']['lr'], scaling.get('base_batch_size')
    if wrapper.get('accumulative_counts', 1) > 1:
        return Finding(
            'learning rate and batch',
            f'{wrapper["accumulative_counts"]} steps of {actual} samples are accumulated',
            'warn',
            'a contrastive loss sees one step only: accumulation is not a larger batch',
        )
    if base is None:
        return Finding('learning rate and batch', f'lr {lr:g} for batch {actual}; no base stated')
    text = f'lr {lr:g} was chosen for batch {base}; here it is {actual}'
    if scaling.get('enable'):
        return Finding('learning rate and batch', f'{text}: scaled to {lr * actual / base:.3g}')
    if base / 2 <= actual <= base * 2:
        return Finding('learning rate and batch', text)
    return Finding('learning rate and batch', text, 'warn', 'train with --auto-scale-lr')


def check_official(cfg: dict, world_size: int) -> Finding:
    """Whether a switch repeats a fault of the official code, or a part of mmpretrain has one."""
    found, tokenizers = [], list(find_all(cfg, 'CLIPTokenizer'))
    heads = find_all(cfg['model'], 'CLIPHead')
    if world_size > 1 and not all(head.get('gather_with_grad', True) for head in heads):
        found.append('CLIPHead(gather_with_grad=False) halves the image-text gradient')
    ssl = (cfg['model'].get('ssl') or {}).get('type')
    if world_size > 1 and ssl in ('SimCLR', 'mmpretrain.SimCLR'):
        found.append(f"mmpretrain's SimCLR has 1/{world_size} of its gradient (mmslip.SimCLR)")
    if not all(tokenizer.get('keep_end_token', True) for tokenizer in tokenizers):
        found.append('CLIPTokenizer(keep_end_token=False) gives all cut captions one embedding')
    if any(tokenizer.get('parse_control_tokens') for tokenizer in tokenizers):
        found.append('CLIPTokenizer(parse_control_tokens=True) lets a caption end itself')
    if not found:
        return Finding('faults of other code', 'none is repeated')
    remedy = 'leave these out, except to repeat a published run exactly'
    return Finding('faults of other code', '; '.join(found), 'warn', remedy)


def check_checkpoints(cfg: dict) -> Finding:
    """Whether checkpoints can be resumed exactly, and the best one is kept."""
    hooks = {'ResumeDataHook': 'a resumed run replays data', 'PlainCheckpointHook': 'not loadable'}
    missing = [
        f'without mmslip.{name}: {effect}'
        for name, effect in hooks.items()
        if not any(find_all(cfg.get('custom_hooks') or [], name))
    ]
    if missing:
        remedy = 'these hooks, as in configs/_base_/default_runtime.py'
        return Finding('checkpoints', '; '.join(missing), 'warn', remedy)
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if checkpoint.get('save_best') and cfg.get('val_dataloader'):
        return Finding('checkpoints', f'the best one by {checkpoint["save_best"]} is kept')
    return Finding(
        'checkpoints',
        'the best one is not kept: small sets such as CC3M overfit long before the last epoch',
        'warn',
        'a zero-shot set as val_dataloader, and checkpoint=dict(save_best=...)',
    )


def check_activation(model: nn.Module, cfg: dict) -> Finding:
    """Which GELU each tower has; the wrong one under loaded weights costs accuracy silently."""
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
