r"""Pack a folder of images and captions into tar shards, which `mmslip.ShardDataset` reads.

Captions lie beside the images (`a/1.jpg`, `a/1.txt`), or in a JSONL, CSV or TSV file as
`mmslip.ImageTextDataset` reads it:

    python tools/dataset_converters/folder_to_shards.py data/mine/images data/mine/shards
    python tools/dataset_converters/folder_to_shards.py data/mine/images data/mine/shards \
        --captions data/mine/train.jsonl --samples-per-shard 5000

Images are packed as they are, in the order of the table or of their sorted paths: the same input
gives the same bytes. A shard gets its name when it is whole, so an interrupted run is started again
and goes on where it stopped. At the end all shards are opened and counted.
"""

import argparse
import io
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from mmslip.datasets import ImageTextDataset, ShardDataset

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp')


@dataclass
class Sample:
    """An image file and its captions; none yet where a text file holds them."""

    image: Path
    captions: list[str]

    def text_member(self) -> tuple[str, bytes]:
        """Suffix and content of the caption as `ShardDataset` expects it."""
        captions = self.captions
        if not captions:
            path = self.image.with_suffix('.txt')
            try:
                captions = [path.read_text(encoding='utf-8').strip()]
            except UnicodeDecodeError as error:
                raise ValueError(f'{path} is not UTF-8 ({error}): convert it.') from error
            if not captions[0]:
                raise ValueError(f'{path} is empty: fill it in, or remove it and its image.')
        if len(captions) == 1:
            return '.txt', captions[0].encode()
        return '.json', json.dumps(dict(caption=captions), ensure_ascii=False).encode()


def samples_of_folder(folder: Path) -> list[Sample]:
    """All images in a folder and below it, each with a text file beside it."""
    images = sorted(path for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES)
    if not images:
        raise ValueError(f'{folder} holds no image ({", ".join(SUFFIXES)}).')
    bare = [path for path in images if not path.with_suffix('.txt').is_file()]
    if bare:
        raise ValueError(
            f'{len(bare)} of {len(images)} images have no caption beside them; there is no '
            f'{bare[0].with_suffix(".txt")}, for example. Add it, or name a table with --captions.'
        )
    return [Sample(path, []) for path in images]


def samples_of_table(
    folder: Path, table: Path, image_key: str, caption_keys: Sequence[str]
) -> list[Sample]:
    """All rows of a table."""
    rows = ImageTextDataset(
        str(table.absolute()),
        data_prefix=dict(img_path=str(folder)),
        image_key=image_key,
        caption_keys=caption_keys,
    )
    infos = (rows.get_data_info(index) for index in range(len(rows)))
    samples = [Sample(Path(info['img_path']), info['text']) for info in infos]
    for row, sample in enumerate(samples):
        if sample.image.suffix.lower() not in SUFFIXES:
            raise ValueError(
                f'{table}: {sample.image} (pair {row}) must end in {", ".join(SUFFIXES)}.'
            )
    return samples


def members(samples: Sequence[Sample], first: int) -> list[tuple[str, int, Path | bytes]]:
    """Name, size and source of the members of a shard whose first sample has number `first`."""
    listed: list[tuple[str, int, Path | bytes]] = []
    for number, sample in enumerate(samples, first):
        if not sample.image.is_file() or not sample.image.stat().st_size:
            raise ValueError(
                f'{sample.image} (pair {number}) is missing or empty: restore it, or remove its '
                'caption.'
            )
        suffix, text = sample.text_member()
        size = sample.image.stat().st_size
        listed.append((f'{number:09d}{sample.image.suffix.lower()}', size, sample.image))
        listed.append((f'{number:09d}{suffix}', len(text), text))
    return listed


def write_shard(path: Path, listed: Sequence[tuple[str, int, Path | bytes]]) -> None:
    """Write a shard under another name, and rename it when it is whole."""
    partial = path.with_suffix('.tar.partial')
    with tarfile.open(partial, 'w', format=tarfile.USTAR_FORMAT) as archive:
        for name, _, source in listed:
            content = source if isinstance(source, bytes) else source.read_bytes()
            info = tarfile.TarInfo(name)  # time and owner stay zero, for equal bytes
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    os.replace(partial, path)


def check_kept(path: Path, listed: Sequence[tuple[str, int, Path | bytes]]) -> None:
    """Make sure that a shard of an earlier run is what this run would write."""
    try:
        with tarfile.open(path, 'r:') as archive:
            held = [(member.name, member.size) for member in archive]
    except tarfile.TarError:
        held = []
    if held != [(name, size) for name, size, _ in listed]:
        raise ValueError(
            f'{path} is there already, with other content than this run would write: remove it, '
            'use the same arguments as before, or choose another folder.'
        )


def convert(samples: Sequence[Sample], out: Path, samples_per_shard: int) -> int:
    """Write the shards that are not there yet; returns how many there are in all."""
    out.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(samples), samples_per_shard)
    paths = [out / f'{shard:05d}.tar' for shard in range(len(starts))]
    for path in sorted(out.glob('*.tar')):
        if path not in paths:
            raise ValueError(
                f'{path} is none of the {len(paths)} shards of this run: remove it, or choose '
                'another folder.'
            )
    with Progress() as progress:
        task = progress.add_task(out.name, total=len(samples))
        for path, start in zip(paths, starts, strict=True):
            part = samples[start : start + samples_per_shard]
            listed = members(part, start)
            if path.exists():
                check_kept(path, listed)
            else:
                write_shard(path, listed)
            progress.advance(task, len(part))
    found = len(ShardDataset([path.name for path in paths], data_root=str(out)))
    if found != len(samples):
        raise ValueError(f'{out} holds {found} samples instead of {len(samples)}: write it again.')
    return len(paths)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the converter."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('folder', type=Path, help='folder of the images')
    parser.add_argument('out', type=Path, help='folder of the shards')
    parser.add_argument('--captions', type=Path, help='.jsonl, .csv or .tsv file of the pairs')
    parser.add_argument('--image-key', default='image', help='column of the image path')
    parser.add_argument(
        '--caption-keys', nargs='+', default=['caption'], help='columns of captions'
    )
    parser.add_argument('--samples-per-shard', type=int, default=10_000)
    args = parser.parse_args(arguments)
    if args.samples_per_shard < 1:
        parser.error('--samples-per-shard must be at least 1')
    try:
        if args.captions:
            samples = samples_of_table(
                args.folder, args.captions, args.image_key, args.caption_keys
            )
        else:
            samples = samples_of_folder(args.folder)
        shards = convert(samples, args.out, args.samples_per_shard)
    except (OSError, ValueError) as error:
        raise SystemExit(f'{error}') from error
    print(f'{args.out}: {len(samples):,} samples in {shards:,} shards')


if __name__ == '__main__':
    main()
