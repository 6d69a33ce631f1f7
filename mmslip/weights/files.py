"""Reading and writing of weights: PyTorch files, safetensors, folders; never code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmslip.utils import whole_file
from mmslip.weights.safe import load_checkpoint_file
from mmslip.weights.torchscript import is_torchscript, read_torchscript

__all__ = ['IN_FOLDERS', 'find_weights', 'read_weights', 'state_dict_of', 'write_weights']

# Files of weights in folders, the better first.
IN_FOLDERS = (
    'model.safetensors',
    'open_clip_model.safetensors',
    'model.safetensors.index.json',
    'open_clip_pytorch_model.bin',
    'pytorch_model.bin',
    'pytorch_model.bin.index.json',
    'model.pth',
)

# Where checkpoints keep weights, the better first: of training, then averaged (EMA).
_KEYS = ('state_dict', 'model_state_dict', 'model', 'module', 'net', 'weights', 'teacher')
_KEYS += ('state_dict_ema', 'model_ema', 'ema_state_dict', 'ema')


def find_weights(path: Path) -> Path:
    """``path`` itself, or the file of weights in a folder.

    Raises:
        FileNotFoundError: The folder has none.
    """
    if not path.is_dir():
        return path
    for name in IN_FOLDERS:
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f'{path} holds none of {", ".join(IN_FOLDERS)}.')


def read_weights(path: str | Path, map_location: Any = 'cpu') -> dict[str, Any]:
    """Read a checkpoint, a ``.safetensors`` file, TorchScript or a folder, without running code.

    Args:
        path: A file or a folder; of several files in it, one with an index of its parts as well.
        map_location: Where the tensors go, as in :func:`torch.load`.

    Raises:
        FileNotFoundError: There is no such file.
        RuntimeError: It is damaged, or holds objects that would have to run code.
    """
    path = find_weights(Path(path).expanduser())
    if path.name.endswith('.index.json'):
        return _read_parts(path, map_location)
    if path.suffix == '.safetensors':
        return _read_safetensors(path, map_location)
    if is_torchscript(path):
        return _moved(read_torchscript(path), map_location)
    return load_checkpoint_file(path, map_location)


def state_dict_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, wherever trainers keep them.

    Raises:
        ValueError: It holds none, or several sets of which none has a usual name.
    """
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f'A {type(checkpoint).__name__} is no checkpoint.')
    found = {'': _tensors(checkpoint)}
    found |= {key: _tensors(part) for key, part in checkpoint.items() if isinstance(part, Mapping)}
    found = {key: weights for key, weights in found.items() if weights}
    usual = next((key for key in _KEYS if key in found), None)
    if usual is None and len(found) != 1:
        problem = f'several sets ({", ".join(found)})' if found else 'no weights'
        raise ValueError(
            f'There are {problem} among its keys {", ".join(map(str, checkpoint))}; weights are '
            f'looked for under {", ".join(_KEYS)}: save those you mean as state_dict.'
        )
    return found[next(iter(found)) if usual is None else usual]


def _tensors(values: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {
        name: value
        for name, value in values.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a ``.safetensors`` file; it appears whole or not at all."""
    # Parts of one tensor would be written as views of it, which the format refuses.
    own = {name: value.detach().cpu().clone().contiguous() for name, value in weights.items()}
    with whole_file(path) as part:
        save_file(own, part, metadata={'format': 'pt'})  # without which transformers refuses it


def _read_safetensors(path: Path, map_location: Any) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f'There is no checkpoint {path}: check the path.')
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise RuntimeError(f'{path} cannot be read: it is damaged. ({error})') from error
    return _moved(weights, map_location)


def _moved(weights: dict[str, Tensor], map_location: Any) -> dict[str, Tensor]:
    if map_location in (None, 'cpu'):
        return weights
    return {name: value.to(torch.device(map_location)) for name, value in weights.items()}


def _read_parts(path: Path, map_location: Any) -> dict[str, Tensor]:
    index = json.loads(path.read_text(encoding='utf-8'))['weight_map']
    weights = {}
    for part in sorted(set(index.values())):
        if Path(part).name != part:
            raise RuntimeError(f'{path} names a file outside its folder: {part}')
        weights.update(read_weights(path.with_name(part), map_location))
    missing = sorted(index.keys() - weights.keys())
    if missing:
        raise RuntimeError(f'The files of {path} lack {", ".join(missing[:5])}.')
    return weights
