"""Errors of the command lines in one line; imports nothing that takes long."""

import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

__all__ = ['DEBUG', 'SettingError', 'one_line', 'plain_errors', 'wait_for_first']

# Environment variable for the traceback of an error on the screen; `--debug` sets it.
DEBUG = 'MMSLIP_DEBUG'
_INTERRUPTED = 130  # status of a program that Ctrl-C has ended, as shells count
# Where launchers write the number of a process among those that they end together: torchrun those
# of its host, Slurm and MPI all.
_NUMBERS = ('LOCAL_RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
_PATIENCE = 30.0  # seconds


class SettingError(RuntimeError):
    """An error, with the path of the setting that it comes from."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """End with one line, and the traceback in the log; with ``--debug`` on the screen.

    Of several processes the first one says what all have met (:func:`wait_for_first`).
    """
    try:
        yield
    except KeyboardInterrupt:
        if os.environ.get(DEBUG):
            raise
        if _is_first():
            print('\nStopped by Ctrl-C.', file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None
    except SystemExit as stop:
        if isinstance(stop.code, str):  # a message
            wait_for_first()
        raise
    except Exception as error:
        wait_for_first()
        if os.environ.get(DEBUG):
            raise
        where = _write_to_log(error) or ([] if _is_plain(error) else ['with --debug'])
        hint = f'(Traceback: {", ".join(where)})\n' if where else ''
        raise SystemExit(f'{hint}Error: {one_line(error)}') from None


@cache  # commands are in one another, and one wait is enough
def wait_for_first() -> None:
    """Before a message that ends this process: give the first one of the job the time to say it.

    Most errors meet all processes. When the first has ended, its launcher ends the others, which
    wait here. One that is still there half a minute later has failed alone, and speaks itself.
    """
    if not _is_first():
        time.sleep(_PATIENCE)


def _is_first() -> bool:
    numbers = (os.environ[name] for name in _NUMBERS if name in os.environ)
    return next(numbers, '0') == '0'


def one_line(error: Exception) -> str:
    """Kind and message; of a data worker's error, which holds a traceback, those of its end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith('Caught '):
        return lines[-1]
    text = ' '.join(lines)
    if not text:  # as of `assert`: then the line of code says most
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = f'{frame.line} ({frame.filename}, line {frame.lineno})'
        return f'{type(error).__name__}: {text}'
    return text if _is_plain(error) else f'{type(error).__name__}: {text}'


def _is_plain(error: Exception) -> bool:
    """Whether its text says all, as that of errors which the library foresees."""
    return isinstance(error, SettingError | ValueError | OSError | ImportError)


def _write_to_log(error: Exception) -> list[str]:
    """Write the traceback into the files of the running logger; their paths."""
    if 'mmengine.logging' not in sys.modules:  # nothing can have been logged
        return []
    logger = sys.modules['mmengine.logging'].MMLogger.get_current_instance()
    text = ''.join(traceback.format_exception(error))
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, text, (), None)
    files = [part for part in logger.handlers if isinstance(part, logging.FileHandler)]
    for handler in files:
        handler.handle(record)
    return [handler.baseFilename for handler in files]
