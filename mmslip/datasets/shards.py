"""Images and captions packed into tar shards, as WebDataset and img2dataset write them."""

import gzip
import io
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from logging import WARNING
from pathlib import Path

from mmengine.logging import print_log

from mmslip.datasets.base import CaptionedDataset
from mmslip.datasets.io.captions import as_list
from mmslip.datasets.io.contents import check_bytes
from mmslip.datasets.io.faults import BadSampleError
from mmslip.datasets.io.patterns import expand_patterns
from mmslip.datasets.io.tar_sample import (
    TEXT_MEMBERS,
    caption_fields,
    files_of,
    is_part,
    list_members,
    open_tar,
    read_label,
    require_image,
    split_name,
)
from mmslip.registry import DATASETS

__all__ = ['ShardDataset']


@DATASETS.register_module()
class ShardDataset(CaptionedDataset):
    """Tar shards, read at random.

    A sample is the members whose names are equal up to the first dot behind the last folder: an
    image, a ``.txt`` (one caption) or ``.json`` (captions under ``caption_keys``), and a ``.cls``
    (number of a class, read where every sample has one; a warning counts those without if some
    have). A suffix that comes again begins another sample of the same name, as in archives that
    were put together from several. The headers of all shards are read once to
    index them, so samples are shuffled over all shards and every rank reads its exact part, which a
    stream cannot offer. Plain ``.tar`` stays on disk; ``.tar.gz`` is unpacked into memory, for
    small sets. Members of other kinds are passed over; a line of the log counts them.

    Args:
        shards: Paths, with ``*`` and ``{000..127}`` as in a shell; relative to ``data_root``.
        data_root: Folder that ``shards`` are relative to.
        caption_keys: Keys of captions in the ``.json`` member; values are texts or lists of texts.
        caption_members: Where captions are looked for: the first of these members that has one is
            taken. ``'txt'`` alone leaves out the ``.json``.
        **kwargs: Arguments of :class:`CaptionedDataset` (``captions`` above all) and of mmengine's
            ``BaseDataset``.

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
        caption_members: str | Sequence[str] = TEXT_MEMBERS,
        **kwargs: object,
    ) -> None:
        self.caption_keys = as_list(caption_keys)
        self.caption_members = list_members(caption_members)
        self.shards = expand_patterns(shards, data_root, 'shards')
        self._unpacked: dict[int, bytes] = {}
        # File descriptors by shard: positioned reads share no file offset, so workers may inherit
        # them.
        self._descriptors: dict[int, int] = {}
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Index the members of all shards."""
        passed: Counter[str] = Counter()
        records = []
        for number, path in enumerate(self.shards):
            try:
                samples = self._index(number, path, passed)
            except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(
                    f'{path} is damaged ({error}): copy or make it again, or leave it out of '
                    '`shards`.'
                ) from error
            if not samples:
                kinds = f' (only {", ".join(sorted(passed))})' if passed else ''
                raise ValueError(
                    f'{path} has no samples{kinds}: leave it out of `shards`. The name of a member '
                    'is split at its first dot: 1.jpg and 1.txt make a sample.'
                )
            records += [dict(shard=number, stem=stem, members=members) for stem, members in samples]
        if passed:
            kinds = ', '.join(f'{number:,} {kind}' for kind, number in passed.most_common(10))
            print_log(f'{self.shards[0]} ...: members passed over: {kinds}.', logger='current')
        self._labelled = self._have_labels(records)
        self._compare_members(records[0])
        return records

    def _have_labels(self, records: list[dict]) -> bool:
        """Whether all samples have a label, since no batch can mix both; said if only some do."""
        bare = [record for record in records if 'cls' not in record['members']]
        if bare and len(bare) < len(records):
            print_log(
                f'{len(bare):,} of {len(records):,} samples have no .cls, such as '
                f'{self.shards[bare[0]["shard"]]}:{bare[0]["stem"]}: so no label is read. Add '
                'those, or leave the samples out, if labels are wanted.',
                logger='current',
                level=WARNING,
            )
        return not bare

    def _compare_members(self, record: dict) -> None:
        """Say so where captions stand in two members and differ."""
        both = [member for member in self.caption_members if member in record['members']]
        if self.captions == 'ignored' or len(both) < 2:
            return

        def read(member: str) -> bytes:
            return self.read_member(record, member)

        name = self.name_of(record)
        with suppress(BadSampleError):  # whoever visits it is told
            first, second = (
                caption_fields([member], read, [member], self.caption_keys, name, 'optional')
                for member in both
            )
            if first and second and first != second:
                print_log(
                    f'{name} has other captions in .{both[0]} than in .{both[1]}: those in '
                    f'.{both[0]} are read. `caption_members` of the data set chooses.',
                    logger='current',
                    level=WARNING,
                )

    def _index(
        self, number: int, path: Path, passed: Counter[str]
    ) -> list[tuple[str, dict[str, tuple[int, int]]]]:
        """Key of every sample of a shard, and offset and size of its members by suffix."""
        if path.suffix in ('.gz', '.tgz'):
            self._unpacked[number] = gzip.decompress(path.read_bytes())
            source = dict(fileobj=io.BytesIO(self._unpacked[number]))
        else:
            source = dict(name=path)
        samples: list[tuple[str, dict[str, tuple[int, int]]]] = []
        latest: dict[str, dict[str, tuple[int, int]]] = {}  # sample of each key
        with open_tar('r:', **source) as archive:
            for member in files_of(archive):
                key, suffix = split_name(member.name) or ('', 'hidden or without suffix')
                if not is_part(suffix):
                    passed[suffix] += 1
                    continue
                if key not in latest or suffix in latest[key]:
                    latest[key] = {}
                    samples.append((key, latest[key]))
                latest[key][suffix] = member.offset_data, member.size
        usable = [(key, members) for key, members in samples if members.keys() != {'cls'}]
        if len(usable) < len(samples):
            passed['cls without image'] += len(samples) - len(usable)
        return usable

    def get_data_info(self, idx: int) -> dict:
        """Read one sample's bytes and captions."""
        record = super().get_data_info(idx)
        name = self.name_of(record)
        image = require_image(record['members'], name)
        return dict(
            self.fields_of(record, name),
            img_bytes=self.read_member(record, image),
            img_name=name,
            sample_idx=record['sample_idx'],
        )

    def name_of(self, record: dict) -> str:
        """What a sample, an entry of :meth:`load_data_list`, is called: its shard and its stem."""
        return f'{self.shards[record["shard"]]}:{record["stem"]}'

    def fields_of(self, record: dict, name: str) -> dict:
        """Pipeline fields of a sample beside its image: captions and label."""

        def read(member: str) -> bytes:
            return self.read_member(record, member)

        keys, members = self.caption_keys, self.caption_members
        fields = caption_fields(record['members'], read, members, keys, name, self.captions)
        if self._labelled:
            fields['gt_label'] = read_label(read('cls'), name)
        return fields

    def read_member(self, record: dict, suffix: str) -> bytes:
        """Content of a member of a sample, an entry of :meth:`load_data_list`."""
        shard, (offset, size) = record['shard'], record['members'][suffix]
        if shard in self._unpacked:
            return self._unpacked[shard][offset : offset + size]
        check_bytes(size, f'{self.shards[shard]}:{record["stem"]}.{suffix}')
        if shard not in self._descriptors:
            self._descriptors[shard] = os.open(self.shards[shard], os.O_RDONLY)
        return os.pread(self._descriptors[shard], size, offset)

    def __getstate__(self) -> dict:
        """Without descriptors, which mean nothing in a spawned worker."""
        return dict(super().__getstate__(), _descriptors={})
