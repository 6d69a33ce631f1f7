"""Embeddings of many images, into files."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import Compose

from mmslip.apis.base import SLIPInferencer, load, progress, read_image
from mmslip.apis.sources import open_source
from mmslip.utils import whole_file

__all__ = ['EmbeddingInferencer']

_JOB, _BAD = 'job.json', 'bad_images.jsonl'


class EmbeddingInferencer(SLIPInferencer):
    """Embed a folder, a table or shards of images into Parquet or NumPy files.

    The images are cut into blocks, in order, and each block becomes one part:
    ``part-000000.parquet`` with the columns ``image`` and ``embedding``, or ``part-000000.npy``
    ``(n, D)`` with the names of the images in ``part-000000.jsonl``. A part is there when it is
    whole, so a call that was interrupted is repeated and goes on at the block where it stopped.
    Images that cannot be read are left out and listed in ``bad_images.jsonl``.

    Args:
        model: A model, the path of a config file, a config, or a name of
            :func:`mmslip.list_models`.
        pretrained: Checkpoint file.
        device: Defaults to the GPU where there is one.

    Example:
        >>> inferencer = EmbeddingInferencer('my_slip.py', 'epoch_25.pth')
        >>> inferencer('shards/{000..012}.tar', 'embeddings')
        {'images': 129998, 'bad': 2, 'parts': 13}
    """

    def __call__(
        self,
        inputs: Any,
        out_dir: str | Path,
        file_format: str = 'parquet',
        feature: str | None = None,
        image_root: str | Path = '',
        block_size: int = 10_000,
        batch_size: int = 32,
        num_workers: int = 0,
        image_key: str | None = None,
    ) -> dict[str, int]:
        """Embed.

        Args:
            inputs: A folder, table, shards, list of files or data set, as for
                :func:`mmslip.apis.sources.open_source`.
            out_dir: Folder of the parts.
            file_format: ``'parquet'`` or ``'npy'``.
            feature: ``'image_feat'`` or ``'backbone_feat'``, as for :meth:`embed`.
            image_root: Folder that the paths in a table are relative to, see the same.
            block_size: Images of a part: what an interruption loses at most.
            batch_size: Images of one pass.
            num_workers: Processes that read images.
            image_key: Column of images of a table or Parquet files, likewise.

        Returns:
            How many ``images`` were embedded, how many are ``bad``, and the number of ``parts``.

        Raises:
            FileNotFoundError: There is no such input.
            ImportError: Parquet is asked for without ``pyarrow``.
            ValueError: The folder has the parts of another job, or the input holds no image.
        """
        if file_format not in _WRITERS:
            raise ValueError(f"The format must be 'parquet' or 'npy', not {file_format!r}.")
        if block_size < 1:
            raise ValueError(f'A part has one image or more (block_size), not {block_size}.')
        if feature == 'image_feat':
            self.require_text()
        if file_format == 'parquet':
            _pyarrow()  # before an hour of work
        source, folder = open_source(inputs, image_root, image_key), Path(out_dir)
        job = dict(
            model=self.identity(),
            feature=feature,
            format=file_format,
            block_size=block_size,
            images=len(source),
            source=_identity_of(source),
        )
        _enter(folder, job)
        starts = range(0, len(source), block_size)
        with progress() as bar:
            task = bar.add_task('embed', total=len(source))
            for number, start in enumerate(starts):
                places = range(start, min(start + block_size, len(source)))
                part = folder / f'part-{number:06d}.{file_format}'
                if not part.is_file():
                    read = partial(_read_item, self.pipeline, source)
                    batches = load(places, read, batch_size, num_workers)
                    names, feats, bad = self._embed_block(batches, feature)
                    _list_bad(folder, number, bad)
                    _WRITERS[file_format](part, names, self._stack(feats, feature))
                bar.update(task, advance=len(places))
        bad = len(_read_lines(folder / _BAD))
        return dict(images=len(source) - bad, bad=bad, parts=len(starts))

    def _embed_block(
        self, batches: Iterable[list], feature: str | None
    ) -> tuple[list[str], list[np.ndarray], list[tuple[str, str]]]:
        """Names and embeddings of readable images, and what is wrong with the others."""
        names, feats, bad = [], [], []
        for batch in batches:
            found = self.embed([sample for _, sample in batch], feature)
            for (name, _), feat in zip(batch, found, strict=True):
                if isinstance(feat, Exception):
                    bad.append((name, str(feat)))
                else:
                    names.append(name)
                    feats.append(feat.numpy())
        return names, feats, bad

    def _stack(self, feats: list[np.ndarray], feature: str | None) -> np.ndarray:
        """``(n, D)``, also where a block has no image that can be read."""
        if feats:
            return np.stack(feats)
        grey = read_image(self.pipeline, np.full((64, 64, 3), 128, np.uint8))
        return np.zeros((0, len(self.embed([grey], feature)[0])), np.float32)

    def postprocess(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: results go to files, block by block."""


def _read_item(pipeline: Compose, source: Any, place: int) -> tuple[str, dict | Exception]:
    """Name and packed sample of an image, or the reason why there is none."""
    try:
        info = source.get_data_info(place)
    except Exception as error:  # a sample of a shard can be damaged in many ways
        return f'sample {place}', error
    name = str(info.get('img_name') or info.get('img_path') or f'sample {place}')
    return name, read_image(pipeline, info)


def _identity_of(source: Any) -> str:
    """SHA-256 of the names of images spread over a source: enough to tell another from this one."""
    digest = hashlib.sha256()
    for place in np.linspace(0, len(source) - 1, min(len(source), 200), dtype=int).tolist():
        name, _ = _read_item(lambda info: info, source, place)
        digest.update(name.encode(errors='surrogatepass'))
    return digest.hexdigest()


def _enter(folder: Path, job: dict[str, Any]) -> None:
    """Take over an output folder, or go on with it.

    Raises:
        ValueError: It has the parts of another job, or something else.
    """
    file = folder / _JOB
    if file.is_file():
        other = json.loads(file.read_bytes())
        odd = [key for key in job if other.get(key) != job[key]]
        if odd:
            raise ValueError(
                f'{folder} has the parts of another job, of other {", ".join(odd)}: name a new '
                'folder, or delete this one.'
            )
    elif any(path.name[0] != '.' for path in folder.glob('*')):
        raise ValueError(f'{folder} is not empty: name a new folder for the embeddings.')
    else:
        with whole_file(file) as part:
            part.write_text(json.dumps(job) + '\n', encoding='utf-8')


def _list_bad(folder: Path, number: int, bad: list[tuple[str, str]]) -> None:
    """Write the list with the bad images of one more part, once even if the part comes anew."""
    lines = [line for line in _read_lines(folder / _BAD) if line['part'] < number]
    lines += [dict(image=name, error=error, part=number) for name, error in bad]
    if lines:
        _write_lines(folder / _BAD, lines)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def _write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    # In ASCII: names of files need not be UTF-8.
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    with whole_file(path) as part:
        part.write_text(text, encoding='utf-8')


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "Parquet files need pyarrow: pip install 'mmslip[parquet]', or ask for npy files."
        ) from error
    return pyarrow


def _write_parquet(path: Path, names: list[str], embeddings: np.ndarray) -> None:
    pyarrow = _pyarrow()
    rows = pyarrow.FixedSizeListArray.from_arrays(embeddings.ravel(), embeddings.shape[1])
    # Columns of text are UTF-8, which names of files need not be.
    names = [name.encode(errors='backslashreplace').decode() for name in names]
    table = pyarrow.table(dict(image=pyarrow.array(names, pyarrow.string()), embedding=rows))
    with whole_file(path) as part:
        pyarrow.parquet.write_table(table, part)


def _write_npy(path: Path, names: list[str], embeddings: np.ndarray) -> None:
    # The names first: where the embeddings are, the part counts as whole.
    _write_lines(path.with_suffix('.jsonl'), [dict(image=name) for name in names])
    with whole_file(path) as part:
        np.save(part, embeddings)


_WRITERS = dict(parquet=_write_parquet, npy=_write_npy)
