"""Weights that a training starts from, and the model that they belong to."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

import mmslip.engine  # noqa: F401  (what configs import, and the safe loader)
from mmslip import weights
from mmslip.datasets import CLIPTokenizer
from mmslip.models.depth import TOWERS
from mmslip.registry import TOKENIZERS, model_class
from mmslip.shipped import find_config
from mmslip.utils.config import image_size_of, load_config
from mmslip.utils.parts import find_all
from mmslip.weights import Preprocessing, TextSpec, import_weights, read_weights, recognise
from mmslip.weights.files import state_dict_of
from mmslip.weights.format import Format
from mmslip.weights.formats.mmslip import MMSlip
from mmslip.weights.spec import ForeignText
from mmslip.weights.tokenizer import tokenizer_files, tokenizer_of

__all__ = ['Start', 'as_call', 'read_start']

_PARTS = ('backbone', 'neck', 'text_backbone', 'text_neck', 'head')
_SHIPPED = Path(weights.__file__).parent / 'pretrained'


@dataclass(frozen=True)
class Start:
    """Weights and their model.

    Attributes:
        weights: Path.
        model: The parts of a config's ``model`` that the weights decide, without a
            self-supervised half; empty where nothing says what they are.
        image_size: Side of the images that the model takes.
        tokenizer: Config of its tokeniser, where it is not the usual one.
        preprocessing: How images are prepared in evaluation.
    """

    weights: str
    model: dict[str, dict]
    image_size: int | None = None
    tokenizer: dict | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    @property
    def by_depth(self) -> bool:
        """Whether all towers tell the depth of their layers."""
        towers = [self.model[name] for name in TOWERS if name in self.model]
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            return bool(towers) and all(
                hasattr(model_class(tower), 'get_layer_depth') for tower in towers
            )

    @property
    def arch(self) -> str | None:
        """The architecture that costs about as much."""
        if not self.model:
            return None
        backbone = self.model['backbone']
        if backbone['type'] == 'ResNet':
            return 'resnet50'
        arch = backbone.get('arch', 'tiny')
        if isinstance(arch, str):
            return {'s': 'small', 'b': 'base', 'l': 'large', 't': 'tiny'}.get(arch[0], 'base')
        width = arch['embed_dims']
        limits = dict(tiny=256, small=400, base=800)
        return next((name for name, most in limits.items() if width <= most), 'large')


def read_start(source: str) -> Start:
    """Find out what model some weights are of.

    Args:
        source: Name of a model whose weights come with mmslip; a checkpoint in the folder of its
            run, where its config lies; or whatever :func:`mmslip.weights.import_weights` reads.

    Raises:
        FileNotFoundError, RuntimeError: There are no such weights, or they cannot be read.
        ValueError: They are of a known library, but of a model that mmslip does not have, or
            without a description that they need.
    """
    path = Path(source).expanduser()
    if not path.exists():
        path = _SHIPPED / f'{source}.safetensors'
        if not path.is_file():
            known = ', '.join(sorted(file.stem for file in _SHIPPED.glob('*.safetensors')))
            raise FileNotFoundError(
                f'There are no weights {source}: give a file or folder, or the name of weights '
                f'that come with mmslip ({known}).'
            )
        return _of_config(load_config(find_config(source)), path)
    origin = _origin_of(path)
    if origin is None:
        # Of a run: its config lies beside its checkpoints.
        beside = sorted(path.parent.glob('*.py')) if path.is_file() else []
        return _of_config(load_config(beside[0]), path) if len(beside) == 1 else _unknown(path)
    try:
        spec = import_weights(path).spec
    except ValueError as error:
        raise ValueError(
            f'{path} is of {origin.title}, and no config can be written for it. {error} '
            '(`mmslip convert` takes what is missing, and --from the folder that it writes.)'
        ) from error
    pixels = spec.preprocessing.pixels_255()
    model = {name: part for name, part in spec.model().items() if name in _PARTS}
    model['data_preprocessor'] = {name: list(pixels[name]) for name in ('mean', 'std')}
    tokenizer = _tokenizer_config(spec.text, path) if spec.text else None
    size = spec.vision.image_size
    return Start(str(path.absolute()), model, size, tokenizer, spec.preprocessing)


def _origin_of(path: Path) -> Format | None:
    """The library that weights are of; None for checkpoints of mmslip without a description."""
    if path.is_dir() and (path / MMSlip.description_file).is_file():
        return MMSlip()
    origin, _, _ = recognise(state_dict_of(read_weights(path)))
    return None if isinstance(origin, MMSlip) else origin


def _unknown(path: Path) -> Start:
    """Weights of which nothing is known, unless another library describes them.

    Raises:
        ValueError: It does, and mmslip has no such model.
    """
    description = (path if path.is_dir() else path.parent) / 'config.json'
    if description.is_file():
        kind = json.loads(description.read_text(encoding='utf-8')).get('model_type')
        if kind is not None:
            raise ValueError(
                f'{path} is a model {kind!r} of transformers, which mmslip cannot read whole: it '
                'is no CLIPModel or SiglipModel of both towers. As a text tower, '
                'mmslip.HuggingFaceText takes its text model.'
            )
    return Start(str(path.absolute()), {})


def _tokenizer_config(text: TextSpec | ForeignText, path: Path) -> dict | None:
    """The tokeniser of a text tower, if it is not the usual one.

    Raises:
        FileNotFoundError: Its file is not there.
        ValueError: It cannot be read, or the files beside the weights have another vocabulary.
    """
    if isinstance(text, ForeignText):
        TOKENIZERS.build(dict(text.tokenizer))
        return text.tokenizer
    tokenizer = tokenizer_of(text)
    theirs = path / 'vocab.json'
    if theirs.is_file():
        ours = json.loads(tokenizer_files(tokenizer)['vocab.json'])
        found = json.loads(theirs.read_text(encoding='utf-8'))
        if any(found.get(word) != number for word, number in ours.items()):
            raise ValueError(
                f"{theirs} has other tokens than CLIP's tokeniser with {len(ours):,} of them: the "
                'text tower was trained with a tokeniser that mmslip does not have.'
            )
    if own := text.own_tokenizer():
        return own
    changes = {
        name: getattr(tokenizer, name)
        for name in ('context_length', 'num_merges')
        if getattr(tokenizer, name) != getattr(CLIPTokenizer(), name)
    }
    return dict(type='mmslip.CLIPTokenizer', **changes) if changes else None


def _of_config(cfg: Config, path: Path) -> Start:
    content = cfg.to_dict()
    model = {name: content['model'][name] for name in _PARTS if content['model'].get(name)}
    pixels = content['model'].get('data_preprocessor') or {}
    kept = {name: pixels[name] for name in ('mean', 'std') if name in pixels}
    if kept:
        model['data_preprocessor'] = kept
    tokenizer = next(find_all(content, 'TokenizeCaption'), {}).get('tokenizer')
    usual = tokenizer in (None, dict(type='mmslip.CLIPTokenizer'))
    tokenizer = None if usual else tokenizer
    try:
        preprocessing, _ = Preprocessing.from_config(content)
    except ValueError:  # an evaluation of one's own, which the new data may not fit
        preprocessing = Preprocessing()
    return Start(str(path.absolute()), model, image_size_of(cfg), tokenizer, preprocessing)


def as_call(value: Any) -> str:
    """A value as configs are written: ``dict(key=value)``."""
    if isinstance(value, dict):
        return f'dict({", ".join(f"{key}={as_call(item)}" for key, item in value.items())})'
    if isinstance(value, list | tuple):
        return f'[{", ".join(map(as_call, value))}]'
    return repr(value)
