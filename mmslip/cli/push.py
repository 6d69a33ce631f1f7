"""Upload a folder of weights to a model hub: ``mmslip push FOLDER REPO``; see ``--help``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmslip.cli.errors import plain_errors
from mmslip.cli.parser import CommandParser
from mmslip.weights.hub import push, states_license


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        'push',
        description='Upload a folder that `mmslip convert` has written to the Hugging Face hub, or '
        'to the one of HF_ENDPOINT. It is read back first: a folder that is not whole stays here. '
        'Needs huggingface_hub (pip install "mmslip[hub]") and a token that may write (`hf auth '
        'login`, or HF_TOKEN).',
    )
    parser.add_argument('folder', type=Path, help='folder of `mmslip convert`')
    parser.add_argument('repo', help='OWNER/NAME; is made where it does not exist')
    parser.add_argument('--private', action='store_true', help='make it visible to you alone')
    parser.add_argument('--message', default='Upload by mmslip', help='of the commit')
    return parser.parse_args(arguments)


@plain_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    print(f'Uploaded: {push(args.folder, args.repo, args.private, args.message)}')
    if not states_license(args.folder):
        print(f'{args.folder / "README.md"} states no license: write it there, and push again.')
