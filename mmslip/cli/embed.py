r"""Embed a folder, a table or shards of images into Parquet or NumPy files.

    mmslip embed CONFIG CHECKPOINT photos embeddings
    mmslip embed CONFIG CHECKPOINT 'shards/{000..012}.tar' embeddings
    mmslip embed CONFIG CHECKPOINT pairs.jsonl embeddings --images photos

An interrupted run is started again with the same command, and goes on at the block it was at.
"""

import argparse
from collections.abc import Sequence

from mmslip.apis import EmbeddingInferencer
from mmslip.cli.errors import plain_errors
from mmslip.cli.inference import add_model_arguments, add_reading_arguments
from mmslip.cli.parser import CommandParser, at_least


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser('embed', description='Embed many images.')
    add_model_arguments(parser)
    parser.add_argument(
        'input', help='folder, table (.jsonl, .csv, .tsv, caption table), shards or Parquet files'
    )
    parser.add_argument('out_dir', help='folder of the parts')
    parser.add_argument(
        '--images',
        metavar='FOLDER',
        default='',
        help='what the paths in a table are relative to (default: a usual folder beside it)',
    )
    parser.add_argument(
        '--image-key', metavar='COLUMN', help='column of the images in a table or Parquet files'
    )
    parser.add_argument('--format', choices=['parquet', 'npy'], default='parquet')
    parser.add_argument(
        '--feature',
        choices=['image_feat', 'backbone_feat'],
        help='in the joint space, or before the projection (default: the first, if there is one)',
    )
    parser.add_argument(
        '--block-size', type=at_least(1), default=10_000, help='images of a part (default: 10000)'
    )
    add_reading_arguments(parser)
    return parser.parse_args(arguments)


@plain_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    inferencer = EmbeddingInferencer(args.config, args.checkpoint, args.device)
    done = inferencer(
        args.input,
        args.out_dir,
        file_format=args.format,
        feature=args.feature,
        image_root=args.images,
        block_size=args.block_size,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        image_key=args.image_key,
    )
    bad = f'; {done["bad"]} cannot be read: {args.out_dir}/bad_images.jsonl' if done['bad'] else ''
    print(f'{args.out_dir}: {done["images"]} images in {done["parts"]} parts{bad}')
