"""Write an experiment file for data of one's own: ``mmslip init NAME --data ...``."""

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from mmslip.analysis.experiment.machine import Machine, look_at_machine
from mmslip.analysis.experiment.plan import ARCHITECTURES, SSL, make_plan, share_of_bare
from mmslip.analysis.experiment.start import read_start
from mmslip.analysis.experiment.survey import Survey, survey
from mmslip.analysis.experiment.vocabulary import make_vocabulary
from mmslip.analysis.experiment.write import render, title_of
from mmslip.apis.base import progress
from mmslip.cli.errors import plain_errors
from mmslip.cli.parser import CommandParser, at_least
from mmslip.datasets import ParquetDataset
from mmslip.datasets.base import CaptionedDataset
from mmslip.datasets.io.split import write_split
from mmslip.datasets.recognise import recognise
from mmslip.datasets.shard_writer import pack
from mmslip.registry import DATASETS
from mmslip.utils.log import only_warnings

_QUALITY = 90
_EXAMPLES = """examples:
  mmslip init flowers --data captions.jsonl --images photos
  mmslip init flowers --data photos               a folder, with 1.txt beside 1.jpg or without
  mmslip init flowers --data 'shards/*.tar' --arch small --ssl none
  mmslip init flowers --data captions.csv --from ViT-B-32.pt --unlocked-groups 2
"""


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        'init',
        description='Look at images and captions and at this machine, and write an experiment\n'
        'file that fits both, ready to train.',
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('name', help='of the experiment; NAME.py is written')
    parser.add_argument(
        '--data',
        required=True,
        help='a table of captions (.jsonl, .json, .csv, .tsv, .txt: lists, COCO, Karpathy, '
        'Flickr8k), a folder of images, tar shards, or Parquet files',
    )
    parser.add_argument('--images', help='folder that image paths in the table are relative to')
    parser.add_argument('--image-key', metavar='COLUMN', help='column of images')
    parser.add_argument('--caption-keys', nargs='+', metavar='COLUMN', help='columns of captions')
    parser.add_argument(
        '--image-size', type=at_least(1), metavar='PIXELS', help='side of the views'
    )
    parser.add_argument(
        '--arch', choices=ARCHITECTURES, help='image tower; by default by the data and the machine'
    )
    parser.add_argument(
        '--ssl',
        choices=SSL,
        help='self-supervised half; none gives CLIP (default: simclr; none with --from)',
    )
    parser.add_argument(
        '--from',
        dest='weights',
        metavar='WEIGHTS',
        help='start from these: a file or folder of mmslip, OpenAI, open_clip, Hugging Face or the '
        'official SLIP code, or a name, such as slip_tiny_emoji',
    )
    parser.add_argument(
        '--unlocked-groups',
        type=at_least(0),
        metavar='N',
        help='with --from: of each tower, train the last N blocks alone (default: all)',
    )
    parser.add_argument(
        '--short-side',
        type=at_least(1),
        metavar='PIXELS',
        help=f'write larger images once so small (JPEG, quality {_QUALITY}) and train on those',
    )
    parser.add_argument('--force', action='store_true', help='overwrite NAME.py')
    return parser.parse_args(arguments)


@plain_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    path = _path_of(args)
    _check_sizes(args)
    machine = look_at_machine()
    if args.unlocked_groups is not None and not args.weights:
        raise ValueError('--unlocked-groups is for trained towers: name their weights by --from.')
    with only_warnings():
        start = read_start(args.weights) if args.weights else None
        config = recognise(args.data, args.images, args.image_key, args.caption_keys)
        dataset = DATASETS.build({'captions': 'optional', **config, 'pipeline': []})
        with progress() as bars:
            found = survey(dataset, track=_tracker(bars))
        # Of trained towers, most have nothing left to gain from images alone.
        ssl = args.ssl or ('none' if start and found.captions else 'simclr')
        vocabulary, about_words = None, ''
        if not (start and start.model):  # which has its own
            table = path.with_name(f'{path.stem}_merges.txt.gz')
            vocabulary, about_words = make_vocabulary(found, table)
        _show(dataset, found, machine, ssl != 'none', about_words)
        choices = args.arch, ssl, args.image_size, start, vocabulary, args.unlocked_groups
        plan = make_plan(found, machine, *choices)
        if args.short_side:
            config = _shrink(dataset, found, path, args.short_side)
            dataset = DATASETS.build({'captions': 'optional', **config, 'pipeline': []})
    if found.bare or not found.captions:
        config['captions'] = 'optional' if found.captions else 'ignored'
    elif config['type'] == 'mmslip.FolderDataset':  # which would ignore them
        config['captions'] = 'required'
    split = None
    if found.held_out or found.left_out or found.bare:
        split = path.with_name(f'{path.stem}_split.json').absolute()
        lists = dict(held_out=found.held_out, bare=found.bare, left_out=set(found.left_out))
        write_split(split, found.rows, dataset.digest_of_images(), **lists)
    text = render(path, config, found, plan, machine, split, start, vocabulary)
    path.write_text(text, encoding='utf-8')
    _say(f'{path}: {title_of(found, plan)}')
    _say(f'Next:\n  mmslip doctor {path}\n  mmslip train {path}')


def _path_of(args: argparse.Namespace) -> Path:
    path = Path(f'{args.name.removesuffix(".py")}.py')
    if not re.fullmatch(r'[\w-]+', path.stem):
        raise ValueError(f'{path.stem!r} is no name for an experiment: use letters, digits, _, -.')
    if path.exists() and not args.force:
        raise FileExistsError(f'{path} is there already: choose another name, or say --force.')
    if not path.parent.is_dir():
        raise FileNotFoundError(f'There is no folder {path.parent} to write {path.name} to.')
    return path


def _check_sizes(args: argparse.Namespace) -> None:
    size, side = args.image_size, args.short_side
    if size is not None and (size < 16 or size % 8):
        raise ValueError(f'--image-size {size}: must be a multiple of 8, and 16 at least.')
    if side is not None and side < (size or 16):
        raise ValueError(
            f'--short-side {side}: must be {size or 16} at least, as large as the views are.'
        )


def _tracker(bars: Progress) -> Callable[[Sequence, str], Iterator]:
    def track(items: Sequence, name: str) -> Iterator:
        return bars.track(items, description=f'{name:>8}')

    return track


def _shrink(dataset: CaptionedDataset, found: Survey, path: Path, side: int) -> dict[str, Any]:
    """Pack smaller images into shards beside the experiment; the config that reads them."""
    out = path.with_name(f'{path.stem}_shards').absolute()
    rows = found.drop_broken()
    with progress() as bars:
        task = bars.add_task('smaller', total=len(rows))
        done = pack(
            dataset,
            out,
            short_side=side,
            quality=_QUALITY,
            rows=rows,
            advance=lambda number: bars.advance(task, number),
        )
    if done.bytes_before:
        _say(
            f'{out}: images of {done.bytes_before / 1e6:,.1f} MB became '
            f'{done.bytes_after / 1e6:,.1f} MB (short side {side} at most, JPEG quality {_QUALITY})'
        )
    return dict(type='mmslip.ShardDataset', shards=str(out / '*.tar'))


def _show(
    dataset: CaptionedDataset, found: Survey, machine: Machine, ssl: bool, about_words: str
) -> None:
    """Print what was found, and what to know about it."""
    count = f'{found.rows:,} images'
    if found.captions:
        count += f', {found.captions:,} captions'
    _say(f'data      {count}')
    if found.sides:
        low, middle, high = (_quantile(found.sides, share) for share in (0.05, 0.5, 0.95))
        kinds = ', '.join(f'{kind} {number:,}' for kind, number in found.formats.most_common(4))
        _say(f'images    short side {low} to {high} pixels, median {middle}; {kinds}')
    if found.captions:
        middle, high = (_quantile(found.tokens, share) for share in (0.5, 0.95))
        scripts = [f'{name} {share:.0%}' for name, share in found.scripts.items() if share > 0.01]
        _say(
            f'captions  median {found.words:.0f} words, {middle} tokens; 95 % have at most {high} '
            f'tokens; letters: {", ".join(scripts) or "none"}'
        )
    for remark in filter(None, [*_remarks(found, ssl), about_words, *_slow(dataset)]):
        _say(f'note      {remark}')
    _say(f'machine   {machine}')


def _remarks(found: Survey, ssl: bool) -> Iterator[str]:
    if found.missing:
        yield (
            f'{len(found.missing):,} images are missing and left out, such as {found.missing[0]}'
        )
    if found.faulty:
        yield (
            f'{len(found.faulty):,} samples cannot be read and are left out, such as '
            f'{found.faulty[0].rstrip(".")}'
        )
    if found.unreadable:
        yield (
            f'{len(found.unreadable):,} of {found.looked:,} images cannot be read and are left '
            f'out, such as {found.unreadable[0]}'
        )
    if found.bare:
        used = ssl and share_of_bare(found)
        use = 'they train the self-supervised half' if used else 'they are left out'
        yield f'{len(found.bare):,} images have no caption: {use}'
    if found.unlisted and ssl:
        yield (
            f'{len(found.unlisted):,} images lie beside those of the table and are not in it, such '
            f'as {found.unlisted[0]}: a row without a caption makes one train the self-supervised '
            'half'
        )
    if found.copies:
        yield f'{found.copies:,} images are copies of another, byte for byte'
    if found.repeated > 0.05:
        yield (
            f'{found.repeated:.0%} of the captions belong to several images ({found.distinct:,} '
            'are different): nothing tells images of one caption apart (mmslip doctor says more)'
        )
    if found.captions and not found.held_out:
        yield 'too few images differ in image and caption to hold some out: there is no validation'
    if found.official:
        yield 'the column `split` decides what is held out; test rows are left out'


def _slow(dataset: CaptionedDataset) -> Iterator[str]:
    if isinstance(dataset, ParquetDataset) and dataset.group_size > 100:
        yield (
            f'each image takes reading a row group of {dataset.group_size:,} rows: with '
            '--short-side N the images go into shards, which are read one by one'
        )


def _quantile(values: Sequence[int], share: float) -> int:
    return values[int(share * (len(values) - 1))]


def _say(text: str) -> None:
    print(text, flush=True)
