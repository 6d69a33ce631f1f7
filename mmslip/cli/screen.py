"""What the command lines show: their own words, and of the libraries what a user can act on."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ['quiet_libraries', 'short_screen']

# Warnings that a user can do nothing about: beginning of the message, module.
_WARNINGS = (
    # mmcv-lite, which mmslip asks for, lacks operators that mmslip has no use for.
    ('Fail to import ``MultiScaleDeformableAttention``', r'mmcv\.cnn\.bricks\.transformer'),
    # mmengine's schedulers and accumulated steps; the first step after a resume.
    (r'Detected call of `(lr_)?scheduler\.step\(\)` before', r'(torch|mmengine)\.optim\..*'),
    # PyTorch to mmengine, of what that calls and passes on.
    (r'`torch\.distributed.*` is deprecated', r'(torch|mmengine)\..*'),
    ('`broadcast_buffers` is deprecated', r'mmengine\.model\.wrappers\..*'),
    # mmengine on what it has just done.
    ('Setting (OMP|MKL)_NUM_THREADS', r'mmengine\.utils\.dl_utils\.setup_env'),
)
# What mmengine logs as a warning to its own developers.
_FOR_DEVELOPERS = ('"FileClient" will be deprecated', '"HardDiskBackend" is the alias')
# Where launchers write the number of a process: torchrun, Slurm, MPI.
_RANKS = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
_LIBRARIES = ('mmengine', 'mmpretrain', 'mmcv')
# Of what libraries log, this is worth a line of the screen; all of it stands in the log file.
_TOLD = re.compile(
    r'resumed epoch|LR is set|The best checkpoint|(the )?[Mm]onitored metric|'
    r'Stopping threshold|(Epoch|Iter)\((train|val|test)\)'
)


def quiet_libraries() -> None:
    """Keep back the warnings of libraries that a user can do nothing about, in this process.

    Of several processes the first one warns for all.
    """
    if any(os.environ.get(name, '0') != '0' for name in _RANKS):
        warnings.simplefilter('ignore')
    for message, module in _WARNINGS:
        warnings.filterwarnings('ignore', message, module=module)
    # Of torch.onnx, on what its optimiser leaves as it is.
    logging.getLogger('onnxscript.optimizer').setLevel(logging.ERROR)


@contextmanager
def short_screen() -> Iterator[None]:
    """Within, runners send environment, config and list of hooks to the log file alone."""
    from mmslip.engine.mmengine_compat import preparing_loggers  # heavy: `quiet_libraries` is not

    with preparing_loggers(_shorten):
        yield


def _shorten(logger: logging.Logger) -> None:
    for handler in logger.handlers:
        if type(handler) is logging.StreamHandler:
            handler.addFilter(_is_shown)
            if handler.stream.isatty():
                handler.setFormatter(_ShortFormatter())


def _is_shown(record: logging.LogRecord) -> bool:
    """Whether a record belongs on the screen."""
    text = record.getMessage()
    if record.levelno >= logging.WARNING:
        return not text.startswith(_FOR_DEVELOPERS)
    return _speaker().partition('.')[0] not in _LIBRARIES or bool(_TOLD.match(text))


def _speaker() -> str:
    """Module that is logging at this moment, through ``logger.info`` or mmengine's ``print_log``.

    A record names ``print_log`` itself as its source.
    """
    frame = sys._getframe(1)
    while frame.f_globals['__name__'].startswith(('logging', 'mmengine.logging', __name__)):
        frame = frame.f_back
    return frame.f_globals['__name__']


class _ShortFormatter(logging.Formatter):
    """Time and message, for a terminal; of warnings and errors the level as well."""

    def __init__(self) -> None:
        super().__init__('%(asctime)s  %(message)s', '%H:%M:%S')

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        time, text = super().format(record).split('  ', 1)
        level = '' if record.levelno == logging.INFO else f'{record.levelname}: '
        return f'{time}  {level}{text}'
