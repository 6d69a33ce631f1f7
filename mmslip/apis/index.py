"""Embeddings of a folder's images on disk: kept up to date, and searched."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from mmslip.datasets.io.folder import list_images
from mmslip.utils import FileLock, whole_file

__all__ = ['ImageIndex', 'Record', 'folder_of', 'was_moved']

_FORMAT, _VERSION = 'mmslip.ImageIndex', 1
_META, _LOCK, _GRAPH = 'meta.json', 'lock', 'graph.usearch'
# What reading a damaged block raises.
_DAMAGE = (ValueError, OSError, KeyError, TypeError, EOFError, BadZipFile)
# From here on an approximate search pays, if it can be had; an exact one takes milliseconds below.
_MANY = 200_000
# Images compared at a time: 64 queries by this many similarities are 16 MB.
_BLOCK = 2**16


class Record(NamedTuple):
    """An image as it was when it was embedded."""

    name: str  # path relative to the folder
    size: int  # bytes
    mtime: int  # nanoseconds
    key: int  # of the content: the first eight bytes of its SHA-256


class ImageIndex:
    """Embeddings of the images in a folder.

    ``block-NNNNNN.npz`` files hold records and their embeddings; each is written whole or not at
    all, so an interrupted update loses no more than the block it was at. Where two blocks have a
    record of the same name, the later one counts. ``meta.json`` says which model made them, of the
    images in which folder; a folder that was moved keeps its index, another one is refused. With
    ``usearch`` and many images, ``graph.usearch`` is a graph for approximate search, brought in
    line with the records by their keys.

    Args:
        path: Folder of the index; made by the first update.
        model: What identifies the weights and the pipeline.
        folder: The images.

    Raises:
        ValueError: The index is of another model, folder or version, or damaged.
    """

    def __init__(self, path: str | Path, model: str, folder: str | Path) -> None:
        self.path = Path(path)
        self.model = model
        self.folder = Path(folder)
        self.moved_from: Path | None = None  # where the images lay at the last update
        self._check()
        self._read()

    def __len__(self) -> int:
        return len(self.records)

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Keep other processes from changing the index, and take note of what they changed.

        Raises:
            RuntimeError: Another process is at it.
        """
        with FileLock(self.path / _LOCK, f'updating {self.path}'):
            self._check()
            if self.moved_from or not (self.path / _META).is_file():
                meta = dict(format=_FORMAT, version=_VERSION, model=self.model)
                meta['folder'] = str(self.folder.resolve())
                with whole_file(self.path / _META) as part:
                    part.write_text(json.dumps(meta) + '\n', encoding='utf-8')
            self._read()
            yield

    def compare(self) -> tuple[list[str], list[str]]:
        """Names of images that are new or have another size or time, and of those that are gone.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: It has no image, or none of those of the index: it is another folder.
        """
        seen, folder = {}, self.folder
        for name in list_images(folder):
            status = (folder / name).stat()
            seen[name] = status.st_size, status.st_mtime_ns
        known = {record.name: (record.size, record.mtime) for record in self.records}
        if known and known.keys().isdisjoint(seen):
            raise ValueError(
                f'None of the {len(known):,} images of the index {self.path} is in {folder}: it '
                'belongs to another folder. Name a new index, or delete this one.'
            )
        if not seen:
            raise ValueError(f'{folder} holds no image.')
        changed = [name for name, status in seen.items() if known.get(name) != status]
        return changed, sorted(known.keys() - seen.keys())

    def known(self) -> dict[int, int]:
        """A row of each content, by its key."""
        return {record.key: row for row, record in enumerate(self.records)}

    def add(self, records: Sequence[Record], embeddings: np.ndarray) -> None:
        """Write a block; :meth:`finish` takes note of it.

        Args:
            records: N images, new or in the place of those of the same name.
            embeddings: ``(N, D)`` float32, unit rows.
        """
        self._write(max(self._numbers(), default=-1) + 1, records, embeddings)

    def finish(self, gone: Collection[str]) -> None:
        """End an update: drop images by name, and what later blocks have in another version."""
        outdated = self._read()
        doomed = np.array([record.name in gone for record in self.records], bool)
        for number in {*outdated, *self._block[doomed].tolist()}:
            rows = np.flatnonzero((self._block == number) & ~doomed)
            self._write(number, [self.records[row] for row in rows], self.embeddings[rows])
        if doomed.any():
            self._read()

    def search(
        self, queries: Tensor, topk: int, approximate: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """The closest images.

        Args:
            queries: ``(Q, D)`` float32, unit rows.
            topk: Images of each; all where there are fewer.
            approximate: Use ``usearch``; by default where it is installed and there are many
                images. An exact search compares with every image.

        Returns:
            Cosines ``(Q, k)``, falling, and rows of ``records`` ``(Q, k)``.

        Raises:
            ImportError: ``approximate`` is asked for without ``usearch``.
            ValueError: The index is empty.
        """
        if not self.records:
            raise ValueError(f'The index {self.path} is empty.')
        if approximate is None:
            approximate = len(self) >= _MANY and _usearch() is not None
        embeddings = torch.from_numpy(self.embeddings)
        topk = min(topk, len(self))
        if approximate:
            return self._search_graph(queries, embeddings, topk)
        score, row = queries.new_empty(len(queries), 0), torch.empty(len(queries), 0).long()
        for start in range(0, len(self), _BLOCK):
            block = queries @ embeddings[start : start + _BLOCK].T  # (Q, n)
            rows = torch.arange(start, start + block.shape[1]).expand(len(queries), -1)
            score, row = torch.cat([score, block], dim=1), torch.cat([row, rows], dim=1)
            score, order = score.topk(min(topk, score.shape[1]))
            row = row.gather(1, order)
        return score, row

    def _search_graph(
        self, queries: Tensor, embeddings: Tensor, topk: int
    ) -> tuple[Tensor, Tensor]:
        graph = self._graph()
        rows_of: dict[int, list[int]] = {}
        for row, record in enumerate(self.records):
            rows_of.setdefault(record.key, []).append(row)
        found = graph.search(queries.numpy(), topk)
        scores, places = [], []
        for query, keys in zip(queries, np.atleast_2d(found.keys), strict=True):
            rows = torch.tensor([row for key in keys.tolist() for row in rows_of[key]])
            score, order = (embeddings[rows] @ query).topk(topk)  # as exact as the others
            scores.append(score)
            places.append(rows[order])
        return torch.stack(scores), torch.stack(places)

    def _graph(self) -> object:
        """The graph on disk, brought in line with the records."""
        usearch = _usearch()
        if usearch is None:
            raise ImportError("An approximate search needs usearch: pip install 'mmslip[search]'.")
        path = self.path / _GRAPH
        # A wider search than usearch's default, 64: it still visits a fraction of the images.
        graph = usearch.Index(
            ndim=self.embeddings.shape[1], metric='ip', dtype='f32', expansion_search=256
        )
        if path.is_file():
            graph.load(str(path))
        keys = np.array([record.key for record in self.records], np.uint64)
        stored = np.array(graph.keys, np.uint64)
        gone = np.setdiff1d(stored, keys)
        new, rows = np.unique(keys, return_index=True)
        fresh = ~np.isin(new, stored)
        if len(gone):
            graph.remove(gone)
        if fresh.any():
            graph.add(new[fresh], self.embeddings[rows[fresh]])
        if len(gone) or fresh.any():
            with whole_file(path) as part:
                graph.save(str(part))
        return graph

    def _check(self) -> None:
        file = self.path / _META
        if not file.is_file():
            if self.path.is_dir() and any(self.path.iterdir()) and not self._is_unborn():
                raise ValueError(f'{self.path} is no index: name a new folder for it.')
            return
        try:
            meta = json.loads(file.read_bytes())
            kind = meta['format'], meta['version']
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{file} is damaged ({error}): delete the index.') from error
        if kind != (_FORMAT, _VERSION):
            raise ValueError(f'{file} is of another version: delete the index, or name a new one.')
        before = folder_of(self.path)
        if before and self.folder.is_dir() and before != self.folder.resolve():
            if not was_moved(self.path, self.folder):
                raise ValueError(
                    f'The index {self.path} belongs to another folder, {before}, not to '
                    f'{self.folder}: name a new index.'
                )
            self.moved_from = before
        if meta['model'] != self.model:
            raise ValueError(
                f'The index {self.path} was made with other weights or another pipeline, whose '
                'embeddings cannot be compared with those of this model: name a new index, or '
                'delete this one.'
            )

    def _is_unborn(self) -> bool:
        """Whether an update was interrupted before there was anything."""
        return all(path.name == _LOCK or path.name[0] == '.' for path in self.path.iterdir())

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem.partition('-')[2]) for path in self.path.glob('block-*.npz'))

    def _file(self, number: int) -> Path:
        return self.path / f'block-{number:06d}.npz'

    def _write(self, number: int, records: Sequence[Record], embeddings: np.ndarray) -> None:
        # JSON inside the archive: a list of texts as an array would take the longest for each.
        text = json.dumps(records).encode()  # ASCII: names of files need not be UTF-8
        with whole_file(self._file(number)) as part:
            np.savez(part, records=np.frombuffer(text, np.uint8), embeddings=embeddings)

    def _read(self) -> list[int]:
        """Read all blocks, later ones first; returns those with records that later ones have."""
        records: list[Record] = []
        parts, numbers, outdated, seen = [], [], [], set()
        for number in reversed(self._numbers()):
            try:
                with np.load(self._file(number), allow_pickle=False) as file:
                    listed = _records_of(file)
                    embeddings = file['embeddings']
            except _DAMAGE as error:
                raise ValueError(
                    f'{self._file(number)} is damaged ({error}): delete it, and the next update '
                    'makes it again.'
                ) from error
            kept = [row for row, record in enumerate(listed) if record.name not in seen]
            if len(kept) < len(listed):
                outdated.append(number)
            seen.update(record.name for record in listed)
            records += [listed[row] for row in kept]
            parts.append(embeddings[kept])
            numbers += [number] * len(kept)
        self.records = records
        self.embeddings = np.concatenate(parts) if records else np.zeros((0, 0), np.float32)
        self._block = np.array(numbers, np.int64)
        return outdated


def folder_of(index: Path) -> Path | None:
    """The folder of images that an index says it is of; None where it does not."""
    try:
        return Path(json.loads((index / _META).read_bytes())['folder'])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def was_moved(index: Path, folder: Path) -> bool:
    """Whether the folder of an index is gone, and half of its images or more are in this one."""
    before = folder_of(index)
    if before is None or before.is_dir():
        return False
    records: dict[str, Record] = {}
    for path in sorted(index.glob('block-*.npz')):
        try:
            with np.load(path, allow_pickle=False) as file:
                records |= {record.name: record for record in _records_of(file)}
        except _DAMAGE:
            return False
    found = 0
    for record in records.values():
        try:
            found += (folder / record.name).stat().st_size == record.size
        except OSError:
            continue
    return 2 * found >= len(records) > 0


def _records_of(block: Mapping[str, np.ndarray]) -> list[Record]:
    return [Record(*row) for row in json.loads(block['records'].tobytes())]


def _usearch() -> object | None:
    try:
        from usearch import index
    except ImportError:
        return None
    return index
