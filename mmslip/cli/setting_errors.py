"""Which setting of a config an error comes from."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from mmengine.config import Config
from mmengine.registry import build_from_cfg
from torch import nn
from torch.utils.data.dataloader import _BaseDataLoaderIter

from mmslip.analysis.config_check import RUNNER_SETTINGS
from mmslip.cli.errors import SettingError, one_line
from mmslip.utils.parts import is_kind, parts_of

__all__ = ['name_settings']

# Errors that are raised wherever the run happens to be: by a signal when a data worker dies, by an
# exchange between processes when another one does.
_DEAD_WORKER = 'DataLoader worker (pid'
_ELSEWHERE = re.compile(rf'{re.escape(_DEAD_WORKER)}|\bgloo\b|\bNCCL\b')
_LESS = 'lower num_workers, prefetch_factor or batch_size of the data loaders'
_REMEDIES = {
    r'worker .* (is killed by signal: Killed|exited unexpectedly)': 'The system kills processes '
    f'when memory runs out: {_LESS}, and go on with --resume.',
    r'</torch_.*>: No space left|workers are out of shared memory': 'Workers hand over their '
    'batches in /dev/shm: enlarge it, in a container by --shm-size or --ipc=host of docker run, or '
    f'{_LESS}.',
}


@contextmanager
def name_settings(cfg: Config) -> Iterator[None]:
    """Put the path of the setting that an error comes from in front of its message.

    Found by the frames of the traceback: those in which mmengine builds a part hold its config, and
    the others the object that was at work.

    Raises:
        SettingError: There was an error, and its setting is known, or no setting is at fault.
    """
    try:
        yield
    except Exception as error:
        if text := _told_elsewhere(error):
            raise SettingError(text) from error
        path = _path_of(error, cfg.to_dict())
        said = re.match(r'(\w+)[.:[]', str(error))
        if path is None or (said and said[1] in RUNNER_SETTINGS):
            raise
        raise SettingError(f'{path}: {one_line(error)}') from error


def _told_elsewhere(error: Exception) -> str:
    """What there is to say of an error that no part of the config has made; nothing of others."""
    cause = error.__cause__  # which alone says of what a worker has died that was waited for
    text = one_line(cause if _DEAD_WORKER in str(cause) else error)
    remedies = [remedy for sign, remedy in _REMEDIES.items() if re.search(sign, text)]
    if remedies:
        return '. '.join([text.rstrip('.'), *remedies])
    return text if _ELSEWHERE.search(text) else ''


def _path_of(error: Exception, cfg: dict[str, Any]) -> str | None:
    """Path of the innermost part of a config that was being built or was at work."""
    parts = [part for name in RUNNER_SETTINGS & cfg.keys() for part in parts_of(cfg[name], name)]
    found: list[str] = []
    for frame in reversed(list(_frames(error.__traceback__))):
        paths = _paths_of(frame.f_locals, frame.f_code is build_from_cfg.__code__, parts, error)
        # Several parts of one class: the frames around tell which of them it was.
        both = [path for path in found if path in paths]
        if found and paths and not both:
            break
        found = both or found or paths
        if len(found) == 1:
            break
    return ' or '.join(found[:3]) or None


def _paths_of(
    names: dict[str, Any], builds: bool, parts: list[tuple[str, dict]], error: Exception
) -> list[str]:
    """Paths of the parts that a frame of the traceback may be about.

    Args:
        names: Its local variables.
        builds: Whether it is that of ``build_from_cfg``.
        parts: All parts of the config, with their paths.
        error: The error.
    """
    if builds:
        built = names['cfg']
        same = {path: part for path, part in parts if part['type'] == built.get('type')}
        # The builder may have added to the config: take the parts that have most in common.
        common = {path: _common(part, built) for path, part in same.items()}
        return [path for path, number in common.items() if number == max(common.values())]
    owner = names.get('self')
    if isinstance(owner, _BaseDataLoaderIter):  # an error of its workers has no frame of theirs
        owner = owner._dataset
    paths = [path for path, part in parts if is_kind(part, type(owner).__name__)]
    if isinstance(owner, nn.Module) and len(paths) > 1:
        return [path for path in paths if path in _module_names(owner, error)] or paths
    return paths


def _frames(trace: TracebackType | None) -> Iterator[Any]:
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _common(part: dict, built: dict) -> int:
    return sum(key in built and built[key] == value for key, value in part.items())


def _module_names(module: nn.Module, error: Exception) -> set[str]:
    """Paths of a module in the models that the traceback passes through."""
    owners = (frame.f_locals.get('self') for frame in _frames(error.__traceback__))
    return {
        f'model.{name}'
        for owner in owners
        if isinstance(owner, nn.Module)
        for name, part in owner.named_modules()
        if part is module
    }
