"""Pairs packed into tar shards, as WebDataset and img2dataset write them."""

import gzip
import io
import json
import os
import tarfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from mmslip.datasets.annotations import expand_patterns
from mmslip.datasets.base import CaptionedDataset
from mmslip.datasets.faults import BadSampleError
from mmslip.registry import DATASETS

__all__ = ['ShardDataset']

_IMAGE_SUFFIXES = ('jpg', 'jpeg', 'png', 'webp', 'bmp')


@DATASETS.register_module()
class ShardDataset(CaptionedDataset):
    """Tar shards, read at random.

    A sample is the members of equal stem: one image and a ``.txt`` (one caption) or ``.json``
    (captions under ``caption_keys``). The headers of all shards are read once to index them, so
    samples are shuffled over all shards and every rank reads its exact part, which a stream cannot
    offer. Plain ``.tar`` stays on disk; ``.tar.gz`` is unpacked into memory, for small sets.

    Args:
        shards: Paths, with ``*`` and ``{000..127}`` as in a shell; relative to ``data_root``.
        data_root: Folder that ``shards`` are relative to.
        caption_keys: Keys of captions in the ``.json`` member; values are texts or lists of texts.
        **kwargs: Arguments of mmengine's ``BaseDataset``, ``pipeline`` above all.

    Raises:
        FileNotFoundError: A pattern matches no file.
        ValueError: A shard is damaged or empty; the message names it.
        BadSampleError: At the visit: a sample lacks its image or its caption.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        data_root: str = '',
        caption_keys: str | Sequence[str] = 'caption',
        **kwargs: object,
    ) -> None:
        self.caption_keys = [caption_keys] if isinstance(caption_keys, str) else list(caption_keys)
        self.shards = expand_patterns(shards, data_root, 'shards')
        self._unpacked: dict[int, bytes] = {}
        # File descriptors by shard: positioned reads share no file offset, so workers may inherit
        # them.
        self._descriptors: dict[int, int] = {}
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Index the members of all shards."""
        records = []
        for number, path in enumerate(self.shards):
            try:
                members = self._index(number, path)
            except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(
                    f'{path} is damaged ({error}): copy or make it again, or leave it out of '
                    '`shards`.'
                ) from error
            if not members:
                raise ValueError(f'{path} has no samples: leave it out of `shards`.')
            records += [self._record(number, stem, parts) for stem, parts in members.items()]
        return records

    def _index(self, number: int, path: Path) -> dict[str, dict[str, tuple[int, int]]]:
        """Offset and size of every file of a shard, by stem and suffix."""
        if path.suffix == '.gz':
            self._unpacked[number] = gzip.decompress(path.read_bytes())
            source = dict(fileobj=io.BytesIO(self._unpacked[number]))
        else:
            source = dict(name=path)
        members: dict[str, dict[str, tuple[int, int]]] = {}
        with tarfile.open(mode='r:', **source) as archive:
            for member in archive:
                if member.isfile():
                    stem, _, suffix = member.name.rpartition('.')
                    members.setdefault(stem, {})[suffix.lower()] = member.offset_data, member.size
            # tarfile ends quietly at a broken header; a whole archive ends with a block of zeros.
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f'it breaks off at byte {archive.offset}')
        return members

    def _record(self, shard: int, stem: str, parts: dict[str, tuple[int, int]]) -> dict:
        try:
            image, text = choose_members(parts, f'{self.shards[shard]}: sample {stem}')
        except ValueError as error:  # one sample among many; who visits it is told
            return dict(shard=shard, stem=stem, fault=str(error))
        return dict(
            shard=shard, stem=stem, image=parts[image], text=parts[text], is_json=text == 'json'
        )

    def get_data_info(self, idx: int) -> dict:
        """Read one sample's bytes and captions."""
        record = super().get_data_info(idx)
        if 'fault' in record:
            raise BadSampleError(record['fault'])
        shard, name = record['shard'], f'{self.shards[record["shard"]]}:{record["stem"]}'
        content = read_content(self._read(shard, *record['text']), record['is_json'], name)
        return dict(
            self.parse_content(content, name),
            img_bytes=self._read(shard, *record['image']),
            img_name=name,
            sample_idx=record['sample_idx'],
        )

    def parse_content(self, content: str | dict, name: str) -> dict:
        """Make pipeline fields of a sample's text member; ``text`` is required."""
        return dict(text=parse_captions(content, self.caption_keys, name))

    def _read(self, shard: int, offset: int, size: int) -> bytes:
        if shard in self._unpacked:
            return self._unpacked[shard][offset : offset + size]
        if shard not in self._descriptors:
            self._descriptors[shard] = os.open(self.shards[shard], os.O_RDONLY)
        return os.pread(self._descriptors[shard], size, offset)

    def __getstate__(self) -> dict:
        """Without descriptors, which mean nothing in a spawned worker."""
        return dict(self.__dict__, _descriptors={})


def choose_members(suffixes: Collection[str], where: str) -> tuple[str, str]:
    """Suffixes of the image and of the text among those of a sample's members.

    Raises:
        ValueError: One of them is not there; the message starts with ``where``.
    """
    image = next((suffix for suffix in _IMAGE_SUFFIXES if suffix in suffixes), None)
    text = next((suffix for suffix in ('json', 'txt') if suffix in suffixes), None)
    if image is None or text is None:
        lacks = 'image' if image is None else 'caption (.json or .txt)'
        raise ValueError(
            f'{where} has {", ".join(sorted(suffixes))} but no {lacks}. Samples are members of '
            'equal name before the last dot.'
        )
    return image, text


def read_content(text: bytes, is_json: bool, name: str) -> Any:
    """Value of a sample's text member."""
    try:
        return json.loads(text) if is_json else text.decode('utf-8')
    except ValueError as error:
        raise ValueError(f'The caption of {name} cannot be read: {error}.') from error


def parse_captions(content: Any, keys: Sequence[str], name: str) -> str | list[str]:
    """Captions in the value of a text member: a text itself, or those under ``keys``.

    Raises:
        ValueError: There are none, or they are no texts; the message names the sample.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, dict):
        raise ValueError(f'The caption of {name} must be a JSON object, not {content!r:.60}.')
    captions = []
    for key in keys:
        value = content.get(key) or []
        value = value if isinstance(value, list) else [value]
        if not all(isinstance(caption, str) for caption in value):
            raise ValueError(f'The caption {key!r} of {name} must be text or texts: {value}.')
        captions += [caption.strip() for caption in value if caption.strip()]
    if not captions:
        raise ValueError(
            f'{name} has no caption under {", ".join(keys)}; its keys are {", ".join(content)}. '
            'Set `caption_keys` of the data set.'
        )
    return captions
