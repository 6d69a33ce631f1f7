"""Differences between what a checkpoint notes and what a run has."""

from collections.abc import Iterator
from typing import Any

from mmslip.engine.checkpointing.plain_checkpoint import plain

__all__ = ['comparable', 'differences']

_ABSENT = 'default'  # of a key that is not stated


def comparable(value: Any) -> Any:
    """Plain values, and tuples as lists: a config file has the ones, a command line the others."""
    if isinstance(value, dict):
        return {plain(key): comparable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [comparable(item) for item in value]
    return plain(value)


def differences(before: Any, now: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, old and new value of every entry in which two nested settings differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*before, *now)):
            pair = before.get(key, _ABSENT), now.get(key, _ABSENT)
            yield from differences(*pair, f'{name}.{key}')
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, pair in enumerate(zip(before, now, strict=True)):
            yield from differences(*pair, f'{name}[{number}]')
    elif before != now:
        yield name, before, now
