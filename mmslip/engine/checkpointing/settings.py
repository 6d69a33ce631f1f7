"""Settings of optimiser and schedules: a resumed run takes those of its config."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from typing import Any

from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.optim import _ParamScheduler
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn

from mmslip.engine.checkpointing.differences import comparable, differences

__all__ = ['settings_of', 'take_settings']

# Attributes of a schedule that change from step to step; the others are its arguments.
_COUNTED = ('optimizer', 'last_step', '_global_step', '_last_value', 'verbose')
# Parts of the model whose settings make other features of the same weights.
_FUNCTION = ('data_preprocessor', 'backbone', 'neck', 'text_backbone', 'text_neck')
_SCALE = ('scale', '_growth_tracker')  # of a gradient scaler


def settings_of(runner: Runner, model: nn.Module) -> dict:
    """Settings of a run whose optimiser and schedules have been built and have done no step.

    Returns:
        Plain values. ``optimizer`` is its class; ``params`` has the names of the parameters by
        group; ``groups`` has the settings of each group, with the learning rate before schedules as
        ``initial_lr``, and in the end those that mmengine keeps for its log; ``schedules`` has
        class and arguments of each; ``scaler`` has those of a gradient scaler; ``run`` has what no
        state in a checkpoint depends on; ``model`` is that of the config.
    """
    names = {id(param): name for name, param in model.named_parameters()}
    wrapper = runner.optim_wrapper
    scaler = wrapper.loss_scaler.state_dict() if hasattr(wrapper, 'loss_scaler') else {}
    loop, config = runner.train_loop, runner.cfg.get('optim_wrapper') or {}
    loader, in_steps = runner.train_dataloader, isinstance(loop, IterBasedTrainLoop)
    return dict(
        optimizer=type(wrapper.optimizer).__name__,
        params=[
            [names[id(param)] for param in group['params']]
            for group in wrapper.optimizer.param_groups
        ],
        groups=[_of_group(group) for group in wrapper.param_groups],
        schedules=[_of_schedule(schedule) for schedule in runner.param_schedulers or ()],
        scaler={key: value for key, value in scaler.items() if key not in _SCALE},
        run={
            'train_cfg.max_iters' if in_steps else 'train_cfg.max_epochs': (
                loop.max_iters if in_steps else loop.max_epochs
            ),
            'optim_wrapper.accumulative_counts': config.get('accumulative_counts', 1),
            'optim_wrapper.clip_grad': comparable(config.get('clip_grad')),
            'train_dataloader.batch_size': loader.batch_size or loader.batch_sampler.batch_size,
            'processes': get_world_size(),
        },
        model=comparable(runner.cfg.get('model') or {}),
    )


def take_settings(runner: Runner, checkpoint: dict, now: dict, step: int) -> None:
    """Put settings of the config in the place of a checkpoint's, where these have changed.

    mmengine loads whatever optimiser and schedules were saved with. What has not changed is left,
    so that an unchanged run goes on bit for bit. Where schedules have changed, or what they start
    from, the new ones are gone through from their beginning. The log says what has changed.

    Args:
        runner: The run, its optimiser and schedules as they were built.
        checkpoint: The state that is about to be loaded; changed in place.
        now: :func:`settings_of` the run.
        step: The step of the run that schedules go on at, of those by epoch with its epoch.
    """
    before = checkpoint['meta'].get('settings')
    if before is None:
        message = (
            'The checkpoint does not say what settings it was trained with (it is not of mmslip): '
            'learning rates, weight decay and schedules in it are used, not those of the config.'
        )
        print_log(message, 'current', level=logging.WARNING)
        return
    changes = [
        f'{name}: {before["run"].get(name)} -> {value}'
        for name, value in now['run'].items()
        if before['run'].get(name) != value
    ]
    changes += _model_changes(before.get('model', {}), now['model'])
    was = checkpoint['optimizer']['param_groups'][0]['lr']
    groups = _take_groups(runner, checkpoint['optimizer'], before, now, changes)
    saved_scaler = checkpoint['optimizer'].get('loss_scaler') or {}
    for key, value in now['scaler'].items():
        if saved_scaler.get(key, value) != value:
            changes.append(f'optim_wrapper.loss_scale.{key}: {saved_scaler[key]} -> {value}')
            saved_scaler[key] = value
    # Where an epoch has other steps than before, or begins anew.
    moved = any(
        not state['by_epoch'] and state['_global_step'] != step
        for state in checkpoint.get('param_schedulers') or ()
    )
    if moved or any(_start(before)[key] != value for key, value in _start(now).items()):
        changes += _schedule_changes(before['schedules'], now['schedules'])
        _take_schedules(runner, checkpoint, groups, before, now, step)
        place = f'learning rate at step {checkpoint["meta"]["iter"]}'
        if groups[0]['lr'] != was:
            changes.append(f'{place}: {was:.4g} -> {groups[0]["lr"]:.4g}')
    for change in changes:
        print_log(f'Changed on resume: {change}', 'current', level=logging.WARNING)


def _take_groups(
    runner: Runner, state: dict, before: dict, now: dict, changes: list[str]
) -> list[dict]:
    """Bring the groups of an optimiser's state in line with the run's; returns them."""
    if before['params'] != now['params']:
        _regroup(runner, state, before['params'], now['params'])
        changes.append(
            f'parameters of the optimiser: {_sizes(before["params"])} -> {_sizes(now["params"])}'
        )
    groups = [*state['param_groups']]
    if 'base_param_settings' in state:
        groups.append(state['base_param_settings'])
    if before['params'] == now['params']:
        pairs: dict[str, list[tuple]] = {}
        for number, (group, old, new) in enumerate(
            zip(groups, before['groups'], now['groups'], strict=True)
        ):
            live = runner.optim_wrapper.param_groups[number]
            for key, value in new.items():
                if old.get(key) != value:
                    group[key] = live[key]
                    if number < len(now['params']):
                        pairs.setdefault(key, []).append((number, old.get(key), value))
        changes += [
            f'{key.removeprefix("initial_")}: {_changes_by_group(found, len(now["params"]))}'
            for key, found in pairs.items()
        ]
    return groups


def _regroup(runner: Runner, state: dict, before: list[list[str]], now: list[list[str]]) -> None:
    """Sort an optimiser's state by the groups of the run, parameter by parameter."""
    live = runner.optim_wrapper.state_dict()
    number_of = {name: number for number, name in enumerate(chain(*before))}
    state['state'] = {
        number: state['state'][number_of[name]]
        for number, name in enumerate(chain(*now))
        if number_of.get(name) in state['state']
    }
    state['param_groups'] = live['param_groups']
    state.pop('base_param_settings', None)
    if 'base_param_settings' in live:
        state['base_param_settings'] = live['base_param_settings']


def _start(settings: dict) -> dict:
    """Settings that, with the step, determine the values of all schedules."""
    values = [
        {key: value for key, value in group.items() if key.startswith('initial_')}
        for group in settings['groups']
    ]
    return dict(schedules=settings['schedules'], params=settings['params'], values=values)


def _take_schedules(
    runner: Runner, checkpoint: dict, groups: list[dict], before: dict, now: dict, step: int
) -> None:
    """Give a checkpoint the state of the run's schedules at a step, and its groups their values."""
    schedules, live = runner.param_schedulers or [], runner.optim_wrapper.param_groups
    if any(getattr(schedule, 'need_val_args', False) for schedule in schedules):
        _keep_plateaus(checkpoint, before, now)
        return
    _go_through(schedules, step, checkpoint['meta']['epoch'], len(runner.train_dataloader))
    names = {schedule['param_name'] for schedule in (*before['schedules'], *now['schedules'])}
    for group, source in zip(groups, live, strict=True):
        for name in names:
            # The last two are those of OneCycleLR.
            for key in (name, f'initial_{name}', f'max_{name}', f'min_{name}'):
                if key in source:
                    group[key] = source[key]
    checkpoint['param_schedulers'] = [schedule.state_dict() for schedule in schedules]


def _go_through(schedules: list[_ParamScheduler], step: int, epoch: int, length: int) -> None:
    """Bring schedules to a step as training does: by steps, and after each epoch by epochs."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that the optimiser does no step between
        for done in range(1, step + 1):
            for schedule in schedules:
                if not schedule.by_epoch:
                    schedule.step()
            if done % length == 0 and done // length <= epoch:
                for schedule in schedules:
                    if schedule.by_epoch:
                        schedule.step()


def _keep_plateaus(checkpoint: dict, before: dict, now: dict) -> None:
    """Change arguments of schedules that follow scores; what these were is not known any more.

    Raises:
        ValueError: More has changed than that.
    """

    def start(settings: dict) -> dict:
        types = [schedule['type'] for schedule in settings['schedules']]
        return dict(_start(settings), schedules=types)

    if start(before) != start(now):
        raise ValueError(
            'A schedule that follows the scores (ReduceOnPlateau) cannot be worked out anew, '
            'and the schedules, the learning rate or the groups of parameters have changed: resume '
            'with those of before, or start a new run from the weights with load_from.'
        )
    pairs = zip(before['schedules'], now['schedules'], strict=True)
    for state, (old, new) in zip(checkpoint['param_schedulers'], pairs, strict=True):
        state.update({key: value for key, value in new.items() if old.get(key) != value})


def _of_group(group: dict) -> dict:
    return {
        key: comparable(value)
        for key, value in group.items()
        if key != 'params' and f'initial_{key}' not in group
    }


def _of_schedule(schedule: _ParamScheduler) -> dict:
    arguments = {
        key: comparable(value)
        for key, value in vars(schedule).items()
        if key not in _COUNTED and not callable(value)
    }
    return dict(type=type(schedule).__name__, **arguments)


def _model_changes(before: dict, now: dict) -> Iterator[str]:
    """Settings of the model that differ, as far as both runs were built from a config."""
    for name, old, new in differences(before, now, 'model') if before and now else ():
        keys = name.split('.')
        note = ''
        if any(key.startswith('init_') for key in keys):
            note = ' (without effect: the weights of the checkpoint go on)'
        elif keys[1] in _FUNCTION and 'drop' not in name:
            note = f' (the weights were trained with {old})'
        yield f'{name}: {old} -> {new}{note}'


def _schedule_changes(before: list[dict], now: list[dict]) -> list[str]:
    changes = []
    for number, (old, new) in enumerate(zip_longest(before, now, fillvalue=dict(type=None))):
        name = f'param_scheduler[{number}]'
        if old['type'] != new['type']:
            changes.append(f'{name}: {old["type"]} -> {new["type"]}')
            continue
        changes += [
            f'{name} ({new["type"]}) {key}: {old.get(key)} -> {value}'
            for key, value in new.items()
            if old.get(key) != value and key != 'base_values'
        ]
    return changes


def _changes_by_group(found: list[tuple[int, Any, Any]], groups: int) -> str:
    """In one line; ``found`` has the number of a group, its old value and its new one."""
    if len({(str(old), str(new)) for _, old, new in found}) == 1:
        _, old, new = found[0]
        where = '' if len(found) == groups else f' (groups {", ".join(str(n) for n, *_ in found)})'
        return f'{old} -> {new}{where}'
    return '; '.join(f'{old} -> {new} (group {number})' for number, old, new in found)


def _sizes(names: Sequence[Sequence[str]]) -> str:
    return f'{sum(map(len, names))} in {len(names)} groups'
