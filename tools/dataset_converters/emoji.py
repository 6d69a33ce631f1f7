"""Turn the open emoji drawings of six vendors into an image-text data set.

The drawings come from the iconify npm packages, the names, groups and tags from `emojibase-data`.
One vendor (Fluent) is kept out of training, which tests whether a learned concept is recognised in
a style never seen; about a tenth of the concepts is kept out for all vendors, which tests names
never seen. The output is a set of WebDataset shards:

    python tools/dataset_converters/emoji.py --npm-dir npm --out mmslip/datasets/data/emoji

Packages missing from `--npm-dir` are fetched with `npm pack`. Needs `resvg-py`.
"""

import argparse
import gzip
import hashlib
import io
import json
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import resvg_py
from emoji_concepts import concept_key
from emoji_sources import (
    VENDORS,
    VERSIONS,
    Emoji,
    fetch_packages,
    load_emoji,
    match_icons,
    name_tables,
    read_json,
)
from PIL import Image
from rich.progress import track

HELD_OUT_VENDOR = 'fluent'
# Share of the hash range; with the pinned packages it holds a tenth of the concepts.
HELD_OUT_FRACTION = 0.08
# Larger families (hearts, arrows, clock faces) always train: one would fill the held-out split.
MAX_HELD_OUT_NAMES = 8
TRAIN_SHARDS = 4
SIZE = 64
COLORS = 128
MIN_INK = 0.01


@dataclass
class Sample:
    """One drawing of one emoji.

    Attributes:
        vendor: Key of `VENDORS`.
        emoji: What is drawn.
        pixels: The picture as stored, uint8 of (64, 64, 3).
        image: The same as an encoded file.
    """

    vendor: str
    emoji: Emoji
    pixels: bytes
    image: bytes


def svg_of(icons: dict, name: str) -> str:
    """Build the SVG of an icon; resvg centres it in the square."""
    icon = icons['icons'][name]
    box = f'0 0 {icon.get("width", icons["width"])} {icon.get("height", icons["height"])}'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{2 * SIZE}" height="{2 * SIZE}" viewBox="{box}">{icon["body"]}</svg>'
    )


def draw(svg: str) -> Image.Image:
    """Rasterise an SVG on white, centred in a square of `SIZE` pixels.

    Averaging blocks of 2 x 2 pixels smooths edges better than the renderer alone; Lanczos would
    overshoot at edges, which shows as halos and nearly doubles the file. Merging similar colours
    down to `COLORS` saves a quarter of the file and costs what no eye can tell.
    """
    png = resvg_py.svg_to_bytes(
        svg_string=svg,
        background='#ffffff',
        width=2 * SIZE,
        height=2 * SIZE,
        skip_system_fonts=True,
    )
    image = Image.open(io.BytesIO(bytes(png))).convert('RGB').resize((SIZE, SIZE), Image.BOX)
    reduced = image.quantize(COLORS, Image.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
    return reduced.convert('RGB')


def encode(image: Image.Image) -> bytes:
    """Encode as lossless WebP, a fifth smaller here than a palette PNG."""
    buffer = io.BytesIO()
    image.save(buffer, 'WEBP', lossless=True, quality=50, method=6)
    return buffer.getvalue()


def draw_vendor(
    vendor: str, icons: dict, matched: dict[str, str], emoji: dict[str, Emoji]
) -> tuple[list[Sample], int]:
    """Draw all emoji of a vendor; the second result counts the (almost) blank ones left out."""
    samples, blank = [], 0
    for codepoint, name in track(sorted(matched.items()), vendor):
        image = draw(svg_of(icons, name))
        pixels = np.asarray(image)
        if (pixels < 250).any(axis=2).mean() < MIN_INK:
            blank += 1
            continue
        samples.append(Sample(vendor, emoji[codepoint], pixels.tobytes(), encode(image)))
    return samples, blank


def choose_held_out(samples: list[Sample]) -> set[str]:
    """Choose the concepts kept out of training, by a hash that is the same on every machine."""
    names, drawn = defaultdict(set), set()
    for sample in samples:
        key = concept_key(sample.emoji.name)
        names[key].add(sample.emoji.name)
        if sample.vendor == HELD_OUT_VENDOR:
            drawn.add(key)
    return {
        key
        for key in drawn
        if len(names[key]) <= MAX_HELD_OUT_NAMES
        and int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) < HELD_OUT_FRACTION * 2**32
    }


def split_samples(
    samples: list[Sample], held_out: set[str]
) -> tuple[dict[str, list[Sample]], Counter]:
    """Assign the samples to `train`, `val` and `concepts`.

    Args:
        samples: All drawings.
        held_out: Keys of the held-out concepts.

    Returns:
        The samples of each split, and for which reason how many were left out.
    """
    splits = {'train': [], 'val': [], 'concepts': []}
    for sample in samples:
        if concept_key(sample.emoji.name) in held_out:
            splits['concepts'].append(sample)
        else:
            splits['val' if sample.vendor == HELD_OUT_VENDOR else 'train'].append(sample)
    noto = {(s.emoji.codepoint, s.pixels) for s in samples if s.vendor == 'noto'}
    tested = {s.pixels for split in ('val', 'concepts') for s in splits[split]}
    uses = Counter((s.vendor, s.pixels) for s in samples)
    left_out = Counter({'noto-v1 equals noto': 0, 'tested picture': 0, 'ambiguous': 0})
    for split, members in splits.items():
        splits[split] = kept = []
        for sample in members:
            if sample.vendor == 'noto-v1' and (sample.emoji.codepoint, sample.pixels) in noto:
                left_out['noto-v1 equals noto'] += 1
            elif split == 'train' and sample.pixels in tested:
                left_out['tested picture'] += 1
            elif split != 'train' and uses[sample.vendor, sample.pixels] > 1:
                # a vendor draws two emoji the same, so neither name is the right answer
                left_out['ambiguous'] += 1
            else:
                kept.append(sample)
    return splits, left_out


def describe(sample: Sample) -> dict:
    """Build the JSON of a sample.

    The captions are the name, and the name with tags. Tags of a training emoji may mention a
    held-out concept, as any text may: only its drawings and its names are held out.
    """
    emoji = sample.emoji
    new = [tag for tag in emoji.tags if tag not in emoji.name]
    captions = [emoji.name]
    if new:
        captions.append(f'{emoji.name}: {", ".join(new[:3])}')
    if len(new) > 3:
        captions.append(f'{emoji.name} ({", ".join(new[3:6])})')
    return {
        'captions': captions,
        'name': emoji.name,
        'label': emoji.name,
        'tags': emoji.tags,
        'vendor': sample.vendor,
        'codepoint': emoji.codepoint,
        'group': emoji.group,
        'subgroup': emoji.subgroup,
    }


def write_shard(path: Path, samples: Iterable[Sample]) -> None:
    """Write a WebDataset shard, the same bytes every time."""
    with (
        path.open('wb') as file,
        gzip.GzipFile('', 'wb', 9, file, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode='w', format=tarfile.USTAR_FORMAT) as archive,
    ):
        for sample in samples:
            text = json.dumps(describe(sample), ensure_ascii=False).encode()
            for suffix, data in (('webp', sample.image), ('json', text)):
                info = tarfile.TarInfo(f'{sample.vendor}_{sample.emoji.codepoint}.{suffix}')
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def write_dataset(out: Path, splits: dict[str, list[Sample]]) -> dict:
    """Write all shards and the class lists; return what `metadata.json` tells of the splits."""
    out.mkdir(parents=True, exist_ok=True)
    report, classes = {}, {}
    for split, samples in splits.items():
        # readers shuffle within a window only, so mix the vendors and groups here
        samples = sorted(
            samples,
            key=lambda s: hashlib.sha256(f'{s.vendor}_{s.emoji.codepoint}'.encode()).digest(),
        )
        count = TRAIN_SHARDS if split == 'train' else 1
        files = [
            f'{split}-{i:03d}.tar.gz' if count > 1 else f'{split}.tar.gz' for i in range(count)
        ]
        for index, file in enumerate(files):
            write_shard(out / file, samples[index::count])
        vendors = Counter(s.vendor for s in samples)
        names = sorted({s.emoji.name for s in samples})
        report[split] = {
            'shards': files,
            'samples': len(samples),
            'names': len(names),
            'vendors': {v: vendors[v] for v in VENDORS if vendors[v]},
        }
        classes[split] = names
    classes['subgroup'] = sorted({s.emoji.subgroup for part in splits.values() for s in part})
    (out / 'classes.json').write_text(dump(classes), encoding='utf-8')
    return report


def dump(value: dict) -> str:
    """Format JSON for reading."""
    return json.dumps(value, indent=1, ensure_ascii=False) + '\n'


def main() -> None:
    """Run the converter."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--npm-dir', type=Path, required=True, help='folder of the npm packages')
    parser.add_argument('--out', type=Path, required=True, help='folder to write to')
    args = parser.parse_args()
    fetch_packages(args.npm_dir, VERSIONS)
    emoji = load_emoji(args.npm_dir)
    tables = name_tables(args.npm_dir, emoji)
    samples, sources = [], {}
    for vendor, package in VENDORS.items():
        matched, unmatched = match_icons(args.npm_dir, package, emoji, tables)
        icons = read_json(args.npm_dir, package, 'icons.json')
        drawn, blank = draw_vendor(vendor, icons, matched, emoji)
        samples += drawn
        sources[vendor] = {'package': package, 'unmatched': len(unmatched), 'blank': blank}
        print(f'{vendor}: {len(drawn)} drawn, {blank} blank, {len(unmatched)} without an emoji')
        print(' ', ', '.join(unmatched[:20]), '...' if len(unmatched) > 20 else '')
    held_out = choose_held_out(samples)
    splits, left_out = split_samples(samples, held_out)
    metadata = {
        'command': 'python tools/dataset_converters/emoji.py --npm-dir npm '
        '--out mmslip/datasets/data/emoji',
        'versions': VERSIONS,
        'sources': sources,
        'left_out': dict(left_out),
        'held_out_concepts': len(held_out),
        'splits': write_dataset(args.out, splits),
    }
    (args.out / 'metadata.json').write_text(dump(metadata), encoding='utf-8')
    print(dump(metadata))


if __name__ == '__main__':
    main()
