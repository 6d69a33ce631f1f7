"""A look at a data set: how much there is, of what size, in which script, and what is wrong."""

import io
import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import regex
from mmengine.dataset import BaseDataset
from PIL import Image

from mmslip.datasets import (
    CLIPTokenizer,
    FolderDataset,
    ImageTextDataset,
    ParquetDataset,
    ShardDataset,
)
from mmslip.datasets.base import CaptionedDataset
from mmslip.datasets.io.contents import read_file
from mmslip.datasets.io.decode import UndecodableError, check_image, decode_image
from mmslip.datasets.io.presence import missing_files, unlisted_images
from mmslip.datasets.io.rows import read_rows
from mmslip.datasets.io.tar_sample import require_image
from mmslip.datasets.text.vocabulary import count_words

__all__ = ['Survey', 'survey']

# Images whose header is read, and captions that are tokenised; and images that are decoded.
_SAMPLE, _DECODED = 2000, 500
# Images whose captions a vocabulary may be trained on.
_CORPUS = 100_000
# Files, above which their sizes are not asked for: on a network drive it would take an hour.
_MANY = 1_000_000
# Below, every image is compared with those of its size; above, those that are held out.
_FEW = 20_000
_MAX_PIXELS = 2**27
# Held-out images: among fewer, retrieval says nothing.
_LEAST = 8
# Names of the parts in a column `split`.
_VAL, _TEST = ('val', 'valid', 'validation', 'dev'), ('test',)
_SCRIPTS = (
    *('Latin', 'Han', 'Hiragana', 'Katakana', 'Hangul', 'Cyrillic', 'Arabic', 'Devanagari'),
    *('Greek', 'Hebrew', 'Thai', 'Bengali', 'Tamil'),
)
_LETTERS = regex.compile('|'.join(f'(?P<{name}>\\p{{Script={name}}}+)' for name in _SCRIPTS))


@dataclass
class Survey:
    """What a look at a data set has found.

    Attributes:
        rows: Samples of the data set.
        captions: Captions of all of them.
        bare: Samples without a caption, beside others that have one, that are not left out.
        held_out: Those chosen for an evaluation.
        left_out: Samples that are for neither, such as those that are broken.
        broken: Samples whose caption cannot be read, or whose image is missing, or was looked at
            and is no whole one.
        missing: Image files that are not there.
        unlisted: Images that lie beside those of the data set and are none of it.
        faulty: Samples whose caption cannot be read, or whose row cannot, and why.
        unreadable: Of the images that were looked at, those that are no whole ones, and why.
        looked: Number of images that were looked at.
        formats: Number of these by format.
        sides: Their short sides in pixels, sorted.
        copies: Samples whose image is byte for byte that of an earlier one; None where only those
            held out were compared.
        repeated: Share of the captions that another image has, too.
        distinct: Number of different captions.
        words: Median number of words of a caption.
        tokens: Lengths in tokens of captions that were looked at, sorted: of CLIP's tokeniser.
        tokens_a_word: Of CLIP's tokeniser, which has English words whole.
        corpus: Captions left to training, of many images, that a vocabulary can be trained on.
        scripts: Share of the letters by script, largest first.
        official: Whether the data set says itself which part is for what.
    """

    rows: int
    captions: int = 0
    bare: list[int] = field(default_factory=list)
    held_out: list[int] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    faulty: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    looked: int = 0
    formats: Counter = field(default_factory=Counter)
    sides: list[int] = field(default_factory=list)
    copies: int | None = 0
    repeated: float = 0.0
    distinct: int = 0
    words: float = 0.0
    tokens: list[int] = field(default_factory=list)
    tokens_a_word: float = 0.0
    corpus: list[str] = field(default_factory=list, repr=False)
    scripts: dict[str, float] = field(default_factory=dict)
    official: bool = False

    @property
    def train(self) -> int:
        """Samples with a caption that are left to training; all, where none has a caption."""
        return self.rows - len({*self.bare, *self.held_out, *self.left_out})

    def drop_broken(self) -> list[int]:
        """The samples that are not broken; from here on, these are all, and numbered anew."""
        broken = set(self.broken)
        kept = [row for row in range(self.rows) if row not in broken]
        number = {row: new for new, row in enumerate(kept)}
        for name in ('bare', 'held_out', 'left_out'):
            rows = getattr(self, name)
            setattr(self, name, [number[row] for row in rows if row in number])
        self.rows, self.broken = len(kept), []
        return kept


def survey(
    dataset: CaptionedDataset,
    track: Callable[[Sequence, str], Iterator] = lambda items, name: iter(items),
) -> Survey:
    """Look at a data set, and choose the samples that an evaluation keeps.

    Held out are samples with a caption whose image is byte for byte no other's, and of which no two
    have a caption in common: a tenth, at most 1,000, and none where there are fewer than eight; or,
    where the table has a column ``split``, its validation part (the test part, if there is none). A
    test part is left out of training. A sample is chosen by what it is, not by its place.

    Args:
        dataset: Built with ``captions='optional'``, or ``'ignored'`` where there are none.
        track: Shows the progress over some items, under a name.
    """
    found = Survey(len(dataset))
    rows = _Rows(dataset)
    texts = rows.read_captions(found, track)
    _look_at_images(rows, found, track)
    if not found.captions:
        found.bare = []
    bare = found.bare
    usable = np.ones(found.rows, bool)
    usable[[*found.left_out, *found.bare]] = False
    if found.captions:
        _describe_captions(texts, found)
        parts = _official_parts(dataset)
        if parts:
            _leave_to_official(parts, usable, found)
    rows.find_copies(found, usable, texts, track)
    found.bare = sorted(set(bare) - set(found.left_out))
    apart = {*found.held_out, *found.left_out}
    found.corpus = [text for row, text in texts.corpus if row not in apart]
    return found


class _Captions:
    """The captions of all rows as digests, and some of them as they are."""

    def __init__(self) -> None:
        self.digests, self.owners = array('q'), array('q')
        self.kept: list[str] = []
        self.corpus: list[tuple[int, str]] = []

    def add(self, row: int, captions: list[str]) -> None:
        for text in captions:
            digest = blake2b(text.encode(), digest_size=8).digest()
            self.digests.append(int.from_bytes(digest, 'big', signed=True))
            self.owners.append(row)

    def by_row(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Digests in the order of their rows, and where each row begins, ``(rows + 1,)``."""
        counts = np.bincount(np.asarray(self.owners), minlength=rows)
        return np.asarray(self.digests), np.concatenate([[0], counts.cumsum()])


class _Rows:
    """The rows of a data set: captions without images where that can be, images one by one."""

    def __init__(self, dataset: CaptionedDataset) -> None:
        self.dataset = dataset
        self.paths: list[str] = []  # of files
        self._seen: dict[int, tuple[int, bytes]] = {}  # size and digest of Parquet's images
        self.random = np.random.default_rng(0)

    def read_captions(self, found: Survey, track: Callable) -> _Captions:
        """Go over all rows once."""
        texts = _Captions()
        order = self.random.permutation(found.rows)
        kept, corpus = set(order[:_SAMPLE].tolist()), set(order[:_CORPUS].tolist())
        for row in track(range(found.rows), 'captions'):
            try:
                captions = self._captions(row)
            except ValueError as error:
                found.faulty.append(str(error))
                found.broken.append(row)
                continue
            found.captions += len(captions)
            if not captions:
                found.bare.append(row)
            texts.add(row, captions)
            if row in kept:
                texts.kept += captions
            if row in corpus:
                texts.corpus += [(row, text) for text in captions]
        return texts

    def _captions(self, row: int) -> list[str]:
        if isinstance(self.dataset, ShardDataset):
            record = BaseDataset.get_data_info(self.dataset, row)
            require_image(record['members'], self.name(row))
            return self.dataset.fields_of(record, self.name(row)).get('text', [])
        if isinstance(self.dataset, FolderDataset):  # before its text file, which may be at fault
            self.paths.append(BaseDataset.get_data_info(self.dataset, row)['img_path'])
            return self.dataset.get_data_info(row).get('text', [])
        info = self.dataset.get_data_info(row)
        if 'img_path' in info:
            self.paths.append(info['img_path'])
        elif isinstance(self.dataset, ParquetDataset):
            content = info['img_bytes']
            self._seen[row] = len(content), _digest(content)
        return info.get('text', [])

    def name(self, row: int) -> str:
        """What an image is called in messages."""
        if self.paths:
            return self.paths[row]
        if isinstance(self.dataset, ShardDataset):
            return self.dataset.name_of(BaseDataset.get_data_info(self.dataset, row))
        return f'sample {row}'

    def image(self, row: int) -> tuple[str, bytes]:
        """Name and content of an image."""
        if self.paths:
            return self.paths[row], read_file(self.paths[row], self.paths[row])
        info = self.dataset.get_data_info(row)
        return str(info.get('img_name', row)), info['img_bytes']

    def is_whole(self, row: int) -> bool:
        """Whether an image can be decoded."""
        try:
            return not _fault_of(self.image(row)[1])
        except (OSError, ValueError):
            return False

    def _size(self, row: int) -> int:
        """Bytes of an image; -1 where that is not known without reading it."""
        if row in self._seen:
            return self._seen[row][0]
        if self.paths:
            return os.stat(self.paths[row]).st_size
        if isinstance(self.dataset, ShardDataset):
            members = BaseDataset.get_data_info(self.dataset, row)['members']
            return members[require_image(members, self.name(row))][1]
        return -1

    def _digest_of(self, row: int) -> bytes:
        return self._seen[row][1] if row in self._seen else _digest(self.image(row)[1])

    def shuffle(self, rows: Sequence[int]) -> list[int]:
        """Rows in the order of a digest of what each is: rows that come or go leave the others so.

        Thus a look at grown data holds out what was held out before, and little that a model which
        training goes on from has seen.
        """

        def digest(row: int) -> bytes:
            if row in self._seen:  # Parquet's, which know themselves by their place alone
                return self._seen[row][1]
            return _digest(self.dataset.identify(row).encode(errors='surrogatepass'))

        return sorted(rows, key=digest)

    def find_copies(
        self, found: Survey, usable: np.ndarray, texts: _Captions, track: Callable
    ) -> None:
        """Count the images that are others' copies, and hold out some that are not."""
        absent = set(found.left_out)
        number = len(found.held_out) or min(1000, max(usable.sum() // 10, 16), usable.sum() // 4)
        candidates = found.held_out or np.flatnonzero(usable).tolist()
        candidates = self.shuffle(candidates)
        too_many = len(self.paths) > _MANY
        compared = sorted(candidates[: 2 * number]) if too_many else range(found.rows)
        sizes = defaultdict(list)
        for row in track(compared, 'sizes'):
            if row not in absent:
                sizes[self._size(row)].append(row)
        all_of_them = found.rows <= _FEW or bool(self._seen)
        chosen = set(candidates[: 2 * number])
        groups = [
            group
            for group in sizes.values()
            if len(group) > 1 and (all_of_them or not chosen.isdisjoint(group))
        ]
        digests = defaultdict(list)
        for row in track([row for group in groups for row in group], 'copies'):
            digests[self._digest_of(row)].append(row)
        copied = {row for group in digests.values() if len(group) > 1 for row in group}
        found.copies = sum(len(group) - 1 for group in digests.values()) if all_of_them else None
        if found.captions:
            pool = candidates if all_of_them else candidates[: 2 * number]
            apart = [row for row in pool if row not in copied]
            chosen = _without_common_captions(apart, texts, found.rows, number)
            # An evaluation stops at an image that it cannot read.
            whole = [row for row in track(chosen, 'held out') if self.is_whole(row)]
            broken = set(chosen) - set(whole)
            found.broken += broken
            found.left_out += broken
            found.held_out = whole if len(whole) >= _LEAST else []
        if found.official:  # what is not judged of the part is no training either
            left = set(candidates) - set(found.held_out)
            found.left_out = [*found.left_out, *left]


def _without_common_captions(
    candidates: Sequence[int], texts: _Captions, rows: int, number: int
) -> list[int]:
    """Rows of which no two share a caption, those first that share it with no row at all."""
    digests, starts = texts.by_row(rows)
    values, counts = np.unique(digests, return_counts=True)
    shared = set(values[counts > 1].tolist())
    own = {row: set(digests[starts[row] : starts[row + 1]].tolist()) for row in candidates}
    taken: set[int] = set()
    chosen: list[int] = []
    for row in sorted(candidates, key=lambda row: not own[row].isdisjoint(shared)):
        if len(chosen) < number and own[row].isdisjoint(taken):
            chosen.append(row)
            taken |= own[row]
    return sorted(chosen)


def _look_at_images(rows: _Rows, found: Survey, track: Callable) -> None:
    """Leave out what is missing, and read some of what is there."""
    absent = set(missing_files(rows.paths))
    gone = [row for row, path in enumerate(rows.paths) if path in absent]
    found.missing = [rows.paths[row] for row in gone]
    if len(rows.paths) <= _MANY:
        found.unlisted = unlisted_images(rows.paths)
    left = {*found.broken, *gone}
    found.broken = sorted(left)
    some = [int(row) for row in rows.random.permutation(found.rows)[:_SAMPLE] if row not in left]
    for place, row in enumerate(track(some, 'images')):
        try:
            name, content = rows.image(row)
            with Image.open(io.BytesIO(content)) as image:
                kind, side = image.format, min(image.size)
            fault = _fault_of(content, whole=place < _DECODED)
        except Image.UnidentifiedImageError:  # whose text holds a memory address
            fault = 'its format is unknown'
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            name, fault = rows.name(row), str(error)
        if fault:
            found.unreadable.append(f'{name} ({fault})')
            found.broken.append(row)
        else:
            found.formats[kind] += 1
            found.sides.append(side)
    found.left_out = list(found.broken)
    found.looked = len(some)
    found.sides.sort()


def _fault_of(content: bytes, whole: bool = True) -> str:
    """Why an image cannot be decoded; nothing if it can, or, without decoding, seems to."""
    try:
        (decode_image if whole else check_image)(content, _MAX_PIXELS)
    except UndecodableError as error:
        return str(error)
    return ''


def _describe_captions(texts: _Captions, found: Survey) -> None:
    digests, owners = np.asarray(texts.digests), np.asarray(texts.owners)
    pairs = np.unique(np.stack([digests, owners]), axis=1)  # a caption counts once for an image
    _, first, counts = np.unique(pairs[0], return_index=True, return_counts=True)
    found.distinct = len(first)
    found.repeated = float(counts[counts > 1].sum() / counts.sum())
    tokenizer = CLIPTokenizer()
    kept = texts.kept[:_SAMPLE]
    found.tokens = sorted(len(tokenizer.encode(text)) for text in kept)
    words = [count_words(text) for text in kept]
    found.words = float(np.median(words)) if words else 0.0
    found.tokens_a_word = sum(found.tokens) / max(sum(words), 1)
    letters: Counter[str] = Counter()
    for text in kept:
        for match in _LETTERS.finditer(text):
            letters[match.lastgroup] += len(match.group())
    total = max(sum(letters.values()), 1)
    found.scripts = {name: number / total for name, number in letters.most_common()}


def _official_parts(dataset: CaptionedDataset) -> list[str]:
    """The part of every row as the column ``split`` of a table names it; none without one."""
    if not isinstance(dataset, ImageTextDataset):
        return []
    parts: dict[Any, str] = {}
    for _, row in read_rows(Path(dataset.ann_file)):
        if not isinstance(row.get('split'), str):
            return []
        parts.setdefault(row[dataset.image_key].strip(), row['split'].strip().lower())
    names = set(parts.values())
    return list(parts.values()) if names & {*_VAL, *_TEST} and len(names) > 1 else []


def _leave_to_official(parts: list[str], usable: np.ndarray, found: Survey) -> None:
    """Hold out what the data set says is for validation, and leave its test part alone."""
    judged = _VAL if any(part in _VAL for part in parts) else _TEST
    found.official = True
    found.held_out = [row for row, part in enumerate(parts) if part in judged and usable[row]]
    chosen, apart = set(found.held_out), {*_VAL, *_TEST}
    left = [row for row, part in enumerate(parts) if part in apart and row not in chosen]
    found.left_out = [*found.left_out, *left]


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()
