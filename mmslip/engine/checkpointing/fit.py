"""Whether the state in a checkpoint is that of this run's model."""

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from mmslip.engine.mmengine_compat import averages_of
from mmslip.engine.unwrap import unwrap

__all__ = ['check_fit']

_SHOWN = 10  # rows of the table
# State that PyTorch's optimisers keep for each element of a parameter.
_MOMENTS = (
    'exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'exp_inf', 'momentum_buffer', 'square_avg',
    'grad_avg', 'acc_delta', 'sum', 'mu', 'ax', 'prev', 'step_size',
)  # fmt: skip


class _Misfit(NamedTuple):
    """A row of the table."""

    name: str
    saved: str  # what the checkpoint has
    wanted: str  # what the run has


def check_fit(runner: Runner, checkpoint: Mapping, path: str | Path) -> None:
    """Compare a checkpoint with a run that is about to go on from it, before anything is loaded.

    Raises:
        ValueError: The file is not the state of a run, or names or shapes of weights, averaged
            weights or optimiser state are others than those of the run; the message has a table.
    """
    _check_parts(checkpoint, path)
    model = unwrap(runner.model)
    found = [*_compare('', checkpoint['state_dict'], model)]
    for average in averages_of(runner):
        if 'ema_state_dict' in checkpoint:  # otherwise it begins with the weights
            found += _compare('average of ', checkpoint['ema_state_dict'], average)
    found += _compare_optimizer(checkpoint, runner.optim_wrapper.optimizer, model)
    if not found:
        return
    rows = [('', 'in the checkpoint', 'in this run'), *found[:_SHOWN]]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    table = '\n'.join(
        f'  {name:{widths[0]}}  {saved:{widths[1]}}  {wanted}' for name, saved, wanted in rows
    )
    more = f'\n  and {len(found) - _SHOWN} more' if len(found) > _SHOWN else ''
    raise ValueError(
        f'{path} is the state of another model; nothing has been loaded. {len(found)} tensors or '
        f'settings differ:\n{table}{more}\nResume with the config that it was saved with, or start '
        f'a new run from its weights: load_from={path} without --resume.'
    )


def _check_parts(checkpoint: Mapping, path: str | Path) -> None:
    parts = checkpoint if isinstance(checkpoint, Mapping) else {}
    meta, optimizer = parts.get('meta'), parts.get('optimizer')
    lacks = [
        what
        for what, there in {
            'weights': isinstance(parts.get('state_dict'), Mapping) and parts['state_dict'],
            'optimiser state': isinstance(optimizer, Mapping)
            and {'state', 'param_groups'} <= set(optimizer),
            'epoch and step': isinstance(meta, Mapping)
            and all(isinstance(meta.get(key), int) for key in ('epoch', 'iter')),
            "mmengine's message_hub": isinstance(parts.get('message_hub'), Mapping),
        }.items()
        if not there
    ]
    if lacks:
        raise ValueError(
            f'A run cannot go on from {path}, which holds no {", no ".join(lacks)}; nothing has '
            'been loaded. Name a checkpoint that was saved in training, or start a new run from '
            f'its weights: load_from={path} without --resume.'
        )


def _compare(kind: str, saved: Mapping[str, Tensor], module: nn.Module) -> Iterator[_Misfit]:
    """Names and shapes in which two sets of weights differ."""
    # mmengine's loader takes this prefix off; an averaged model has it on both sides.
    saved = {name.removeprefix('module.'): value for name, value in saved.items()}
    wanted = {name.removeprefix('module.'): value for name, value in module.state_dict().items()}
    for name in dict.fromkeys((*wanted, *saved)):
        pair = [_shape(part.get(name)) for part in (saved, wanted)]
        if pair[0] != pair[1]:
            yield _Misfit(kind + name, *pair)


def _compare_optimizer(
    checkpoint: Mapping, optimizer: Optimizer, model: nn.Module
) -> Iterator[_Misfit]:
    """Settings and shapes in which an optimiser and its saved state differ."""
    state, note = checkpoint['optimizer'], checkpoint['meta'].get('settings')
    params = dict(model.named_parameters())
    if note is not None:
        saved = list(chain(*note['params']))
        if note['optimizer'] != (kind := type(optimizer).__name__):
            yield _Misfit('optimizer', note['optimizer'], kind)
    else:
        names = {id(param): name for name, param in params.items()}
        now = [[names[id(param)] for param in group['params']] for group in optimizer.param_groups]
        saved = list(chain(*now))
        sizes = [len(group['params']) for group in state['param_groups']]
        if sizes != [len(group) for group in now]:
            yield _Misfit('parameters by group', str(sizes), str([len(group) for group in now]))
            return
    for number, values in state['state'].items():
        if (param := params.get(saved[number])) is None:
            continue  # told above
        for key in _MOMENTS:
            if isinstance(value := values.get(key), Tensor) and value.shape != param.shape:
                yield _Misfit(f'{key} of {saved[number]}', _shape(value), _shape(param))


def _shape(value: Tensor | None) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else 'none'
