"""Search of a folder's images by words or by an image."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor

from mmslip.apis.base import Image, SLIPInferencer, load, progress, read_image
from mmslip.apis.index import ImageIndex, Record
from mmslip.evaluation import embed_texts
from mmslip.models import SLIP

__all__ = ['ImageRetrievalInferencer', 'IndexChanges']

# Images of a block of the index: what an interrupted update loses at most.
_BLOCK = 1024


@dataclass
class IndexChanges:
    """Changes that an update made to an index."""

    embedded: int = 0
    reused: int = 0  # moved, copied or touched: their content was known
    removed: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)  # reason by name


class ImageRetrievalInferencer(SLIPInferencer):
    """Find the images of a folder that are closest to words or to another image.

    The embeddings of the folder are kept in an index on disk, which is brought up to date: images
    that are new or whose content changed are embedded, those that are gone dropped; one that was
    moved or touched is recognised by its content. The index belongs to the weights and the pipeline
    that made it.

    Args:
        model: A model, the path of a config file, a config, or a name of
            :func:`mmslip.list_models`.
        folder: The images, with those in folders below.
        index: Folder of the index.
        pretrained: Checkpoint file.
        device: Defaults to the GPU where there is one.
        batch_size: Images of one pass.
        num_workers: Processes that read images.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no image, or the index belongs to another model or folder.
        RuntimeError: Another process is updating the index.

    Example:
        >>> inferencer = ImageRetrievalInferencer('my_slip.py', 'photos', 'index', 'last.pth')
        >>> inferencer(texts=['a red chair'], topk=3)[0]['hits'][0]['image']
        'living room/12.jpg'
    """

    def __init__(
        self,
        model: SLIP | Config | str | Path,
        folder: str | Path,
        index: str | Path,
        pretrained: str | Path | None = None,
        device: str | torch.device | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        super().__init__(model, pretrained, device)
        self.folder = Path(folder)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.index = ImageIndex(index, self.identity(), self.folder)
        self.changes = self.update()

    def update(self) -> IndexChanges:
        """Bring the index in line with the folder."""
        with self.index.updating():
            changes = IndexChanges()
            names, gone = self.index.compare()
            changes.removed = len(gone)
            known = self.index.known()
            with progress() as bar:
                task = bar.add_task('index', total=len(names), visible=bool(names))
                for start in range(0, len(names), _BLOCK):
                    block = names[start : start + _BLOCK]
                    embedded = [*self._embed_files(block, known, changes)]
                    if embedded:
                        records, feats = zip(*embedded, strict=True)
                        self.index.add(records, np.stack(feats))
                    bar.update(task, advance=len(block))
            self.index.finish({*gone, *changes.unreadable})
        return changes

    def _embed_files(
        self, names: Sequence[str], known: dict[int, int], changes: IndexChanges
    ) -> Iterator[tuple[Record, np.ndarray]]:
        """Record and embedding of every file that can be read."""
        read = partial(_read_file, self.pipeline, self.folder, frozenset(known))
        for batch in load(names, read, self.batch_size, self.num_workers):
            fresh = [sample for _, sample in batch if sample is not None]
            feats = iter(self.embed(fresh))
            for record, sample in batch:
                feat = next(feats) if sample is not None else None
                if isinstance(feat, Exception):
                    changes.unreadable[record.name] = str(feat)
                elif feat is None:
                    changes.reused += 1
                    yield record, self.index.embeddings[known[record.key]]
                else:
                    changes.embedded += 1
                    yield record, feat.numpy()

    def __call__(
        self,
        texts: str | Sequence[str] = (),
        images: Image | Sequence[Image] = (),
        topk: int = 8,
        approximate: bool | None = None,
    ) -> list[dict[str, Any]]:
        """Search.

        Args:
            texts: Words to search for, one or several.
            images: Image files, folders or arrays (BGR uint8 ``(H, W, 3)``) to search for.
            topk: Images of each result.
            approximate: Search by a graph, see :meth:`mmslip.apis.index.ImageIndex.search`.

        Returns:
            For each query, texts first, ``query`` (the text, or the path of the image) and
            ``hits``: ``image`` (relative to the folder) and ``score`` (cosine), the closest first.
            For a query that cannot be read, ``query`` and ``error``.

        Raises:
            FileNotFoundError: There is no such image.
            ValueError: A text is empty, or the model has no text tower.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        names = self._inputs_to_list(images)
        found: list[Tensor | Exception] = [*self.embed_texts(texts)] if texts else []
        for batch in self.preprocess(names, self.batch_size):
            found += self.embed(batch)
        feats = [feat for feat in found if isinstance(feat, Tensor)]
        hits = iter(self._hits(torch.stack(feats), topk, approximate) if feats else ())
        queries = [*texts, *(name if isinstance(name, str) else 'image' for name in names)]
        return [
            dict(query=query, hits=next(hits))
            if isinstance(feat, Tensor)
            else dict(query=query, error=str(feat))
            for query, feat in zip(queries, found, strict=True)
        ]

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings ``(n, D)`` of texts, unit rows, on the CPU."""
        self.require_text()
        if not all(text.strip() for text in texts):
            raise ValueError('A text to search for is empty.')
        return embed_texts(self.model, self.tokenizer(list(texts))).cpu()

    def _hits(self, feats: Tensor, topk: int, approximate: bool | None) -> list[list[dict]]:
        scores, rows = self.index.search(feats, topk, approximate)
        return [
            [
                dict(image=self.index.records[row].name, score=score)
                for row, score in zip(*pair, strict=True)
            ]
            for pair in zip(rows.tolist(), scores.tolist(), strict=True)
        ]

    def postprocess(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: a search is no pass over the inputs alone."""


def _read_file(
    pipeline: Compose, folder: Path, known: Collection[int], name: str
) -> tuple[Record, dict | Exception | None]:
    """Record and packed sample of a file; None in its place where the content is known."""
    path = folder / name
    try:
        status, content = path.stat(), path.read_bytes()
    except OSError as error:
        return Record(name, 0, 0, 0), error
    key = int.from_bytes(hashlib.sha256(content).digest()[:8], 'big')
    record = Record(name, status.st_size, status.st_mtime_ns, key)
    if key in known:
        return record, None
    return record, read_image(pipeline, dict(img_bytes=content, img_name=str(path)))
