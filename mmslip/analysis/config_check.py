"""Check of a config before anything is built: names, types and values of its settings."""

import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

import torch
from mmengine import registry as root
from mmengine.config import Config
from mmengine.fileio.backends import backends
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, TestLoop, ValLoop
from mmpretrain.registry import BATCH_AUGMENTS
from mmpretrain.registry import TOKENIZER as TOKENIZERS
from torch.utils.data import DataLoader

from mmslip.analysis.ranges import RANGES, fault_of
from mmslip.analysis.signatures import hinted, is_a, signature_of, type_of_default
from mmslip.datasets import BaseTokenizer, tokenizer_faults
from mmslip.models import SLIPDataPreprocessor
from mmslip.registry import MODELS, TRANSFORMS
from mmslip.utils.parts import is_kind, parts_of

__all__ = ['RUNNER_SETTINGS', 'check_config', 'nearest']

# The registry in which a key names a class. Under any other key it is that of the part around it.
_REGISTRIES = dict(
    model=root.MODELS,
    model_wrapper_cfg=root.MODEL_WRAPPERS,
    data_preprocessor=root.MODELS,
    augments=BATCH_AUGMENTS,
    init_cfg=root.WEIGHT_INITIALIZERS,
    dataset=root.DATASETS,
    datasets=root.DATASETS,
    sampler=root.DATA_SAMPLERS,
    batch_sampler=root.DATA_SAMPLERS,
    collate_fn=root.FUNCTIONS,
    worker_init_fn=root.FUNCTIONS,
    pipeline=root.TRANSFORMS,
    transforms=root.TRANSFORMS,
    tokenizer=TOKENIZERS,
    optim_wrapper=root.OPTIM_WRAPPERS,
    optimizer=root.OPTIMIZERS,
    param_scheduler=root.PARAM_SCHEDULERS,
    val_evaluator=root.METRICS,
    test_evaluator=root.METRICS,
    metrics=root.METRICS,
    default_hooks=root.HOOKS,
    custom_hooks=root.HOOKS,
    visualizer=root.VISUALIZERS,
    vis_backends=root.VISBACKENDS,
    log_processor=root.LOG_PROCESSORS,
)


class _Rules(NamedTuple):
    """Arguments that the builder of a registry takes out and adds.

    Attributes:
        taken: What it takes out of a config, with the types.
        given: Arguments that it adds.
    """

    taken: Mapping[str, Any] = types.MappingProxyType({})
    given: Collection[str] = ()


_RULES = {
    root.OPTIMIZERS: _Rules(given=['params']),
    root.OPTIM_WRAPPERS: _Rules(
        dict(optimizer=dict, constructor=str, paramwise_cfg=dict | None), ['optimizer']
    ),
    root.PARAM_SCHEDULERS: _Rules(
        dict(convert_to_iter_based=bool, epoch_length=int | None), ['optimizer', 'param_name']
    ),
    root.DATA_SAMPLERS: _Rules(given=['dataset', 'sampler', 'batch_size']),
    root.LOOPS: _Rules(dict(by_epoch=bool), ['runner', 'dataloader', 'evaluator']),
    root.HOOKS: _Rules(dict(priority=int | str)),
    root.METRICS: _Rules(),
    root.DATASETS: _Rules(),
    root.TRANSFORMS: _Rules(),
}
_LOADER = _Rules(
    dict(
        dataset=dict,
        sampler=dict | None,
        batch_sampler=dict | None,
        collate_fn=dict,
        worker_init_fn=dict,
        num_batch_per_epoch=int | None,
        disable_subprocess_warning=bool,
    )
)
# Keys that any part may have beside its arguments.
_EVERYWHERE = {'type', '_scope_', '_delete_', 'requires_grad', 'override'}

# Top-level settings: arguments of the Runner, and what is read from the whole config.
RUNNER_SETTINGS = {
    *(inspect.signature(Runner).parameters.keys() - {'cfg'}),
    *('activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval'),
    *('find_unused_parameters', 'image_size', 'model_wrapper_cfg', 'sync_bn'),
}
# Settings of parts that have no class, with their types.
_PLAIN = dict(
    auto_scale_lr=dict(enable=bool, base_batch_size=int),
    clip_grad=dict(
        type=typing.Literal['norm', 'value'],
        max_norm=float,
        norm_type=float,
        error_if_nonfinite=bool,
        foreach=bool,
        clip_value=float,
    ),
    custom_imports=dict(imports=list[str] | str, allow_failed_imports=bool),
    dist_cfg=dict(backend=str, init_backend=str, timeout=int, init_method=str, port=int | str),
    env_cfg=dict(cudnn_benchmark=bool, mp_cfg=dict, dist_cfg=dict, resource_limit=int),
    mp_cfg=dict(
        mp_start_method=typing.Literal['fork', 'spawn', 'forkserver'], opencv_num_threads=int
    ),
    randomness=dict(seed=int | None, diff_rank_seed=bool, deterministic=bool),
)
# Keys of lists of such dicts.
_LISTED = ('pipeline', 'transforms', 'custom_hooks', 'param_scheduler', 'metrics')
# Keys whose dicts name a class; others have a default, or hold parts by names of their own.
_TYPED = {
    *('model', 'backbone', 'neck', 'head', 'ssl', 'text_backbone', 'text_neck', 'dataset'),
    *('sampler', 'collate_fn', 'pipeline', 'transforms', 'optimizer', 'param_scheduler'),
    *('custom_hooks', 'metrics', 'vis_backends'),
}
# Names of the default hooks: of mmengine, and of configs/_base_/default_runtime.py.
_HOOK_NAMES = (
    *('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint'),
    *('step_checkpoint', 'auto_resume', 'preemption', 'instability', 'speed', 'visualization'),
)
# Settings of one part, of which the first is a multiple of the second.
_MULTIPLES = (('embed_dims', 'num_heads'), ('width', 'num_heads'), ('img_size', 'patch_size'))


def check_config(cfg: Config | dict, needs: Sequence[str] = ('model',)) -> list[str]:
    """Find settings that nothing reads, or that cannot be meant.

    Args:
        cfg: The config, with the default scope and the custom imports that it names in force.
        needs: Top-level settings without which the job cannot run.

    Returns:
        A line for each: full path of the key, what is wrong, and the remedy.
    """
    settings = cfg.to_dict() if isinstance(cfg, Config) else cfg
    check = _Check(settings)
    check.top_level(settings, needs)
    check.schedule(settings)
    check.agreement(settings)
    check.hooks(settings)
    return list(dict.fromkeys(check.problems))


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that is most like another one, if any is like it."""
    return next(iter(get_close_matches(name, known, 1, cutoff)), None)


class _Check:
    """A walk over the settings of one config.

    Args:
        settings: The config.
    """

    def __init__(self, settings: dict) -> None:
        self.problems: list[str] = []
        self._scoped = 'default_scope' in settings
        model = settings.get('model')
        self._ours = isinstance(model, dict) and str(model.get('type')).startswith('mmslip.')

    def top_level(self, settings: dict, needs: Sequence[str]) -> None:
        """Check the arguments of the Runner."""
        self.problems += [
            f'{name}: missing, and nothing can run without it.'
            for name in needs
            if settings.get(name) is None
        ]
        arguments = signature_of(Runner).arguments
        for name, value in settings.items():
            # Other names are the config's own variables.
            if name not in RUNNER_SETTINGS:
                like = None if name.startswith('_') else nearest(name, RUNNER_SETTINGS, 0.8)
                if like:
                    self.problems.append(f'{name}: nothing reads this setting; is {like} meant?')
            elif name not in arguments or self._fits(name, value, arguments[name]):
                self._setting(name, name, value, None)

    def schedule(self, settings: dict) -> None:
        """Check that every scheduler begins before the training ends."""
        loop, schedulers = settings.get('train_cfg'), settings.get('param_scheduler')
        if not isinstance(loop, dict) or not isinstance(schedulers, list):
            return
        for number, scheduler in enumerate(schedulers):
            if isinstance(scheduler, dict):
                limit = 'max_epochs' if scheduler.get('by_epoch', True) else 'max_iters'
                begin, end = scheduler.get('begin', 0), scheduler.get('end', loop.get(limit))
                if isinstance(begin, int) and isinstance(end, int) and begin >= end:
                    self.problems.append(
                        f'param_scheduler[{number}].begin = {begin}: the warm-up lasts as long as '
                        f'the training (train_cfg.{limit} = {loop.get(limit)}) or this part of it '
                        f'(end = {end}); train longer, or shorten the warm-up (end of '
                        f'param_scheduler[{max(number - 1, 0)}], begin of this one).'
                    )

    def agreement(self, settings: dict) -> None:
        """Check that both halves end at one width, and that views and captions fit the towers."""
        parts = dict(parts_of(settings.get('model'), 'model'))
        widths = {
            f'model.{neck}.out_channels': parts.get(f'model.{neck}', {}).get('out_channels')
            for neck in ('neck', 'text_neck')
        }
        if self._ours and None not in widths.values() and len(set(map(repr, widths.values()))) > 1:
            both = ' and '.join(f'{path} = {width!r}' for path, width in widths.items())
            self.problems.append(f'{both}: must be equal, images and texts are compared.')
        patch = parts.get('model.backbone', {}).get('patch_size')
        read = {name: settings[name] for name in sorted(RUNNER_SETTINGS & settings.keys())}
        for path, part in parts_of(read):
            side = part.get('ssl_size') if is_kind(part, 'SLIPViews') else None
            if isinstance(patch, int) and patch > 0 and isinstance(side, int) and side % patch:
                self.problems.append(
                    f'{path}.ssl_size = {side}: must be a multiple of model.backbone.patch_size = '
                    f'{patch}, or the rest of each view is not seen.'
                )
        self._tokenizers(dict(parts_of(read)), parts.get('model.text_backbone'))

    def _tokenizers(self, parts: Mapping[str, dict], tower: dict | None) -> None:
        """Check that there is one vocabulary, and that the text tower reads it rightly."""
        stated = {path: part for path, part in parts.items() if path.endswith('.tokenizer')}
        for path, part in parts.items():
            kinds = ('TokenizeCaption', 'TokenizeCaptions')
            if any(is_kind(part, kind) for kind in kinds) and not part.get('tokenizer'):
                stated[f'{path}.tokenizer'] = dict(type='mmslip.CLIPTokenizer')
        with suppress(Exception), torch.device('meta'):  # what it is shows when it is built
            tower = tower and root.MODELS.build({**tower, 'init_cfg': None})
        found: dict[str, BaseTokenizer] = {}
        for path, part in stated.items():
            with suppress(Exception):
                found[path] = TOKENIZERS.build(part)
        for path, tokenizer in found.items():
            self.problems += tokenizer_faults(tokenizer, tower, path)
            first = next(iter(found))
            if _vocabulary(tokenizer) != _vocabulary(found[first]):
                self.problems.append(
                    f'{path}: is another vocabulary than {first}; captions and the names of '
                    'classes need the same.'
                )

    def hooks(self, settings: dict) -> None:
        """Check that no hook is there twice, and that the schedules have theirs."""
        default, custom = settings.get('default_hooks'), settings.get('custom_hooks')
        hooks = {}
        if isinstance(default, dict):
            hooks.update((f'default_hooks.{name}', hook) for name, hook in default.items())
        if isinstance(custom, list):
            hooks.update((f'custom_hooks[{n}]', hook) for n, hook in enumerate(custom))
        for number, (path, hook) in enumerate(hooks.items()):
            twice = [other for other in list(hooks)[:number] if hook and hooks[other] == hook]
            if twice:
                self.problems.append(f'{path}: the same as {twice[0]}; leave one of them out.')
        path = 'default_hooks.param_scheduler'
        if settings.get('param_scheduler') and hooks.get(path, {}) is None:
            self.problems.append(
                f'{path} = None: the learning rate would not follow param_scheduler; leave this '
                'setting out.'
            )

    def _setting(self, path: str, key: str, value: Any, registry: Registry | None) -> None:
        """Check one value, and what is inside it."""
        registry = _REGISTRIES.get(key, registry)
        if key in RANGES and not is_a(value, float | list[float] | None):
            self.problems.append(f'{path} = {_short(value)}: must be a number.')
        elif isinstance(value, dict):
            self._settings(path, key, value, registry)
        elif isinstance(value, list | tuple):
            for number, item in enumerate(value):
                self._setting(f'{path}[{number}]', key, item, registry)
        elif isinstance(value, float | int) and not isinstance(value, bool):
            self._number(path, key, value)
        elif key in _LISTED and isinstance(value, str):
            self.problems.append(f'{path} = {value!r}: must be a dict with a type.')

    def _settings(self, path: str, key: str, cfg: dict, registry: Registry | None) -> None:
        """Check a dict: the config of a class, or plain settings."""
        if path in ('train_cfg', 'val_cfg', 'test_cfg'):
            self._loop(path, cfg)
        elif path.endswith('_dataloader'):
            self._arguments(path, cfg, DataLoader, None, _LOADER)
            self._loader(path, cfg)
        elif path == 'default_hooks':
            self._default_hooks(cfg)
        elif key == 'backend_args':
            self._backend(path, cfg)
        elif key in _PLAIN:
            self._unknown(path, cfg, _PLAIN[key], key)
            self._values(path, cfg, {name: hinted(hint) for name, hint in _PLAIN[key].items()})
        elif 'type' in cfg and registry is not None:
            self._part(path, cfg, registry)
        else:
            # Of `model.lora`, towers are the keys of plain settings.
            if key in _TYPED and not path.startswith('model.lora.'):
                self.problems.append(f'{path}.type: missing; it names the class.')
            self._values(path, cfg, {}, registry)

    def _loop(self, path: str, cfg: dict) -> None:
        loops = dict(val_cfg=ValLoop, test_cfg=TestLoop)
        by_epoch = EpochBasedTrainLoop if cfg.get('by_epoch') else IterBasedTrainLoop
        if 'type' in cfg:
            self._part(path, cfg, root.LOOPS)
        elif path == 'train_cfg' and 'by_epoch' not in cfg:
            self.problems.append(f'{path}: lacks by_epoch (True counts epochs, False steps).')
        else:
            self._arguments(path, cfg, loops.get(path, by_epoch), root.LOOPS)

    def _loader(self, path: str, cfg: dict) -> None:
        if 'sampler' not in cfg:
            self.problems.append(f'{path}.sampler: missing.')
        if self._ours and 'collate_fn' not in cfg:
            self.problems.append(
                f"{path}.collate_fn: missing; dict(type='mmslip.collate') stacks batches."
            )
        if cfg.get('shuffle') is not None:
            self.problems.append(
                f'{path}.shuffle: the order is that of the sampler; leave this setting out, and '
                f'say {path}.sampler.shuffle = {cfg["shuffle"]!r}.'
            )
        for name in ('prefetch_factor', 'persistent_workers', 'timeout'):
            if cfg.get(name) and not cfg.get('num_workers'):
                self.problems.append(
                    f'{path}.{name} = {cfg[name]!r}: is of workers, and {path}.num_workers is 0; '
                    'leave it out.'
                )

    def _backend(self, path: str, cfg: dict) -> None:
        name = cfg.get('backend', 'local')
        if name in backends:
            self._arguments(path, cfg, backends[name], None, _Rules(dict(backend=str)))
        else:
            self.problems.append(f'{path}.backend = {name!r}: is none of {", ".join(backends)}.')

    def _default_hooks(self, cfg: dict) -> None:
        for name, hook in cfg.items():
            path = f'default_hooks.{name}'
            like = nearest(name, {*cfg, *_HOOK_NAMES} - {name}, 0.85)
            meant = f'; is {like} meant?' if like else '.'
            if isinstance(hook, dict) and 'type' not in hook:
                self.problems.append(f'{path}: lacks the type of the hook{meant}')
            elif name not in _HOOK_NAMES and (hook is None or like in _HOOK_NAMES):
                self.problems.append(f'{path}: there is no default hook of this name{meant}')
            elif hook is not None and not isinstance(hook, dict | Hook):
                self.problems.append(f'{path} = {_short(hook)}: must be a dict with a type.')
            self._setting(path, '', hook, root.HOOKS)

    def _part(self, path: str, cfg: dict, registry: Registry) -> None:
        """Check the config of a class."""
        found = self._find(f'{path}.type', cfg['type'], registry)
        if found is None:
            self._values(path, cfg, {}, registry)
        else:
            self._arguments(path, cfg, found, registry)
            self._meaning(path, cfg, found, registry)
        if registry is root.OPTIM_WRAPPERS and isinstance(cfg.get('constructor'), str):
            self._find(f'{path}.constructor', cfg['constructor'], root.OPTIM_WRAPPER_CONSTRUCTORS)

    def _meaning(self, path: str, cfg: dict, cls: Callable, registry: Registry) -> None:
        """Check values whose type and range are right, and which a class cannot mean."""
        if 'arch' in cfg:
            self._arch(path, cfg, cls)
        if registry is root.OPTIMIZERS and cfg.get('maximize'):
            self.problems.append(
                f'{path}.maximize = {cfg["maximize"]!r}: would raise the loss; leave it out.'
            )
        if registry is root.DATASETS and cfg.get('indices') in (0, [], ()):
            self.problems.append(
                f'{path}.indices = {cfg["indices"]!r}: leaves no sample; N takes the first N, -N '
                'the last, and a list those of its numbers.'
            )
        if inspect.isclass(cls) and issubclass(cls, SLIPDataPreprocessor):
            for name in ('mean', 'std', 'target_mean', 'target_std'):
                self._channels(f'{path}.{name}', cfg.get(name), name.endswith('std'))
        if inspect.isclass(cls) and issubclass(cls, CheckpointHook):
            self._checkpoint(path, cfg)

    def _arch(self, path: str, cfg: dict, cls: Callable) -> None:
        """Check a description of an architecture by those that a backbone of mmpretrain knows."""
        known = getattr(cls, 'arch_zoo', None) or getattr(cls, 'arch_settings', None) or {}
        if not (isinstance(known, dict) and all(isinstance(one, dict) for one in known.values())):
            return  # of tuples, by depth
        arch = cfg['arch']
        if known and isinstance(arch, dict):
            keys = dict.fromkeys(key for described in known.values() for key in described)
            self._unknown(f'{path}.arch', arch, keys, f'the arch of {cls.__name__}')
        arch = arch if isinstance(arch, dict) else known.get(arch, {})
        layers, frozen = arch.get('num_layers', arch.get('depths')), cfg.get('frozen_stages')
        layers = len(layers) if isinstance(layers, list | tuple) else layers
        if isinstance(layers, int) and isinstance(frozen, int) and frozen > layers:
            self.problems.append(
                f'{path}.frozen_stages = {frozen}: must lie between -1 and {layers}, the number of '
                'its stages.'
            )

    def _channels(self, path: str, values: Any, positive: bool) -> None:
        """Check a number for each of the three channels."""
        if values is None or not is_a(values, list[float]):
            return
        if len(values) != 3 or (positive and min(values) <= 0):
            kind = 'three positive numbers' if positive else 'three numbers'
            self.problems.append(f'{path} = {_short(values)}: must be {kind} (red, green, blue).')

    def _checkpoint(self, path: str, cfg: dict) -> None:
        """Check that what a hook saves is found, and can be gone on from, by ``--resume``."""
        name = cfg.get('filename_tmpl')
        if isinstance(name, str) and not re.fullmatch(r'(?!best_|\.)[^/]*{[^/}]*}[^/]*\.pth', name):
            self.problems.append(
                f"{path}.filename_tmpl = {name!r}: must be like 'epoch_{{}}.pth' and not begin "
                'with best_ or a dot, or --resume would not find these checkpoints.'
            )
        for name in ('save_optimizer', 'save_param_scheduler'):
            if cfg.get(name, True) is False:
                self.problems.append(
                    f'{path}.{name} = False: --resume could not go on from such checkpoints; leave '
                    'it out (mmslip convert --pth writes the weights alone).'
                )

    def _find(self, path: str, name: Any, registry: Registry) -> Callable | None:
        """The class of a name."""
        if callable(name):
            return name
        found = None
        if isinstance(name, str):
            scope = DefaultScope.get_current_instance()
            local = registry.children.get(scope.scope_name, registry) if scope else registry
            with suppress(Exception):  # whatever importing a scope that is none raises
                found = local.get(name)
        if found is None:
            names = _names(registry)
            last = str(name).rpartition('.')[2]
            same = [known for known in names if known.rpartition('.')[2] == last]
            like = same[0] if same else nearest(str(name), names)
            meant = f'; is {like} meant?' if like else f'; known: {", ".join(sorted(names)[:20])}.'
            self.problems.append(f'{path} = {name!r}: no such {registry.name}{meant}')
            if not self._scoped and like and like.startswith('mmpretrain.'):
                self.problems.append(
                    "default_scope: missing; with default_scope = 'mmpretrain' names without a "
                    "prefix are mmpretrain's as well."
                )
        elif self._ours and '.' not in name and _ambiguous(name, registry):
            self.problems.append(
                f'{path} = {name!r}: mmslip has a class of this name, and without a prefix it is '
                f"mmpretrain's; write mmslip.{name} (or mmpretrain.{name}, if that is meant)."
            )
        return found

    def _arguments(
        self,
        path: str,
        cfg: dict,
        target: Callable,
        registry: Registry | None,
        rules: _Rules | None = None,
    ) -> None:
        """Check the arguments of a class.

        The classes of registries without rules get arguments from the part around them, such as a
        norm its channels, so that a missing one shows only when they are built.
        """
        rules = rules or _RULES.get(registry)
        if isinstance(target, partial):  # a transform of torchvision inside mmpretrain's wrapper
            target = next(iter([*target.args, *target.keywords.values()]), target.func)
        arguments, required, closed = signature_of(target)
        known = arguments | {name: hinted(hint) for name, hint in (rules or _Rules()).taken.items()}
        self._unknown(path, cfg.keys() - _EVERYWHERE, known, target.__name__, closed)
        if rules:
            self.problems += [
                f'{path}.{name}: missing; {target.__name__} needs it.'
                for name in sorted(required - cfg.keys() - {*rules.given})
            ]
        self._values(path, cfg, known, registry)

    def _values(
        self,
        path: str,
        cfg: dict,
        known: Mapping[str, inspect.Parameter],
        registry: Registry | None = None,
    ) -> None:
        """Check the values of a dict, by the arguments that take them if these are known."""
        for whole, part in _MULTIPLES:
            size, unit = cfg.get(whole), cfg.get(part)
            if isinstance(size, int) and isinstance(unit, int) and unit > 0 and size % unit:
                self.problems.append(
                    f'{path}.{whole} = {size}: must be a multiple of {path}.{part} = {unit}.'
                )
        for name, value in cfg.items():
            argument = known.get(name)
            if name == 'type' or (argument and not self._fits(f'{path}.{name}', value, argument)):
                continue
            if argument is None or not _same(value, argument.default):
                self._setting(f'{path}.{name}', name, value, registry)

    def _unknown(
        self,
        path: str,
        given: Iterable[str],
        known: Collection[str],
        owner: str,
        closed: bool = True,
    ) -> None:
        """Report arguments that a class does not have; one that takes any, only misspelt ones."""
        for name in given:
            if name in known:
                continue
            like = nearest(name, known, 0.6 if closed else 0.8)
            if like:
                self.problems.append(f'{path}.{name}: {owner} has no {name}; is {like} meant?')
            elif closed:
                names = ', '.join(known) or 'no arguments'
                self.problems.append(f'{path}.{name}: {owner} has no {name}; it takes {names}.')

    def _fits(self, path: str, value: Any, argument: inspect.Parameter) -> bool:
        """Whether a value has the type that an argument takes."""
        hint = argument.annotation
        if hint is argument.empty and argument.default is not argument.empty:
            hint = type_of_default(argument.default)
        if _same(value, argument.default) or is_a(value, hint):
            return True
        wanted = inspect.formatannotation(hint)
        if typing.get_origin(hint) is typing.Literal:
            wanted = f'one of {", ".join(map(str, typing.get_args(hint)))}'
        if isinstance(value, list | tuple) and is_a([], hint):
            number = next((n for n, item in enumerate(value) if not is_a([item], hint)), 0)
            path, value = f'{path}[{number}]', value[number]
            wanted = f'an element of {wanted}'
        self.problems.append(f'{path} = {_short(value)}: must be {wanted}.')
        return False

    def _number(self, path: str, key: str, value: float) -> None:
        fault = fault_of(key, value)
        if fault:
            self.problems.append(f'{path} = {value:g}: {fault}.')


def _vocabulary(tokenizer: BaseTokenizer) -> tuple:
    files = (getattr(tokenizer, name, None) for name in ('path', 'merges_file'))
    return type(tokenizer), tokenizer.vocab_size, *files


def _names(registry: Registry) -> list[str]:
    """Names of a registry as a config writes them, with the prefix of another scope."""
    names = []
    default = DefaultScope.get_current_instance()
    for part in (registry, *registry.children.values()):
        part.import_from_location()
        bare = part is registry or (default and part.scope == default.scope_name)
        names += [name if bare else f'{part.scope}.{name}' for name in part.module_dict]
    return names


def _ambiguous(name: str, registry: Registry) -> bool:
    """Whether mmslip and mmpretrain both have a class of this name."""
    ours = {root.MODELS: MODELS, root.TRANSFORMS: TRANSFORMS}.get(registry)
    return ours is not None and name in ours.module_dict


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and value == default


def _short(value: Any, length: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= length else text[:length] + '...'
