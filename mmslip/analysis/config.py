"""Checks of what a config says, without data and without running the model."""

from mmslip.analysis.finding import Finding
from mmslip.utils.parts import find_all, is_kind, parts_of

__all__ = [
    'check_aspect',
    'check_checkpoints',
    'check_hooks',
    'check_learning_rate',
    'check_length',
    'check_official',
    'check_schedule',
    'total_steps',
]

# A step that takes more of the data leaves an epoch few different batches.
_LARGE_SHARE = 0.25
_FEW_STEPS = 100
_LONG_WARMUP = 0.25


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
        'mmslip.ResizeCenterCrop; squashing costs zero-shot accuracy',
    )


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
    """Whether the best checkpoint is kept."""
    best = ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('save_best')
    if best and cfg.get('val_dataloader'):
        return Finding('checkpoints', f'the best one by {best} is kept')
    return Finding(
        'checkpoints',
        'the best one is not kept: small sets such as CC3M overfit long before the last epoch',
        'warn',
        'a zero-shot set as val_dataloader, and checkpoint=dict(save_best=...)',
    )


# What is lost without a hook of configs/_base_/default_runtime.py. Those that only show things
# (progress, summary, speed) are nobody's fault to leave out.
_HOOKS = {
    'ImageSizeHook': 'sizes that disagree end the run at its first batch or first validation',
    'StepSeedHook': 'a resumed run draws other random numbers than an uninterrupted one',
    'BatchCheckHook': 'batches that nothing can be learned from are not refused',
    'MonitorCheckHook': 'a wrong save_best ends the run at its first validation, unsaved',
    'ClampHook': 'the scale of the logits grows without bound',
    'SharedBuffersHook': 'where batch norm is not synchronised, a validation by several processes '
    'gives another score than its checkpoint',
    'BadSampleHook': 'samples that cannot be read are replaced, and listed nowhere',
    'ResumeDataHook': 'a resumed run replays data',
    'PlainCheckpointHook': 'checkpoints cannot be loaded without executing code',
    'LoadReportHook': 'weights that do not fit are passed over in silence',
    'AutoResumeHook': 'a damaged newest checkpoint cannot be resumed from, and nothing keeps a '
    'second run out of the folder',
    'PreemptionHook': 'Ctrl-C and SIGTERM lose the work since the last checkpoint',
    'InstabilityHook': 'one loss that is not finite ruins the weights',
    'DeferredRuntimeInfoHook': 'the host waits for the device in every step',
    'EvaluationRecordHook': 'no results.jsonl is written, which the report reads',
}


def check_hooks(cfg: dict) -> Finding:
    """Hooks that a runtime of one's own has left out, and what each absence means."""
    hooks = [cfg.get('default_hooks'), cfg.get('custom_hooks')]
    there = {
        (kind if isinstance(kind := part['type'], str) else kind.__name__).rpartition('.')[2]
        for _, part in parts_of(hooks)
    }
    needless = set()
    if not cfg['model'].get('head'):
        needless.add('ClampHook')
    if not cfg.get('val_dataloader'):
        needless.update(('MonitorCheckHook', 'SharedBuffersHook'))
    known = there | needless
    missing = [f'no mmslip.{name}: {loss}' for name, loss in _HOOKS.items() if name not in known]
    if not missing:
        return Finding('hooks', 'none of the usual ones is missing')
    remedy = 'build on mmslip::_base_/default_runtime.py, or add them as it does'
    return Finding('hooks', '\n'.join(missing), 'warn', remedy)


def check_length(cfg: dict, steps: int, samples: int, world_size: int) -> Finding:
    """Steps of an epoch and of the training.

    Args:
        cfg: The config.
        steps: Steps of an epoch.
        samples: Samples of the training data.
        world_size: Number of processes.
    """
    loop = cfg['train_cfg']
    total = total_steps(cfg, steps)
    text = f'{steps:,} steps an epoch, {total:,} in all'
    if loop.get('max_epochs'):
        text += f' ({loop["max_epochs"]} epochs)'
    share = cfg['train_dataloader']['batch_size'] * world_size / max(samples, 1)
    if share > _LARGE_SHARE:
        text += f'; a step takes {share:.0%} of the data'
        return Finding('length', text, 'warn', 'a smaller batch, so that an epoch has more steps')
    if total < _FEW_STEPS:
        return Finding('length', text, 'warn', 'more epochs or a smaller batch: this is very short')
    return Finding('length', text)


def total_steps(cfg: dict, steps: int) -> int:
    """Steps of the training, of ``steps`` an epoch."""
    loop = cfg['train_cfg']
    return loop['max_iters'] if loop.get('max_iters') else loop['max_epochs'] * steps


def check_schedule(cfg: dict, steps: int) -> Finding:
    """Length of the warm-up, and whether the schedule ends with the training.

    Args:
        cfg: The config.
        steps: Steps of an epoch.
    """
    name, total = 'warm-up and schedule', total_steps(cfg, steps)
    schedulers = cfg.get('param_scheduler') or []
    warm, ends = 0, []
    for scheduler in [schedulers] if isinstance(schedulers, dict) else schedulers:
        unit = steps if scheduler.get('by_epoch', True) else 1
        begin, end = scheduler.get('begin', 0), scheduler.get('end')
        if is_kind(scheduler, 'WarmupLR') or is_kind(scheduler, 'LinearLR'):
            warm = max(warm, (end or 0) * unit if begin == 0 else 0)
        elif is_kind(scheduler, 'CosineAnnealingLR') and (scheduler.get('T_max') or end):
            ends.append((begin + scheduler['T_max'] if scheduler.get('T_max') else end) * unit)
    text = f'warm-up of {warm:,} of {total:,} steps ({warm / total:.0%})' if warm else 'no warm-up'
    if ends and max(ends) != total:
        text += f'; the cosine ends at step {max(ends):,} of {total:,}'
        return Finding(
            name, text, 'warn', 'leave out T_max and end: it then ends with the training'
        )
    if warm / total > _LONG_WARMUP:
        return Finding(name, text, 'warn', 'a shorter warm-up (end of the first param_scheduler)')
    return Finding(name, text)
