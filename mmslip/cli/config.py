"""Configs of the command lines: options, reading, and the check before anything is built."""

import argparse
import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings

from mmslip.analysis.config_check import RUNNER_SETTINGS, check_config, nearest
from mmslip.shipped import find_config
from mmslip.utils.config import apply_options

__all__ = ['add_config_arguments', 'apply_checked', 'read_config', 'refuse_bad_settings']

# Default hooks of the Runner, which leaves them out where they are None; at others it fails.
_LEFT_OUT_BY_MMENGINE = (
    *('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint'),
)


class _Options(DictAction):
    """``KEY=VALUE ...`` of a command line; refuses what mmengine would read as something else."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        for text in values:
            key, equals, value = text.partition('=')
            if not key or not equals:
                parser.error(f'{option}: {text!r} is no KEY=VALUE (without spaces around the =).')
            if value.endswith(',') or re.search(r',[A-Za-z_][\w.]*=', value):
                parser.error(f'{option}: {text!r}: put spaces, not commas, between settings.')
        super().__call__(parser, namespace, values, option)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """The config file, and what is said of it on the command line."""
    parser.add_argument(
        'config', help='config file, or the name of one that comes with mmslip: slip_tiny_emoji'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Options,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. optim_wrapper.optimizer.lr=1e-3',
    )


def read_config(config: str | Path) -> Config:
    """Read a config, given by its file or name, as :func:`mmslip.shipped.find_config` takes it.

    Raises:
        FileNotFoundError: There is no such config.
        ValueError: It is no config, or several have the name.
    """
    path = find_config(config)
    try:
        return Config.fromfile(path, import_custom_modules=False)  # see refuse_bad_settings
    except Exception as error:  # whatever the code of a config raises
        raise ValueError(f'{path} cannot be read: {type(error).__name__}: {error}') from error


def apply_checked(
    cfg: Config, options: dict[str, Any] | None = None, needs: Sequence[str] = ('model',)
) -> None:
    """Write ``--cfg-options`` and the image size into a config whose settings are checked.

    Default hooks that are None are left out.

    Args:
        cfg: The config, which is changed.
        options: Settings by dotted key.
        needs: Top-level settings without which the job cannot run.

    Raises:
        ValueError: An option names a setting that does not exist, or two image sizes disagree.
        SystemExit: With a line for each setting that :func:`check_config` finds.
    """
    for key in options or {}:
        name = key.partition('.')[0]
        if name not in cfg and name not in RUNNER_SETTINGS:
            like = nearest(name, RUNNER_SETTINGS | set(cfg))
            meant = f'; is {like} meant?' if like else '.'
            raise ValueError(f'--cfg-options {key}: the config has no {name}{meant}')
    merged = copy.deepcopy(cfg)
    merged.merge_from_dict(options or {})
    refuse_bad_settings(merged, needs)
    apply_options(cfg, options)
    hooks = cfg.get('default_hooks') or {}
    for name in [name for name, hook in hooks.items() if hook is None]:
        if name not in _LEFT_OUT_BY_MMENGINE:
            del hooks[name]


def refuse_bad_settings(cfg: Config, needs: Sequence[str] = ('model',)) -> None:
    """Put the scope and the imports of a config in force, and stop where settings cannot be meant.

    Args:
        cfg: The config.
        needs: Top-level settings without which the job cannot run.

    Raises:
        ValueError: The scope or the imports cannot be put in force.
        SystemExit: With a line for each setting that :func:`check_config` finds.
    """
    scope, imports = cfg.get('default_scope', 'mmengine'), cfg.get('custom_imports')
    if not isinstance(scope, str):
        raise ValueError(f"default_scope = {scope!r}: must be a name, such as 'mmpretrain'.")
    init_default_scope(scope)
    if imports and not isinstance(imports, dict):
        raise ValueError(f"custom_imports = {imports!r}: must be dict(imports=['MODULE', ...]).")
    if imports:
        try:
            import_modules_from_strings(**imports)
        except (ImportError, TypeError) as error:
            raise ValueError(f'custom_imports: {error}') from error
    problems = check_config(cfg, needs)
    if problems:
        raise SystemExit('The config has settings that cannot be meant:\n' + '\n'.join(problems))
