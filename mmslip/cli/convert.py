"""Convert weights between mmslip and other libraries, without loss.

    mmslip convert slip_base_25ep.pt weights/slip
    mmslip convert weights/slip weights/slip_timm --to timm

The folder gets the weights as `.safetensors` and a description of the model (for mmslip,
`mmslip.json`, and a `config.py` to build on). What has no place on the other side is listed; where
the embeddings of a tower would depend on it, nothing is written. No file of SOURCE is executed.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmslip.cli.errors import plain_errors
from mmslip.cli.parser import CommandParser, at_least
from mmslip.weights import FORMATS, ImportedModel, export_weights, import_weights

_WAYS = dict(even='to the even one', down='down')


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        'convert', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, help='checkpoint, .safetensors file or folder')
    parser.add_argument('folder', type=Path, help='folder to write')
    parser.add_argument(
        '--from',
        dest='origin',
        choices=FORMATS,
        help='where the weights come from (default: recognised by their names)',
    )
    parser.add_argument('--to', choices=FORMATS, default='mmslip', help='default: mmslip')
    parser.add_argument(
        '--config',
        type=Path,
        help='description of the model: a .json of its library, or a .py config of mmslip or '
        'mmpretrain, which is executed (default: the .json in SOURCE)',
    )
    parser.add_argument(
        '--activation',
        choices=['gelu', 'quick_gelu'],
        help='of weights of open_clip that come without a .json',
    )
    parser.add_argument(
        '--image-size',
        type=at_least(1),
        help='interpolate the position embeddings to this image size',
    )
    parser.add_argument('--pth', action='store_true', help='write a model.pth as well')
    return parser.parse_args(arguments)


def report(imported: ImportedModel, unwritten: list[str], args: argparse.Namespace) -> None:
    """Print the weights that were converted and those that were left out."""
    parts = Counter(name.split('.')[0] for name in imported.weights)
    numbers = sum(value.numel() for value in imported.weights.values())
    print(f'{args.source}: {imported.origin.name} -> {args.to}, {numbers:,} numbers')
    for part, count in parts.items():
        print(f'  {part}: {count} weights')
    for place, names in (('mmslip', imported.left_out), (args.to, unwritten)):
        if names:
            print(f'Left out, since {place} has no place for it ({len(names)} weights):')
            print(*(f'  {name}' for name in sorted(names)), sep='\n')
    images, rounding = imported.spec.preprocessing, FORMATS[args.to].rounding
    if rounding not in (None, images.rounding) and images.is_plain():
        print(
            f'The centre crop of {args.to} rounds half a pixel {_WAYS[rounding]}, the evaluation '
            f'of this model {_WAYS[images.rounding]}: a pixel apart where 3, 7, 11 ... are cut '
            f'off. mmslip.ResizeCenterCrop(rounding={rounding!r}) evaluates as {args.to} does.'
        )
    print(f'Written: {", ".join(sorted(map(str, args.folder.iterdir())))}')


@plain_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    imported = import_weights(
        args.source, args.origin, args.config, args.activation, args.image_size
    )
    unwritten = export_weights(imported, args.folder, args.to, args.pth)
    report(imported, unwritten, args)
