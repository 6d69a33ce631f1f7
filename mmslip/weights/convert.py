"""From any format to any other, by way of mmslip's own names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import Tensor

from mmslip.datasets.text.vocabulary import is_own
from mmslip.registry import MODELS
from mmslip.utils.config import load_config
from mmslip.weights.card import facts_of, model_card, read_results, recipe_of
from mmslip.weights.files import IN_FOLDERS, read_weights, state_dict_of, write_weights
from mmslip.weights.fit import beginnings, plain_name
from mmslip.weights.format import Format, as_json
from mmslip.weights.formats import FORMATS
from mmslip.weights.formats.mmslip import MMSlip, find_files
from mmslip.weights.lora import merge_lora
from mmslip.weights.neutral_norm import (
    add_neutral_norm,
    class_position,
    remove_neutral_norm,
)
from mmslip.weights.spec import MERGES_NAME, ForeignText, ModelSpec, resize_positions
from mmslip.weights.spec_from_config import spec_from_config

__all__ = [
    'ImportedModel',
    'export_weights',
    'import_weights',
    'noted_folder',
    'recognise',
    'stated_spec',
]

# Key of a description of another library under which stands what mmslip needs to read it back.
_NOTE = 'mmslip'
_IMAGE_TOWER = 'backbone.layers.0.ffn.layers.0.0.weight'


@dataclass(frozen=True)
class ImportedModel:
    """Weights of any origin and the model that they belong to.

    Args:
        weights: Under mmslip's names.
        spec: Architecture and preprocessing.
        origin: The format that they were read from.
        left_out: Names that have no place in mmslip.
        recipe: What the config says of the training.
        results: Figures of the evaluations of the run, of ``results.jsonl`` beside the weights.
    """

    weights: dict[str, Tensor]
    spec: ModelSpec
    origin: Format
    left_out: list[str]
    recipe: Mapping[str, str] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)


def recognise(
    weights: Mapping[str, Tensor], name: str | None = None
) -> tuple[Format | None, dict[str, Tensor], list[str]]:
    """The format of weights, by their names.

    Args:
        weights: By name, perhaps with the parts that wrappers and trainers put in front.
        name: A key of :data:`FORMATS`, where it is known.

    Returns:
        The format, or ``None``; the weights without such parts; the names of the others.

    Raises:
        ValueError: Several models are found, under different beginnings.
    """
    weights = {plain_name(key): value for key, value in weights.items()}
    found = {}
    for beginning in beginnings(weights):
        names = {key.removeprefix(beginning) for key in weights if key.startswith(beginning)}
        if name is None:
            origin = next((known for known in FORMATS.values() if known.recognise(names)), None)
        else:
            origin = FORMATS[name]
            origin = origin if origin.recognise(names) or _IMAGE_TOWER in names else None
        if origin is not None:
            found[beginning] = origin
            if not beginning:
                break
    if len(found) > 1:
        raise ValueError(
            f'There are several models, whose names begin with {", ".join(found)}: save the '
            'weights of one in a file of their own.'
        )
    beginning, origin = next(iter(found.items()), ('', name and FORMATS[name]))
    inner = {
        key.removeprefix(beginning): value
        for key, value in weights.items()
        if key.startswith(beginning)
    }
    return origin, inner, [key for key in weights if not key.startswith(beginning)]


def import_weights(
    source: str | Path,
    name: str | None = None,
    config: str | Path | None = None,
    activation: str | None = None,
    image_size: int | None = None,
) -> ImportedModel:
    """Read weights of any format.

    Args:
        source: A checkpoint, a ``.safetensors`` file, or a folder of weights and description.
        name: A key of :data:`FORMATS`; by default recognised by the names of the weights.
        config: Heads, activations and so on, which weights do not hold: a JSON description of the
            format, or a config of mmslip or mmpretrain (``.py``, which is executed). By default
            the JSON description in the folder.
        activation: ``'gelu'`` or ``'quick_gelu'``, for open_clip without a description.
        image_size: Interpolate the position embeddings to images of this many pixels.

    Raises:
        FileNotFoundError, RuntimeError: The file is absent or unreadable.
        ValueError: The format or the model is not known, or has no counterpart in mmslip.
    """
    source = Path(source).expanduser()
    if name is None and (source / MMSlip.description_file).is_file():
        name = MMSlip.name  # an image tower alone has the same names in mmpretrain
    origin, found, others = recognise(merge_lora(state_dict_of(read_weights(source))), name)
    if origin is None:
        names = ', '.join(list(found)[:5])
        raise ValueError(
            f'The weights of {source} ({names}, ...) are of no known format: name it with --from '
            f'({", ".join(FORMATS)}).'
        )
    weights, left_out = origin.to_mmslip(found)
    left_out = [*left_out, *others]
    if _IMAGE_TOWER not in weights:
        raise ValueError(f'{source} has no ViT of {origin.title} as its image tower.')
    path = Path(config) if config else _description_of(source, origin)
    note = None
    try:
        if path is not None and path.suffix == '.py':
            spec = _spec_of_config(path, weights, image_size)
        else:
            description = None if path is None else _read_description(path)
            spec = origin.read_spec(weights, description, activation)
            note = ((description or {}).get(_NOTE) or {}).get('class_position')
    except KeyError as error:
        raise ValueError(
            f'{source}{f" or {path}" if path else ""} lacks {error}: it is no complete model of '
            f'{origin.title} with a ViT and linear projections.'
        ) from error
    except (AttributeError, TypeError) as error:  # of a description with other types
        raise ValueError(f'{path} does not describe a model of {origin.title}: {error}') from error
    spec = _with_tokenizer(spec, path)
    if note is not None:
        weights, spec = remove_neutral_norm(weights, spec, note) or (weights, spec)
    if spec.ssl is None:
        left_out = [*left_out, *(key for key in weights if key.startswith('ssl.'))]
        weights = {key: value for key, value in weights.items() if not key.startswith('ssl.')}
    if image_size is not None:
        weights, spec = resize_positions(weights, spec, image_size)
    _check_complete(weights, spec, source)
    recipe = recipe_of(load_config(path)) if path is not None and path.suffix == '.py' else {}
    return ImportedModel(weights, spec, origin, left_out, recipe, read_results(source))


def export_weights(
    imported: ImportedModel, folder: str | Path, name: str = 'mmslip', pth: bool = False
) -> list[str]:
    """Write weights in a format: a folder with ``.safetensors``, a description and a model card.

    A ``README.md`` that is there already is kept: its user may have edited it.

    Args:
        imported: From :func:`import_weights`.
        folder: Is made where it does not exist.
        name: A key of :data:`FORMATS`.
        pth: Write a PyTorch checkpoint ``model.pth`` in the format's own structure as well.

    Returns:
        Our names of the weights that the format has no place for.

    Raises:
        ValueError: The library has no such model.
    """
    target = FORMATS[name]
    weights, spec = imported.weights, target.counterpart(imported.spec)
    target.check(spec)
    texts = target.describe(spec)
    if spec.vision.pre_norm and not imported.spec.vision.pre_norm:
        note = {_NOTE: dict(class_position=class_position(weights))}
        weights = add_neutral_norm(weights, imported.spec)
        content = json.loads(texts[target.description_file])
        texts[target.description_file] = as_json(content | note)
    weights, left_out = target.from_mmslip(weights, spec)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / target.weights_file, weights)
    card = folder / 'README.md'
    if target.usage is not None and not card.exists():
        usage = f'```python\n{target.usage.format(folder=folder.name)}\n```'
        facts = facts_of(imported.spec), imported.recipe, imported.results
        texts['README.md'] = model_card(folder.resolve().name, target.library, usage, *facts)
    for file, text in texts.items():
        (folder / file).write_text(text, encoding='utf-8')
    if pth:
        own = {key: value.detach().cpu().clone().contiguous() for key, value in weights.items()}
        torch.save(target.checkpoint(own, spec), folder / 'model.pth')
    return left_out


def stated_spec(
    source: str | Path, origin: Format, weights: Mapping[str, Tensor]
) -> ModelSpec | None:
    """What weights, or the description beside them, say of their model.

    Args:
        source: File or folder.
        origin: The format of the weights.
        weights: Under mmslip's names.

    Returns:
        The model; None where neither says enough.

    Raises:
        ValueError: There is a description, of a model that mmslip does not have.
    """
    path = _description_of(Path(source).expanduser(), origin)
    try:
        return origin.read_spec(weights, _read_description(path) if path else None, None)
    except ValueError:
        if path is not None:
            raise
    except (AttributeError, ImportError, KeyError, TypeError):  # a part of a model, or no timm
        pass
    return None


def noted_folder(source: str | Path) -> Path | None:
    """The folder of these weights, if only its description tells how mmslip reads them back."""
    path = Path(source).expanduser()
    folder = path if path.is_dir() else path.parent
    for origin in FORMATS.values():
        description = folder / (origin.description_file or origin.weights_file)
        if (
            origin.description_file
            and path in (folder, folder / origin.weights_file)
            and description.is_file()
            and _NOTE in _read_json(description)
        ):
            return folder
    return None


def _description_of(source: Path, origin: Format) -> Path | None:
    """The description that a folder holds of its weights, named as such or by their file."""
    if origin.description_file and (source.is_dir() or source.name in IN_FOLDERS):
        folder = source if source.is_dir() else source.parent
        path = folder / origin.description_file
        return path if path.is_file() else None
    return None


def _read_description(path: Path) -> dict[str, Any]:
    description = _read_json(path)
    # Of Hugging Face: a file of its own, or in that of transformers 5 for images and texts.
    preprocessor, processor = map(
        path.with_name, ('preprocessor_config.json', 'processor_config.json')
    )
    if preprocessor.is_file():
        description['preprocessor'] = _read_json(preprocessor)
    elif processor.is_file() and (found := _read_json(processor).get('image_processor')):
        description['preprocessor'] = found
    return description


def _with_tokenizer(spec: ModelSpec, path: Path | None) -> ModelSpec:
    """A model whose tokeniser lies beside its JSON description."""
    text = spec.text
    if text is None or path is None or path.suffix == '.py':
        return spec
    if isinstance(text, ForeignText):
        return replace(spec, text=find_files(text, path.parent))
    table = path.with_name(MERGES_NAME)
    if text.merges_file is not None or (table.is_file() and is_own(table)):
        return replace(spec, text=replace(text, merges_file=str(table)))
    return spec


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is no JSON file: {error}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds a {type(content).__name__}, not a description.')
    return content


def _spec_of_config(path: Path, weights: Mapping[str, Tensor], image_size: int | None) -> ModelSpec:
    config = load_config(path)
    if not config.get('model', {}).get('backbone'):
        raise ValueError(f'{path} has no model with a backbone.')
    spec = spec_from_config(config)
    # The given values are placeholders: only the fields that shapes fix are read.
    shapes = ModelSpec.from_weights(weights, 1, 'gelu', 1e-6, 1, 'gelu')
    simclr = (config.model.get('ssl') or {}).get('type') == 'mmslip.SimCLR'
    spec = replace(spec, ssl=shapes.ssl if simclr else None, sigmoid=shapes.sigmoid)
    size = shapes.vision.image_size
    if size != spec.vision.image_size and image_size is None:
        raise ValueError(
            f'The weights are for images of {size} pixels, {path} for {spec.vision.image_size}: '
            f'give --image-size {spec.vision.image_size} to interpolate the position embeddings.'
        )
    return replace(spec, vision=replace(spec.vision, image_size=size))


def _check_complete(weights: Mapping[str, Tensor], spec: ModelSpec, source: Path) -> None:
    """Raise ``ValueError`` unless the weights fill the model exactly."""
    with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device('meta'):
        wanted = MODELS.build(spec.model()).state_dict()
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
