"""Export both towers to ONNX or to `torch.export`, with all that is needed to run them.

    mmslip export weights/slip exported
    mmslip export pretrained exported --config slip_tiny_emoji --dtype fp32 int8
    mmslip export epoch_25.pth exported --config my_slip.py --to torch

The folder gets the programs of both towers, the tokeniser, and `export.json`, which says how images
and texts are prepared; for ONNX also what transformers.js looks for, and a model card with the code
that runs it in ONNX Runtime. Embeddings are L2-normalised: their dot product is the cosine
similarity. A model without text tower gives its image tower alone: the backbone's features, not
normalised.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmslip.apis import init_model
from mmslip.apis.base import stated_templates
from mmslip.cli.errors import plain_errors
from mmslip.cli.parser import CommandParser
from mmslip.datasets import BaseTokenizer, require_fit
from mmslip.evaluation import default_tokenizer, stated_tokenizer
from mmslip.registry import TOKENIZERS
from mmslip.weights import Preprocessing
from mmslip.weights.card import read_results, recipe_of
from mmslip.weights.format import as_json
from mmslip.weights.formats.hugging_face import image_processor
from mmslip.weights.program_files import (
    describe,
    nearest,
    program_card,
    transformers_js_config,
)
from mmslip.weights.programs import DTYPES, FILES, WRITERS
from mmslip.weights.tokenizer import tokenizer_files
from mmslip.weights.towers import towers_of

# The lowest cosine of an embedding before and after. Below it something is wrong; what half
# precision and int8 lose above it is for their user to judge.
TOLERATED = dict(fp32=1 - 1e-5, fp16=0.99, int8=0.9)
_EXAMPLES = ['a', 'a photo of a cat', 'two dogs', 'a red heart', 'the moon above a mountain']


def export(
    source: str | Path,
    folder: Path,
    to: str = 'onnx',
    config: str | Path | None = None,
    dtypes: Sequence[str] = ('fp32',),
) -> dict[Path, float]:
    """Export the towers of a model.

    Args:
        source: Weights in any format that mmslip loads; ``'pretrained'`` for those that come with
            mmslip.
        folder: Is made where it does not exist.
        to: A key of :data:`mmslip.weights.programs.WRITERS`.
        config: The config that they were trained with; by default ``source`` is a folder with a
            description of the model.
        dtypes: Keys of :data:`mmslip.weights.programs.DTYPES`; the first is the one that
            transformers.js takes by default.

    Returns:
        By file, the lowest cosine of an embedding before and after.

    Raises:
        FileNotFoundError: There are no such weights, or there is no such config.
        ValueError: There is neither a description nor a config, or it has no mean; the format has
            no such precision; or the tokeniser cannot be written.
        ModuleNotFoundError: ONNX is asked for and not installed.
        RuntimeError: A tower cannot be traced for batches of any size, or a cosine is below
            :data:`TOLERATED`.
    """
    if config is None and not Path(source).exists():
        raise FileNotFoundError(f'There are no weights {source}.')
    if config is None and not Path(source).is_dir():
        raise ValueError(f'{source} is a file: give the config of its model with --config.')
    model = init_model(config or source, source if config else None, 'cpu').requires_grad_(False)
    if getattr(model.data_preprocessor, 'mean', None) is None:
        raise ValueError(f'The model of {config} has no data_preprocessor with mean and std.')
    preprocessing, size = Preprocessing.from_config(model._config)
    if hasattr(model.backbone, 'img_size'):
        size = model.backbone.img_size[0]
    size = size or 224
    tokenizer = tokenizer_of(model)
    texts = {} if tokenizer is None else tokenizer_files(tokenizer)
    cosines = _write_programs(model, folder, to, size, tokenizer, dtypes)
    length = None if tokenizer is None else tokenizer.context_length
    told = describe(model, size, preprocessing, length, to, dtypes)
    texts['export.json'] = as_json(told)
    if to == 'onnx':
        texts['config.json'] = as_json(transformers_js_config(told))
        texts['preprocessor_config.json'] = as_json(image_processor(nearest(preprocessing), size))
        if not (folder / 'README.md').exists():  # its user may have edited it
            template = stated_templates(model._config)[0]
            results = [] if source == 'pretrained' else read_results(Path(source))
            facts = _facts_of(model, told), recipe_of(model._config), results
            texts['README.md'] = program_card(folder.resolve().name, told, template, *facts)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding='utf-8')
    return cosines


def tokenizer_of(model: nn.Module) -> BaseTokenizer | None:
    """The tokeniser of a model with a text tower.

    Raises:
        ValueError: It does not fit the text tower.
    """
    if not getattr(model, 'with_text', False):
        return None
    stated = stated_tokenizer(model._config)
    tokenizer = TOKENIZERS.build(stated or default_tokenizer(model.text_backbone))
    require_fit(tokenizer, model.text_backbone)
    return tokenizer


def _facts_of(model: nn.Module, told: dict) -> dict[str, str]:
    """The towers of a model, for its card."""
    size = told['image']['size']
    facts = {'Images': f'{_counted(model.backbone)}, images of {size} x {size} pixels'}
    if 'text' in told:
        length = told['text']['context_length']
        facts['Texts'] = f'{_counted(model.text_backbone)}, {length} tokens'
    return facts


def _counted(tower: nn.Module) -> str:
    numbers = sum(value.numel() for value in tower.parameters())
    return f'{type(tower).__name__}, {numbers / 1e6:.1f} million weights'


@torch.no_grad()
def _write_programs(
    model: nn.Module,
    folder: Path,
    to: str,
    size: int,
    tokenizer: BaseTokenizer | None,
    dtypes: Sequence[str],
) -> dict[Path, float]:
    """Trace examples of one size, and compare the programs with the model on others."""
    pixels = torch.randn(5, 3, size, size, generator=torch.Generator().manual_seed(0))
    traced, checked = dict(pixel_values=pixels[:2]), dict(pixel_values=pixels)
    if tokenizer is not None:
        ids = tokenizer(_EXAMPLES)
        traced['input_ids'], checked['input_ids'] = ids[:2], model.trim_text(ids)
    cosines, towers = {}, towers_of(model, tokenizer)
    for name in FILES[to]:
        if name not in towers:
            continue
        tower = towers[name]
        paths = {dtype: folder / FILES[to][name].format(DTYPES[dtype]) for dtype in dtypes}
        runs = WRITERS[to](tower, {key: traced[key] for key in tower.inputs}, paths)
        inputs = [checked[key] for key in tower.inputs]
        wanted = tower(*inputs)
        wanted = [wanted] if isinstance(wanted, Tensor) else wanted
        for dtype, run in runs.items():
            cosine = _lowest_cosine(tower.outputs, run(*inputs), wanted)
            if not cosine >= TOLERATED[dtype]:
                raise RuntimeError(
                    f'{paths[dtype]} is another model: its embeddings have a cosine of '
                    f'{cosine:.4f} with those before.'
                )
            cosines[paths[dtype]] = cosine
    return cosines


def _lowest_cosine(
    names: Sequence[str], found: Sequence[Tensor], wanted: Sequence[Tensor]
) -> float:
    """The lowest cosine of embeddings, among results of these names."""
    return min(
        F.cosine_similarity(one.double(), other.double(), dim=-1).min().item()
        for name, one, other in zip(names, found, wanted, strict=True)
        if name.endswith('embeds')
    )


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        'export', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'source',
        help="weights: a folder, or a file with --config; 'pretrained' with --config "
        'slip_tiny_emoji for those that come with mmslip',
    )
    parser.add_argument('folder', type=Path, help='folder to write')
    parser.add_argument('--config', help='config of the model: a file, or a name')
    parser.add_argument('--to', choices=WRITERS, default='onnx', help='default: onnx')
    parser.add_argument(
        '--dtype',
        nargs='+',
        choices=DTYPES,
        default=['fp32'],
        help='precisions to write, the default of transformers.js first; int8 for ONNX alone '
        '(default: fp32)',
    )
    return parser.parse_args(arguments)


@plain_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    cosines = export(args.source, args.folder, args.to, args.config, args.dtype)
    for path, cosine in cosines.items():
        size = path.stat().st_size / 1e6
        print(f'{path}: {size:.1f} MB, embeddings as before up to a cosine of {cosine:.7f}')
    print(f'{args.folder / "export.json"}: how images and texts are prepared')
