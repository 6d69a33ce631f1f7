"""The ``mmslip`` command: ``mmslip COMMAND ...``, or ``python -m mmslip COMMAND ...``.

A command is the module of that name in this folder, with a ``main(arguments)``. Only the one asked
for is imported: PyTorch and mmpretrain take seconds.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module, metadata

from mmslip.cli.errors import plain_errors
from mmslip.cli.parser import CommandParser
from mmslip.cli.screen import quiet_libraries
from mmslip.version import __version__

__all__ = ['COMMANDS', 'main']

quiet_libraries()  # before a command imports them

COMMANDS = {
    'init': 'write an experiment for image-text pairs of your own',
    'doctor': 'check data, config, speed and memory before training',
    'browse': 'draw samples as the model will see them',
    'train': 'train a model',
    'test': 'evaluate a checkpoint',
    'interpolate': 'weigh what an adaptation gains against what it forgets',
    'report': 'show runs side by side on one HTML page',
    'classify': 'name images with labels of your own',
    'search': 'search a folder of images by words or by an image',
    'embed': 'embed a folder, a table or shards of images',
    'web': 'classify and search in the browser',
    'convert': 'convert weights between mmslip and other libraries',
    'push': 'upload a converted folder to a model hub',
    'export': 'export both towers to ONNX or torch.export',
}


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        '',
        usage='%(prog)s [--debug] COMMAND ...',
        description='SLIP, CLIP and SimCLR: train, evaluate, use.',
        epilog='commands:\n'
        + ''.join(f'  {name:12}{text}\n' for name, text in COMMANDS.items())
        + '\n`mmslip COMMAND --help` says more.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='store_true', help='show versions and exit')
    parser.add_argument('command', nargs='?', help=argparse.SUPPRESS)
    parser.add_argument('arguments', nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.version:
        print(_versions())
        parser.exit()
    if args.command is None:
        parser.print_help()
        parser.exit()
    if args.command not in COMMANDS:
        like = get_close_matches(args.command, COMMANDS, n=1)
        meant = f'is {like[0]} meant?' if like else f'there are {", ".join(COMMANDS)}.'
        parser.error(f'no command {args.command}: {meant}')
    return args


def _versions() -> str:
    """Of mmslip and of what it stands on, for reports of faults."""
    others = ('torch', 'mmengine', 'mmpretrain')
    return (
        f'mmslip {__version__} ({", ".join(f"{name} {metadata.version(name)}" for name in others)})'
    )


@plain_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command of a command line, by default that of this process."""
    args = parse_args(arguments)
    # As with `python -m`, for modules that a config imports; last, so that no file there takes the
    # place of a package.
    if not {'', os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    import_module(f'mmslip.cli.{args.command}').main(args.arguments)
