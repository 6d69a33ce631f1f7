"""What lies beside exported programs: how inputs are prepared, for readers and for libraries."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from torch import nn

from mmslip.weights.card import model_card
from mmslip.weights.formats.hugging_face import RESAMPLE
from mmslip.weights.preprocessing import Preprocessing
from mmslip.weights.programs import DTYPES, FILES

__all__ = ['describe', 'nearest', 'program_card', 'transformers_js_config']

# Names of OpenCV's filters.
_CV2 = dict(nearest='NEAREST', bilinear='LINEAR', bicubic='CUBIC', area='AREA', lanczos='LANCZOS4')


def describe(
    model: nn.Module,
    size: int,
    preprocessing: Preprocessing,
    length: int | None,
    to: str,
    dtypes: Sequence[str],
) -> dict[str, Any]:
    """Content of ``export.json``: preparation of images and texts, and form of the outputs.

    Args:
        model: The model that is exported.
        size: Side of its images.
        preprocessing: Of its images.
        length: The most ids of a text; ``None`` without a text tower.
        to: Format of the programs.
        dtypes: Their precisions.
    """
    names = [name for name in FILES[to] if name == 'image' or length is not None]
    files = {
        dtype: {name: FILES[to][name].format(DTYPES[dtype]) for name in names} for dtype in dtypes
    }
    shortest = preprocessing.resize == 'shortest'
    image = dict(
        input=['batch', 3, size, size],
        prepare='upright, transparency over white, RGB; '
        f'{"short side" if shortest else "both sides"} resized to resize_size by the filter '
        'interpolation of the library backend; centre crop of size, half a pixel rounded as '
        'rounding says; values in [0, 1], minus mean, '
        'divided by std; float32',
        size=size,
        resize_size=preprocessing.short_side(size),
        resize=preprocessing.resize,
        interpolation=preprocessing.interpolation,
        backend=preprocessing.backend,
        rounding=preprocessing.rounding,
        mean=preprocessing.mean,
        std=preprocessing.std,
    )
    if length is None:
        return dict(files=files, image=image, normalised=False)
    text = dict(
        input=['batch', 'length'],
        prepare='int64 ids of tokenizer.json, at most context_length; behind the first '
        'end-of-text token anything',
        context_length=length,
    )
    # Logits are scale * cosine similarity, plus the bias of a model of the sigmoid loss.
    score = dict(scale=model.head.logit_scale.exp().item())
    if hasattr(model.head, 'logit_bias'):
        score['bias'] = model.head.logit_bias.item()
    return dict(files=files, image=image, text=text, normalised=True, **score)


def nearest(preprocessing: Preprocessing) -> Preprocessing:
    """The nearest that image processors of transformers and transformers.js have.

    It is the same but for OpenCV and the box filter, in whose place is Lanczos's: like them it
    takes in all pixels where it shrinks an image, in transformers.js as the only one.
    """
    if preprocessing.backend == 'pillow' and preprocessing.interpolation in RESAMPLE:
        return preprocessing
    return replace(preprocessing, backend='pillow', interpolation='lanczos')


def transformers_js_config(told: Mapping[str, Any]) -> dict[str, Any]:
    """Content of ``config.json``, from which transformers.js knows its classes.

    It runs any graph with the inputs and outputs of a class, whatever the towers are.

    Args:
        told: Of :func:`describe`.
    """
    # The sigmoid of each logit, not the softmax of all, is the score of a SiglipModel.
    name, kind = ('SiglipModel', 'siglip') if 'bias' in told else ('CLIPModel', 'clip')
    dtype = next(iter(told['files']))
    settings = dict(dtype='q8' if dtype == 'int8' else dtype)
    return {'architectures': [name], 'model_type': kind, 'transformers.js_config': settings}


def program_card(
    name: str,
    told: Mapping[str, Any],
    template: str,
    facts: Mapping[str, str],
    recipe: Mapping[str, str],
    results: list[dict[str, Any]],
) -> str:
    """The model card of a folder of ONNX graphs, with code that runs them.

    Args:
        name: Of the folder.
        told: Of :func:`describe`.
        template: Of the texts that images are compared with.
        facts: Of the towers.
        recipe: Of the training.
        results: Of the evaluations.
    """
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    source = Path(__file__).with_name('program_card.md.jinja').read_text(encoding='utf-8')
    usage = environment.from_string(source).render(
        folder=name,
        dtype=next(iter(told['files'])),
        text='text' in told,
        sigmoid='bias' in told,
        image=told['image'],
        opencv=_CV2[told['image']['interpolation']] if told['image']['backend'] == 'cv2' else None,
        template=template,
    )
    return model_card(name, 'transformers.js', usage.rstrip(), facts, recipe, results)
