"""The parts of a config: its dicts that name a class."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

__all__ = ['find_all', 'is_kind', 'parts_of']


def parts_of(cfg: Any, path: str = '') -> Iterator[tuple[str, dict]]:
    """Paths and settings of all parts of a config that name a class, outer ones first.

    They are the config's own: what is changed in them is changed there.
    """
    if isinstance(cfg, dict | Config):
        if 'type' in cfg:
            yield path, cfg
        for key, value in cfg.items():
            yield from parts_of(value, f'{path}.{key}' if path else key)
    elif isinstance(cfg, list | tuple):
        for number, value in enumerate(cfg):
            yield from parts_of(value, f'{path}[{number}]')


def is_kind(part: dict, kind: str) -> bool:
    """Whether the ``type`` of a part is ``kind``, with or without a scope."""
    name = part['type']
    return (name if isinstance(name, str) else name.__name__).rpartition('.')[2] == kind


def find_all(cfg: Any, kind: str) -> Iterator[dict]:
    """All parts of a config of a kind, at any depth."""
    return (part for _, part in parts_of(cfg) if is_kind(part, kind))
