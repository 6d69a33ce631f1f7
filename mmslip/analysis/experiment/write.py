"""An experiment file, from a look at the data and a plan."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mmslip.analysis.experiment.machine import Machine
from mmslip.analysis.experiment.plan import Plan
from mmslip.analysis.experiment.start import Start, as_call
from mmslip.analysis.experiment.survey import Survey
from mmslip.analysis.experiment.vocabulary import Vocabulary
from mmslip.weights import Preprocessing

__all__ = ['render', 'title_of']

_METHODS = dict(
    simclr='SimCLR', mocov3='MoCo v3', byol='BYOL', simsiam='SimSiam', barlowtwins='Barlow Twins'
)
# What may stand between quotes as it is, since mmengine writes it there as text.
_PLAIN_FOLDER = re.compile(r'[^\'"\\\n{}]+')


def title_of(found: Survey, plan: Plan) -> str:
    """What is trained on what."""
    method = _METHODS.get(plan.ssl, '')
    if plan.language:
        method = 'SLIP' if plan.ssl == 'simclr' else f'CLIP and {method}' if method else 'CLIP'
        return f'{method} on {found.rows:,} images with {found.captions:,} captions'
    return f'{method} on {found.rows:,} images without captions'


def render(
    path: Path,
    dataset: dict[str, Any],
    found: Survey,
    plan: Plan,
    machine: Machine,
    split: Path | None = None,
    start: Start | None = None,
    vocabulary: Vocabulary | None = None,
) -> str:
    """The text of an experiment file.

    Args:
        path: Where it will lie: what lies below its folder is named relative to it.
        dataset: Config of the data set, of :func:`mmslip.datasets.recognise.recognise`.
        found: The look at it.
        plan: The settings.
        machine: What they were made for.
        split: The file of the parts; None where all is for training.
        start: Weights that training starts from.
        vocabulary: That of the captions, where it is not CLIP's.
    """
    folder = path.parent.absolute()
    context = f'context_length={plan.context}' if plan.context else ''
    if start and start.model:
        tokenizer = _tokenizer(start.tokenizer, folder) if start.tokenizer else ''
    else:
        table = f'merges_file={_place(vocabulary.path.absolute(), folder)}' if vocabulary else ''
        settings = ', '.join(filter(None, ["type='mmslip.CLIPTokenizer'", context, table]))
        tokenizer = f'dict({settings})' if context or table else ''
    size = f'vocab_size={plan.vocab_size}' if plan.vocab_size else ''
    changes = [] if plan.ssl_crop == 0.08 else [f'ssl_crop=({plan.ssl_crop}, 1.0)']
    if plan.blur != 2.0:
        changes.append(f'blur_sigma=(0.1, {plan.blur})' if plan.blur else 'blur_prob=0.0')
    content = dict(
        asdict(plan),
        title=title_of(found, plan),
        held_out=bool(found.held_out),
        images='pairs' if plan.language else 'images',
        dataset=',\n    '.join(_arguments(dataset, folder)) + ',',
        split=_place(split, folder) if split else '',
        text_sizes=', '.join(filter(None, [size, context])),
        tokenizer=f', tokenizer={tokenizer}' if tokenizer else '',
        unlocked_text=_unlocked(plan.unlocked),
        paramwise=', '.join(_paramwise(plan)),
        val_pipeline=_val_pipeline(start, plan.image_size, tokenizer),
        small_views=plan.ssl != 'none' and plan.ssl_size != plan.image_size,
        view_changes=', '.join(changes) if plan.ssl != 'none' else '',
        narrow=_self_supervised(start, plan),
        lr=f'{plan.lr:.0e}'.replace('e-0', 'e-'),
        cores=machine.cores,
        parts=list(_parts(start, plan)) if start else [],
        load_from=_place(Path(start.weights), folder) if start else '',
    )
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        line_statement_prefix='%',
        keep_trailing_newline=True,
    )
    return environment.get_template('experiment.py.jinja').render(content).strip() + '\n'


def _parts(start: Start, plan: Plan) -> Iterator[str]:
    """Lines of the model's parts that the weights decide."""
    for name, part in start.model.items():
        if name == 'data_preprocessor':  # whose other settings are those of its class
            yield f'{name}={as_call(part)}'
        elif name == 'backbone' or plan.language:
            lines = textwrap.wrap(
                f'{name}={as_call(dict(_delete_=True, **part))}',
                96,
                subsequent_indent='        ',
                break_long_words=False,
                break_on_hyphens=False,
            )
            yield '\n'.join(lines)


def _tokenizer(config: dict[str, Any], folder: Path) -> str:
    """A tokeniser as Python writes it, its file relative where it can be."""
    text = as_call(config)
    for path in (config[key] for key in ('path', 'merges_file') if key in config):
        text = text.replace(repr(path), _place(Path(path), folder))
    return text


def _paramwise(plan: Plan) -> Iterator[str]:
    """Settings of learning rates that differ from that of the optimiser."""
    if plan.layer_decay:
        yield f'layer_decay_rate={plan.layer_decay}'
    if plan.ssl_lr:
        yield f'lr_mult=dict(ssl={plan.ssl_lr:g})'


def _self_supervised(start: Start | None, plan: Plan) -> str:
    """Changes of the self-supervised half, whose neck has to be told of feature maps."""
    of_weights = start.model.get('backbone', {}) if start else {}
    if plan.ssl == 'none' or not (
        plan.arch == 'resnet50' or of_weights.get('out_type') == 'featmap'
    ):
        return plan.narrow
    told = 'neck=dict(with_avg_pool=True'
    return plan.narrow.replace('neck=dict(', f'{told}, ', 1) if plan.narrow else f'{told})'


def _val_pipeline(start: Start | None, size: int, tokenizer: str) -> str:
    """The pipeline of an evaluation, where it is another than that of its base."""
    usual = Preprocessing()
    images = replace(start.preprocessing, mean=usual.mean, std=usual.std) if start else usual
    if images == usual and not tokenizer:
        return ''
    load, first, *others, _ = map(as_call, images.pipeline(size))
    lines = ',\n    '.join([f'{load}, {first}', *others])
    return f", pipeline=[\n    {lines},\n    dict(text, type='mmslip.TokenizeCaptions'), pack]"


def _unlocked(number: int | None) -> str:
    if not number:
        return 'nothing trains'
    return 'the last block trains' if number == 1 else f'the last {number} blocks train'


def _arguments(config: dict[str, Any], folder: Path) -> Iterator[str]:
    """Arguments of a data set as Python writes them, paths relative where they can be."""
    first = f'type={config["type"]!r}'
    yield f'{first}, captions={config["captions"]!r}' if 'captions' in config else first
    for name, value in config.items():
        if name in ('ann_file', 'data_root', 'shards', 'files'):
            yield f'{name}={_place(Path(value), folder)}'
        elif name == 'data_prefix':
            yield f'{name}=dict(img_path={_place(Path(value["img_path"]), folder)})'
        elif name not in ('type', 'captions'):
            yield f'{name}={value!r}'


def _place(path: Path, folder: Path) -> str:
    """A path as a Python literal; of what lies below the experiment file, relative to it."""
    if path.is_relative_to(folder) and _PLAIN_FOLDER.fullmatch(str(folder)):
        inner = path.relative_to(folder).as_posix()
        return repr('{{ fileDirname }}' + (f'/{inner}' if inner != '.' else ''))
    return repr(str(path))
