"""Result of a check."""

from dataclasses import dataclass
from typing import Literal

__all__ = ['Finding']


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        check: What was looked at.
        finding: What was seen, with figures.
        verdict: ``'fail'`` where training would stop or be worthless.
        remedy: What to change; empty if nothing.
    """

    check: str
    finding: str
    verdict: Literal['ok', 'warn', 'fail'] = 'ok'
    remedy: str = ''
