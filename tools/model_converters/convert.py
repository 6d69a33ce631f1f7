"""Convert weights between mmslip and other libraries, without loss.

    python tools/model_converters/convert.py slip_base_25ep.pt weights/slip
    python tools/model_converters/convert.py weights/slip weights/slip_timm --to timm

The folder gets the weights as `.safetensors` and what describes the model (for mmslip,
`config.py`). What has no place on the other side is listed; where the embeddings of a tower would
depend on it, nothing is written.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmslip.models.adapters import FAMILIES, Imported, export_weights, import_weights


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, help='checkpoint, .safetensors file or folder')
    parser.add_argument('folder', type=Path, help='folder to write')
    parser.add_argument(
        '--from',
        dest='origin',
        choices=FAMILIES,
        help='where the weights come from (default: recognised by their names)',
    )
    parser.add_argument('--to', choices=FAMILIES, default='mmslip', help='default: mmslip')
    parser.add_argument(
        '--config',
        type=Path,
        help="what the weights do not tell: the family's .json, or a mmslip or mmpretrain config",
    )
    parser.add_argument(
        '--activation',
        choices=['gelu', 'quick_gelu'],
        help='of weights of open_clip that come without a .json',
    )
    parser.add_argument(
        '--image-size', type=int, help='interpolate the position embeddings to this image size'
    )
    parser.add_argument('--pth', action='store_true', help='write a model.pth as well')
    return parser.parse_args(arguments)


def report(imported: Imported, unwritten: list[str], args: argparse.Namespace) -> None:
    """Say what was converted and what was not."""
    parts = Counter(name.split('.')[0] for name in imported.weights)
    numbers = sum(value.numel() for value in imported.weights.values())
    print(f'{args.source}: {imported.family.name} -> {args.to}, {numbers:,} numbers')
    for part, count in parts.items():
        print(f'  {part}: {count} weights')
    for place, names in (('mmslip', imported.left_out), (args.to, unwritten)):
        if names:
            print(f'Left out, since {place} has no place for it ({len(names)} weights):')
            print(*(f'  {name}' for name in sorted(names)), sep='\n')
    print(f'Written: {", ".join(sorted(map(str, args.folder.iterdir())))}')


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the converter."""
    args = parse_args(arguments)
    try:
        imported = import_weights(
            args.source, args.origin, args.config, args.activation, args.image_size
        )
        unwritten = export_weights(imported, args.folder, args.to, args.pth)
    except (ModuleNotFoundError, OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f'{error}') from error
    report(imported, unwritten, args)


if __name__ == '__main__':
    main()
