"""Samples of a data set packed into tar shards, which ``mmslip.ShardDataset`` reads."""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from PIL import Image

from mmslip.datasets.base import CaptionedDataset, check_captions
from mmslip.datasets.io.contents import check_bytes, read_file
from mmslip.datasets.io.decode import UndecodableError
from mmslip.datasets.io.folder import IMAGE_SUFFIXES, is_image
from mmslip.datasets.io.shrink import shrink
from mmslip.datasets.shards import ShardDataset
from mmslip.utils import whole_file

__all__ = ['Packed', 'pack']

_SHRUNK = 'shrunk.json'


@dataclass
class Packed:
    """What :func:`pack` has made.

    Attributes:
        samples: Their number.
        shards: The files.
        undecodable: Samples that could not be made smaller, and were packed as they are.
        bytes_before: Size of the images of the shards that this call wrote.
        bytes_after: The same as written.
    """

    samples: int
    shards: list[Path]
    undecodable: list[str]
    bytes_before: int = 0
    bytes_after: int = 0


def pack(
    dataset: CaptionedDataset,
    out: Path,
    samples_per_shard: int = 10_000,
    short_side: int | None = None,
    quality: int = 90,
    rows: Sequence[int] | None = None,
    advance: Callable[[int], object] = lambda number: None,
) -> Packed:
    """Write the shards that are not there yet.

    Images are packed as they are, or made smaller by :func:`mmslip.datasets.io.shrink.shrink`, in
    the order of the data set: the same input gives the same bytes. A shard gets its name when it is
    whole, so a call that was interrupted is repeated and goes on where it stopped. At the end all
    shards are opened and counted.

    Args:
        dataset: Read by ``get_data_info``.
        out: Folder of the shards; made if necessary.
        samples_per_shard: Their number.
        short_side: Of images that are larger; None leaves all as they are.
        quality: Of the smaller ones, as JPEG.
        rows: The samples that are packed; all by default.
        advance: Called with the number of samples that are done.

    Raises:
        ValueError: An image is missing, empty, or of no known suffix; or the folder has shards of
            other samples or sizes.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = range(len(dataset)) if rows is None else rows
    starts = range(0, len(rows), samples_per_shard)
    paths = [out / f'{shard:05d}.tar' for shard in range(len(starts))]
    for path in sorted(out.glob('*.tar')):
        if path not in paths:
            raise ValueError(
                f'{path} is none of the {len(paths)} shards of this run: remove it, or choose '
                'another folder.'
            )
    settings = _settings(out, short_side, quality)
    done = Packed(len(rows), paths, [])
    for path, start in zip(paths, starts, strict=True):
        part = rows[start : start + samples_per_shard]
        samples = [_Sample(dataset, row, number) for number, row in enumerate(part, start)]
        if path.exists():
            _check_kept(path, samples, settings and settings['sources'].get(path.name, ''))
            advance(len(samples))
        else:
            partial = _write(path, samples, short_side, quality, advance, done)
            if settings:
                settings['sources'][path.name] = _digest_of(samples)
                _save(out, settings)
            os.replace(partial, path)
    found = len(ShardDataset([str(path.absolute()) for path in paths], captions='optional'))
    if found != len(rows):
        raise ValueError(f'{out} holds {found} samples instead of {len(rows)}: write it again.')
    return done


class _Sample:
    """One sample: its image, read when it is asked for, and its text."""

    def __init__(self, dataset: CaptionedDataset, row: int, number: int) -> None:
        info = dataset.get_data_info(row)
        check_captions(info, row, dataset.captions)
        self.number, captions = number, info.get('text', [])
        self.name = info.get('img_name') or info['img_path']
        self.path = None if 'img_bytes' in info else Path(info['img_path'])
        if self.path is None:  # in a shard or a table; not held
            self.read = lambda: dataset.get_data_info(row)['img_bytes']
            self.size, self.suffix = len(info['img_bytes']), _suffix_of(info['img_bytes'])
        else:
            self.read = lambda: read_file(self.path, str(self.path))
            self.size = self.path.stat().st_size if self.path.is_file() else 0
            self.suffix = self.path.suffix.lower()
            if not is_image(self.name):
                raise ValueError(
                    f'{self.name} (pair {row}) must end in {", ".join(IMAGE_SUFFIXES)}.'
                )
        if not self.size:
            raise ValueError(
                f'{self.name} (pair {row}) is missing or empty: restore it, or remove its caption.'
            )
        check_bytes(self.size, str(self.name))
        self.text: tuple[str, bytes] | None = None  # suffix and content
        if len(captions) == 1:
            self.text = '.txt', captions[0].encode()
        elif captions:
            self.text = '.json', json.dumps(dict(caption=captions), ensure_ascii=False).encode()

    def members(self, image: bytes | None, suffix: str) -> Iterator[tuple[str, int, bytes | None]]:
        """Name, size and content of its members; the image's may be unknown."""
        size = self.size if image is None else len(image)
        yield f'{self.number:09d}{suffix}', size, image
        if self.text:
            yield f'{self.number:09d}{self.text[0]}', len(self.text[1]), self.text[1]


def _suffix_of(content: bytes) -> str:
    """Suffix of an image's format; one of a JPEG for what is unknown."""
    with suppress(Exception), Image.open(io.BytesIO(content)) as image:
        suffix = f'.{image.format.lower()}'
        if suffix in IMAGE_SUFFIXES and suffix != '.jpeg':
            return suffix
    return '.jpg'


def _write(
    path: Path,
    samples: Sequence[_Sample],
    short_side: int | None,
    quality: int,
    advance: Callable[[int], object],
    done: Packed,
) -> Path:
    """Write a shard under another name, which is returned."""

    def image_of(sample: _Sample) -> tuple[bytes, str, str]:
        content = sample.read()
        if short_side is None:
            return content, sample.suffix, ''
        try:
            smaller = shrink(content, short_side, quality)
        except UndecodableError as error:  # training will say what becomes of it
            return content, sample.suffix, f'{sample.name} ({error})'
        return smaller, sample.suffix if smaller is content else '.jpg', ''

    partial = path.with_suffix('.tar.partial')
    # Decoders and encoders run beside each other: they let go of Python's lock.
    with (
        tarfile.open(partial, 'w', format=tarfile.USTAR_FORMAT) as archive,
        ThreadPoolExecutor(os.cpu_count()) as threads,
    ):
        for sample, (image, suffix, fault) in zip(
            samples, threads.map(image_of, samples), strict=True
        ):
            for name, size, content in sample.members(image, suffix):
                info = tarfile.TarInfo(name)  # time and owner stay zero, for equal bytes
                info.size = size
                archive.addfile(info, io.BytesIO(content))
            if fault:
                done.undecodable.append(fault)
            done.bytes_before += sample.size
            done.bytes_after += len(image)
            advance(1)
    return partial


def _digest_of(samples: Sequence[_Sample]) -> str:
    """Digest of what a shard of smaller images is made of: names and sizes of images, and texts."""
    parts = [(str(sample.name), sample.size, sample.text) for sample in samples]
    return blake2b(repr(parts).encode(errors='surrogateescape'), digest_size=16).hexdigest()


def _check_kept(path: Path, samples: Sequence[_Sample], source: str | None) -> None:
    """Make sure that a shard of an earlier run is what this run would write.

    Args:
        path: The shard.
        samples: What it should hold.
        source: Digest of what smaller images in it were made of; None for images as they are.
    """
    try:
        with tarfile.open(path, 'r:') as archive:
            held = [(member.name, member.size) for member in archive]
    except tarfile.TarError:
        held = []
    wanted = [
        (name, size) for sample in samples for name, size, _ in sample.members(None, sample.suffix)
    ]
    if (held != wanted) if source is None else (source != _digest_of(samples)):
        raise ValueError(
            f'{path} is there already, with other content than this run would write: remove it, '
            'use the same arguments as before, or choose another folder.'
        )


def _settings(out: Path, short_side: int | None, quality: int) -> dict[str, Any] | None:
    """How images are made smaller, and what was made so far; None for images as they are."""
    path = out / _SHRUNK
    held = json.loads(path.read_text()) if path.is_file() else None
    wanted = dict(short_side=short_side, quality=quality) if short_side else None
    if held and wanted and held.items() >= wanted.items():
        return held
    if any(out.glob('*.tar')) and (held or wanted):
        raise ValueError(
            f'{out} has shards already, {_told(held)}, and this run would write them '
            f'{_told(wanted)}: remove them, or choose another folder.'
        )
    path.unlink(missing_ok=True)
    return dict(wanted, sources={}) if wanted else None


def _save(out: Path, settings: dict[str, Any]) -> None:
    with whole_file(out / _SHRUNK) as part:
        part.write_text(json.dumps(settings) + '\n')


def _told(settings: dict | None) -> str:
    if settings is None:
        return 'with images as they are'
    return 'with short side {short_side} and quality {quality}'.format(**settings)
