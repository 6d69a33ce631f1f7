"""Models by config, or by their name in the metafiles."""

import copy
import fnmatch
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import mmengine
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from mmengine.utils import import_modules_from_strings

import mmslip.engine  # noqa: F401  (registers the safe checkpoint loader)
from mmslip.engine.hooks.complete_weights import check_complete
from mmslip.models import SLIP
from mmslip.registry import MODELS

__all__ = ['get_model', 'init_model', 'list_models', 'load_config']

_PACKAGE = Path(__file__).parents[1]


def list_models(pattern: str = '*') -> list[str]:
    """Names of the models in mmslip's metafiles.

    Args:
        pattern: Keep those that match, with ``*`` and ``?`` as in a shell.
    """
    return sorted(fnmatch.filter(_configs(), pattern))


def get_model(
    name: str, pretrained: bool | str | Path = False, device: str | torch.device | None = None
) -> SLIP:
    """A model of mmslip's metafiles, in eval mode.

    Args:
        name: One of :func:`list_models`.
        pretrained: Checkpoint file; False for random weights.
        device: Defaults to the GPU where there is one.

    Raises:
        ValueError: The name is unknown, the checkpoint does not fit, or ``pretrained`` is True:
            mmslip hosts no weights.
    """
    if pretrained is True:
        raise ValueError(
            f'No weights of {name} are hosted: train it, or convert published ones with '
            'tools/model_converters, and give the path of the checkpoint as `pretrained`.'
        )
    return init_model(_config_of(name), pretrained or None, device)


def init_model(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
) -> SLIP:
    """Build the model of a config for inference, in eval mode.

    A self-supervised half beside a text tower is left out: it only serves training.

    Args:
        config: Path of a config file (``.py``), a name of :func:`list_models`, or a config.
        checkpoint: File with the weights; None initialises them at random.
        device: Defaults to the GPU where there is one.

    Returns:
        The model; its ``_config`` is the config, as in mmpretrain.

    Raises:
        FileNotFoundError: There is no such config or checkpoint.
        ValueError: The checkpoint lacks weights of the model, or has them in another shape.
    """
    cfg = load_config(config)
    if cfg.model.get('text_backbone'):
        cfg.model.ssl = None
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        model = MODELS.build(cfg.model)
    with _without_reports():
        if checkpoint is None:
            model.init_weights()
        else:
            loaded = CheckpointLoader.load_checkpoint(str(checkpoint), 'cpu')
            weights = check_complete(model, loaded)
            model.load_state_dict({name: weights[name] for name in model.state_dict()})
    model._config = cfg
    return model.to(device or get_device()).eval()


def load_config(config: str | Path | Config) -> Config:
    """A copy of a config, with what it imports imported.

    Args:
        config: Path of a config file (``.py``), a name of :func:`list_models`, or a config.
    """
    if isinstance(config, Config):
        cfg = copy.deepcopy(config)
    else:
        path = Path(config) if Path(config).suffix == '.py' else _config_of(str(config))
        if not path.is_file():
            raise FileNotFoundError(f'There is no config {path}.')
        cfg = Config.fromfile(path)
    if 'model' not in cfg:
        raise ValueError(f'{cfg.filename or "The config"} has no `model`.')
    if cfg.get('custom_imports'):
        import_modules_from_strings(**cfg.custom_imports)
    return cfg


@contextmanager
def _without_reports() -> Iterator[None]:
    """Keep back the page that mmengine logs on the initialisation of every parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    try:
        yield
    finally:
        logger.setLevel(level)


def _config_of(name: str) -> Path:
    if name not in _configs():
        raise ValueError(
            f'There is no model {name!r}: give one of `mmslip.list_models()`, such as '
            f'{", ".join(list_models()[:3])}, or the path of a config file (.py).'
        )
    return _configs()[name]


@cache
def _configs() -> dict[str, Path]:
    """Config of every model of the metafiles."""
    # In an installed package they lie in `.mim`, otherwise beside the package.
    root = next(
        folder
        for folder in (_PACKAGE / '.mim', _PACKAGE.parent)
        if (folder / 'model-index.yml').is_file()
    )
    index = mmengine.load(root / 'model-index.yml')
    metafiles = [mmengine.load(root / name) for name in index['Import']]
    return {model['Name']: root / model['Config'] for file in metafiles for model in file['Models']}
