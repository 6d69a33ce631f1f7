"""Search of a folder for the checkpoint that a run goes on from."""

import logging
import math
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log

from mmslip.weights.safe import load_checkpoint_file

__all__ = [
    'folders_of',
    'newest_checkpoint',
    'next_session',
    'noted_checkpoint',
    'read_checkpoint',
    'refuse_to_overwrite',
    'whole_checkpoints',
]


class _Age(NamedTuple):
    """Key that checkpoints are sorted by; that of a later one is greater."""

    session: int  # number of the start of a run in this folder
    step: int
    epoch: int  # the end of an epoch comes after its last step
    saved_at: float  # seconds since 1970


def folders_of(work_dir: str | Path) -> set[Path]:
    """Where checkpoints of a run are: its folder and, with ``out_dir``, that of the last one."""
    folders = {Path(work_dir)}
    if last := noted_checkpoint(work_dir):
        folders.add(Path(last).parent)
    return {folder for folder in folders if folder.is_dir()}


def noted_checkpoint(work_dir: str | Path) -> str:
    """Path of the checkpoint that mmengine saved last, as it has noted it; or nothing."""
    note = Path(work_dir, 'last_checkpoint')
    return note.read_text(errors='replace').strip() if note.is_file() else ''


def newest_checkpoint(folders: Iterable[str | Path]) -> Path | None:
    """The latest checkpoint that a run can be resumed from, or None where there are none.

    Args:
        folders: Where ``*.pth`` files are looked for, not in folders below.

    Raises:
        RuntimeError: There are checkpoints, but none is whole. Starting anew would overwrite what
            may be worth saving.
    """
    folders = list(folders)
    newest = next(whole_checkpoints(folders), None)
    damaged = [] if newest else _candidates(folders)
    if damaged:
        names = ', '.join(path.name for path in damaged)
        raise RuntimeError(
            f'No checkpoint in {damaged[0].parent} is whole ({names}). Move these files away to '
            'start anew, or name a checkpoint elsewhere: --resume PATH.'
        )
    return newest


def whole_checkpoints(folders: Iterable[str | Path]) -> Iterator[Path]:
    """Checkpoints that a run can be resumed from, the latest first.

    A file counts if the safe loader takes it, if it holds what mmengine's ``resume`` reads, and if
    every byte fits its checksum. Others are passed by with a warning. Checkpoints of the best score
    (``best_*``) hold no optimiser and are left alone.

    Which one is later is read from the files, by no clock. A run that starts, anew or resumed, gets
    a higher session number than any checkpoint in its folder (``meta.session``); within a session
    the step decides. So after going back to an earlier checkpoint by its name, what is saved from
    then on is later than what the run has gone back behind. The time (``meta.saved_at``, or the
    date of the file where that is no time or in the future) decides only between files of equal
    session, step and epoch.
    """
    found = []
    for path in _candidates(folders):
        try:
            found.append((_age(path), path))
        except (FileNotFoundError, RuntimeError) as error:
            print_log(f'Not resumed from: {error}', 'current', level=logging.WARNING)
    for _, path in sorted(found, reverse=True):
        if _checksums_fit(path):
            yield path
        else:
            message = f'Not resumed from: {path} is damaged, its checksums do not fit.'
            print_log(message, 'current', level=logging.WARNING)


def refuse_to_overwrite(work_dir: str | Path, source: str | Path | None = None) -> None:
    """Refuse to start anew where the checkpoints of an earlier run are.

    Args:
        work_dir: Folder of the run.
        source: Weights that it begins with, which may be there.

    Raises:
        FileExistsError: There are ``*.pth`` files, which it would replace or remove.
    """
    mine = Path(source).absolute() if source else None
    names = sorted(
        path.name
        for path in Path(work_dir).absolute().glob('*.pth')
        if path != mine and not path.name.startswith('.')
    )
    if names:
        more = f' and {len(names) - 3} more' if len(names) > 3 else ''
        raise FileExistsError(
            f'{work_dir} has checkpoints of an earlier run ({", ".join(names[:3])}{more}), which a '
            'new one would overwrite: go on from them with --resume, choose another --work-dir, or '
            'move them away.'
        )


def next_session(folders: Iterable[str | Path]) -> int:
    """A session number above those of all checkpoints in some folders."""
    last = 0
    for path in _candidates(folders):
        try:
            last = max(last, _age(path).session)
        except (FileNotFoundError, RuntimeError):
            continue
    return last + 1


def read_checkpoint(path: str | Path) -> dict:
    """A checkpoint whose tensors are read from the file when they are used, where it can be."""
    return load_checkpoint_file(path, mmap=zipfile.is_zipfile(path))


def _candidates(folders: Iterable[str | Path]) -> list[Path]:
    paths = {path.absolute() for folder in folders for path in Path(folder).glob('*.pth')}
    # A dot begins the name of a file that is being written.
    return sorted(path for path in paths if not path.name.startswith(('best_', '.')))


def _age(path: Path) -> _Age:
    checkpoint = read_checkpoint(path)
    parts = checkpoint if isinstance(checkpoint, dict) else {}
    meta = parts.get('meta')
    if (
        not {'meta', 'state_dict', 'message_hub'} <= set(parts)
        or not isinstance(meta, dict)
        or not all(isinstance(meta.get(key), int) for key in ('iter', 'epoch'))
    ):
        raise RuntimeError(f'{path} is not the state of a run, but weights alone or something else')
    session, saved_at = meta.get('session'), meta.get('saved_at')
    told = isinstance(saved_at, int | float) and math.isfinite(saved_at)
    return _Age(
        session if isinstance(session, int) else 0,
        meta['iter'],
        meta['epoch'],
        float(saved_at) if told and saved_at <= time.time() else path.stat().st_mtime,
    )


def _checksums_fit(path: Path) -> bool:
    """Whether a file of PyTorch's format, a zip archive, is whole; PyTorch does not look."""
    if not zipfile.is_zipfile(path):
        return True  # the older format, which has been read from end to end and has no checksums
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError):
        return False
