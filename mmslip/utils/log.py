"""The log."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.logging import MMLogger

__all__ = ['only_warnings']


@contextmanager
def only_warnings() -> Iterator[None]:
    """Within, the log has warnings and errors alone."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    try:
        yield
    finally:
        logger.setLevel(level)
