"""From any family to any other, by way of mmslip's own names."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from mmslip.models.adapters.facts import Facts, resize_positions
from mmslip.models.adapters.family import Family
from mmslip.models.adapters.files import read_weights, state_dict_of, write_weights
from mmslip.models.adapters.hugging_face import HuggingFaceCLIP
from mmslip.models.adapters.mmpretrain_vit import MMPretrainViT
from mmslip.models.adapters.mmslip_model import MMSlip
from mmslip.models.adapters.official_slip import OfficialSLIP
from mmslip.models.adapters.open_clip import OpenAICLIP, OpenCLIP
from mmslip.models.adapters.timm_vit import TimmViT
from mmslip.registry import MODELS

__all__ = ['FAMILIES', 'Imported', 'export_weights', 'import_weights', 'recognise']

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        MMSlip(),
        OfficialSLIP(),
        OpenAICLIP(),
        OpenCLIP(),
        HuggingFaceCLIP(),
        TimmViT(),
        MMPretrainViT(),
    )
}


@dataclass(frozen=True)
class Imported:
    """Weights of whatever origin.

    Args:
        weights: Under mmslip's names.
        facts: What else has to be known of the model.
        family: Where they come from.
        left_out: Names that have no place in mmslip.
    """

    weights: dict[str, Tensor]
    facts: Facts
    family: Family
    left_out: list[str]


def recognise(names: Collection[str]) -> Family | None:
    """The family whose weights have these names; ``None`` where it cannot be told."""
    names = set(names)
    return next((family for family in FAMILIES.values() if family.recognise(names)), None)


def import_weights(
    source: str | Path,
    family: str | None = None,
    config: str | Path | None = None,
    activation: str | None = None,
    image_size: int | None = None,
) -> Imported:
    """Read weights of any family.

    Args:
        source: A checkpoint, a ``.safetensors`` file, or a folder of weights and description.
        family: A key of :data:`FAMILIES`; by default recognised by the names of the weights.
        config: What the weights do not tell: the family's JSON description, or a config of mmslip
            or mmpretrain with such a model. By default the one in the folder.
        activation: ``'gelu'`` or ``'quick_gelu'``, for open_clip without a description.
        image_size: Interpolate the position embeddings to images of this many pixels.

    Raises:
        FileNotFoundError, RuntimeError: The file is absent or unreadable.
        ValueError: The family or the model is not known, or has no counterpart in mmslip.
    """
    source = Path(source).expanduser()
    found = state_dict_of(read_weights(source))
    origin = recognise(found) if family is None else FAMILIES[family]
    if origin is None:
        names = ', '.join(list(found)[:5])
        raise ValueError(
            f'The weights of {source} ({names}, ...) are of no family that can be told: name it '
            f'with --from; known are {", ".join(FAMILIES)}.'
        )
    weights, left_out = origin.to_mmslip(found)
    if 'backbone.layers.0.ffn.layers.0.0.weight' not in weights:
        raise ValueError(f'{source} has no ViT of {origin.title} as its image tower.')
    path = Path(config) if config else _description_of(source, origin)
    try:
        if path is not None and path.suffix == '.py':
            facts = _facts_of_config(path, weights, image_size)
        else:
            description = None if path is None else _read_description(path)
            facts = origin.facts(weights, description, activation)
    except KeyError as error:
        raise ValueError(
            f'{source}{f" or {path}" if path else ""} lacks {error}: it is no complete model of '
            f'{origin.title} with a ViT and linear projections.'
        ) from error
    if facts.ssl is None:
        left_out = [*left_out, *(name for name in weights if name.startswith('ssl.'))]
        weights = {name: value for name, value in weights.items() if not name.startswith('ssl.')}
    if image_size is not None:
        weights, facts = resize_positions(weights, facts, image_size)
    _check_complete(weights, facts, source)
    return Imported(weights, facts, origin, left_out)


def export_weights(
    imported: Imported, folder: str | Path, family: str = 'mmslip', pth: bool = False
) -> list[str]:
    """Write weights for a family: a folder with ``.safetensors`` and what describes the model.

    Args:
        imported: From :func:`import_weights`.
        folder: Is made where it does not exist.
        family: A key of :data:`FAMILIES`.
        pth: Write a PyTorch checkpoint ``model.pth`` in the family's own structure as well.

    Returns:
        Our names of the weights that the family has no place for.

    Raises:
        ValueError: The family has no such model.
    """
    target = FAMILIES[family]
    weights, left_out = target.from_mmslip(imported.weights, imported.facts)
    texts = target.files(imported.facts)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / target.weights_file, weights)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding='utf-8')
    if pth:
        own = {name: value.detach().cpu().clone().contiguous() for name, value in weights.items()}
        torch.save(target.checkpoint(own, imported.facts), folder / 'model.pth')
    return left_out


def _description_of(source: Path, family: Family) -> Path | None:
    """The description that a folder holds of its weights."""
    if source.is_dir() and family.description_file:
        path = source / family.description_file
        return path if path.is_file() else None
    return None


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} is no JSON file: {error}') from error
    pixels = path.with_name('preprocessor_config.json')
    if pixels.is_file():
        description['preprocessor'] = json.loads(pixels.read_text(encoding='utf-8'))
    return description


def _facts_of_config(path: Path, weights: Mapping[str, Tensor], image_size: int | None) -> Facts:
    config = Config.fromfile(path)
    if not config.get('model', {}).get('backbone'):
        raise ValueError(f'{path} has no model with a backbone.')
    model = config.model
    pixels = model.get('data_preprocessor') or config.get('data_preprocessor') or {}
    facts = Facts.from_config(model, pixels)
    told = Facts.from_weights(weights, facts.vision.heads, facts.vision.activation, 0.0)
    simclr = (model.get('ssl') or {}).get('type') == 'mmslip.SimCLR'
    facts = replace(facts, ssl=told.ssl if simclr else None, sigmoid=told.sigmoid)
    if told.vision.image_size != facts.vision.image_size:
        if image_size is None:
            raise ValueError(
                f'The weights are for images of {told.vision.image_size} pixels, {path} for '
                f'{facts.vision.image_size}: give --image-size {facts.vision.image_size} to '
                'interpolate the position embeddings.'
            )
        size = told.vision.image_size
        facts = replace(facts, vision=replace(facts.vision, image_size=size))
    return facts


def _check_complete(weights: Mapping[str, Tensor], facts: Facts, source: Path) -> None:
    """Raise ``ValueError`` unless the weights fill the model of the facts exactly."""
    with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device('meta'):
        wanted = MODELS.build(facts.config()).state_dict()
    wrong = [f'{name} is missing' for name in wanted if name not in weights]
    wrong += [f'{name} is not part of the model' for name in weights if name not in wanted]
    wrong += [
        f'{name} is {tuple(value.shape)}, not {tuple(wanted[name].shape)}'
        for name, value in weights.items()
        if name in wanted and value.shape != wanted[name].shape
    ]
    if wrong:
        more = f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''
        raise ValueError(
            f'{source} does not hold the model that is described: {"; ".join(wrong[:5])}{more}.'
        )
