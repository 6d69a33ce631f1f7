r"""Pack a folder of images and captions into tar shards, which `mmslip.ShardDataset` reads.

Captions lie beside the images (`a/1.jpg`, `a/1.txt`), or in a file that `mmslip.ImageTextDataset`
reads (JSONL, CSV, TSV, ...):

    python tools/dataset_converters/folder_to_shards.py data/mine/images data/mine/shards
    python tools/dataset_converters/folder_to_shards.py data/mine/images data/mine/shards \
        --captions data/mine/train.jsonl --samples-per-shard 5000 --short-side 320

With `--bare`, images without a caption are packed, too. Images are packed as they are, or, with
`--short-side N`, larger ones are made smaller and stored as JPEG of `--quality` (default 90),
upright; none is enlarged. The order is that of the table or of the sorted paths: the same input
gives the same bytes. A shard gets its name when it is whole, so an interrupted run is started again
and goes on where it stopped. At the end all shards are opened and counted.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from mmslip.datasets import FolderDataset, ImageTextDataset
from mmslip.datasets.shard_writer import pack


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the converter."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('folder', type=Path, help='folder of the images')
    parser.add_argument('out', type=Path, help='folder of the shards')
    parser.add_argument('--captions', type=Path, help='file of the pairs, such as a .jsonl or .csv')
    parser.add_argument('--image-key', default='image', help='column of the image path')
    parser.add_argument(
        '--caption-keys', nargs='+', default=['caption'], help='columns of captions'
    )
    parser.add_argument('--bare', action='store_true', help='take images without a caption, too')
    parser.add_argument('--samples-per-shard', type=int, default=10_000)
    parser.add_argument(
        '--short-side', type=int, help='make the short side of larger images so many pixels'
    )
    parser.add_argument('--quality', type=int, default=90, help='of smaller images, as JPEG')
    args = parser.parse_args(arguments)
    for name, least, most in (
        ('samples_per_shard', 1, 10**9),
        ('short_side', 16, 10**5),
        ('quality', 1, 95),
    ):
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            option = f'--{name.replace("_", "-")}'
            parser.error(f'{option} must be at least {least} and at most {most}')
    captions = 'optional' if args.bare else 'required'
    try:
        if args.captions:
            dataset = ImageTextDataset(
                str(args.captions.absolute()),
                data_prefix=dict(img_path=str(args.folder)),
                image_key=args.image_key,
                caption_keys=args.caption_keys,
                captions=captions,
            )
        else:
            dataset = FolderDataset(str(args.folder), captions=captions)
        with Progress() as progress:
            task = progress.add_task(args.out.name, total=len(dataset))
            done = pack(
                dataset,
                args.out,
                args.samples_per_shard,
                args.short_side,
                args.quality,
                advance=lambda number: progress.advance(task, number),
            )
    except (OSError, ValueError) as error:
        raise SystemExit(f'{error}') from error
    print(f'{args.out}: {done.samples:,} samples in {len(done.shards):,} shards')
    if args.short_side and done.bytes_before:
        print(
            f'Images: {done.bytes_before / 1e6:,.1f} MB became {done.bytes_after / 1e6:,.1f} MB, '
            f'with a short side of at most {args.short_side} pixels, JPEG quality {args.quality}'
        )
    if done.undecodable:
        print(
            f'{len(done.undecodable)} images cannot be decoded and were packed as they are, such '
            f'as {done.undecodable[0]}'
        )


if __name__ == '__main__':
    main()
