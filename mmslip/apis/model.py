"""Models by config, or by their name in the metafiles."""

import fnmatch
from pathlib import Path

import mmengine
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader

import mmslip.engine  # noqa: F401  (what configs import, and the safe loader)
from mmslip.engine.checkpointing.complete_weights import check_complete
from mmslip.models import SLIP
from mmslip.registry import MODELS
from mmslip.shipped import SHIPPED
from mmslip.utils.config import load_config
from mmslip.utils.log import only_warnings
from mmslip.weights import import_weights
from mmslip.weights.stated import require_stated

__all__ = ['for_inference', 'get_model', 'init_model', 'list_models', 'shipped_weights']

_PACKAGE = Path(__file__).parents[1]


def list_models(pattern: str = '*') -> list[str]:
    """Names of the models in mmslip's metafiles.

    Args:
        pattern: Keep those that match, with ``*`` and ``?`` as in a shell.
    """
    index = mmengine.load(SHIPPED / 'model-index.yml')
    files = [mmengine.load(SHIPPED / name) for name in index['Import']]
    names = [model['Name'] for file in files for model in file['Models']]
    return sorted(fnmatch.filter(names, pattern))


def get_model(
    name: str, pretrained: bool | str | Path = False, device: str | torch.device | None = None
) -> SLIP:
    """A model of mmslip's metafiles, in eval mode.

    Args:
        name: One of :func:`list_models`.
        pretrained: True for the weights that come with mmslip, a checkpoint file, or False for
            random weights.
        device: Defaults to the GPU where there is one.

    Raises:
        FileNotFoundError: The name is unknown, or there is no such checkpoint.
        ValueError: The checkpoint does not fit, or ``pretrained`` is True and no weights of this
            model come with mmslip.
    """
    if pretrained is True:
        pretrained = 'pretrained'
    return init_model(name, pretrained or None, device)


def init_model(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
) -> SLIP:
    """Build the model of a config for inference, in eval mode.

    A self-supervised half beside a text tower is left out: it only serves training.

    Args:
        config: Path of a config file (``.py``), a name of :func:`list_models`, a config, or a
            folder of weights with their JSON description, of mmslip or another library.
        checkpoint: File or folder with the weights; ``'pretrained'`` for those that come with
            mmslip, which only ``slip_tiny_emoji`` has; None takes those of the folder, and without
            a folder initialises them at random.
        device: Defaults to the GPU where there is one.

    Returns:
        The model; its ``_config`` is the config, as in mmpretrain.

    Raises:
        FileNotFoundError: There is no such config or checkpoint.
        ValueError: The checkpoint lacks weights of the model, or has them in another shape; it
            says that it was trained with another activation or mean; or no weights come with
            mmslip.
    """
    loaded = None
    if not isinstance(config, Config) and Path(config).is_dir():
        imported = import_weights(config)
        config, loaded = Config(imported.spec.config()), imported.weights
    cfg = _read(config)
    if checkpoint == 'pretrained':
        checkpoint = shipped_weights(Path(cfg.filename or 'A config without a file').stem)
    for_inference(cfg.model)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        model = MODELS.build(cfg.model)
    with only_warnings():  # not the page that mmengine logs on the start of every parameter
        if checkpoint is not None:
            loaded = CheckpointLoader.load_checkpoint(str(checkpoint), 'cpu')
        if loaded is None:
            model.init_weights()
        else:
            weights = check_complete(model, loaded)
            if loaded.get('spec') is not None:
                require_stated(loaded['spec'], model, str(checkpoint))
            model.load_state_dict({name: weights[name] for name in model.state_dict()})
    model._config = cfg
    return model.to(device or get_device()).eval()


def for_inference(model: dict) -> None:
    """Leave out of a model's config what only serves training."""
    if model.get('text_backbone'):
        model['ssl'] = None
    model.pop('lora', None)  # which is merged when weights are loaded


def _read(config: str | Path | Config) -> Config:
    """A copy of a config, given as such, by its path or by its name."""
    cfg = load_config(config)
    if 'model' not in cfg:
        raise ValueError(f'{cfg.filename or "The config"} has no `model`.')
    return cfg


def shipped_weights(name: str) -> Path:
    """The weights of a model that lie in the package.

    Raises:
        ValueError: There are none.
    """
    path = _PACKAGE / 'weights' / 'pretrained' / f'{name}.safetensors'
    if not path.is_file():
        raise ValueError(
            f'No weights of {name} come with mmslip (but of '
            f'{", ".join(sorted(file.stem for file in path.parent.glob("*.safetensors")))}): train '
            'it, or convert published ones with `mmslip convert`, and give the path of the '
            'checkpoint.'
        )
    return path
