"""The captions of a sample, wherever they are stored."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import regex
from ftfy.fixes import fix_surrogates

from mmslip.datasets.io.contents import read_file
from mmslip.datasets.io.faults import BadSampleError
from mmslip.datasets.text.cleaning import is_blank

__all__ = ['CAPTION_USES', 'as_list', 'captions_of', 'check_use', 'read_captions', 'text_of']

# Uses of captions: an image without one is a bad sample, or it trains the self-supervised half
# alone, or no caption is read.
CAPTION_USES = ('required', 'optional', 'ignored')

_SURROGATE = regex.compile(r'[\ud800-\udfff]')


def as_list(names: str | Sequence[str]) -> list[str]:
    """One name or several as a list."""
    return [names] if isinstance(names, str) else list(names)


def check_use(use: str) -> str:
    """The use itself.

    Raises:
        ValueError: It is none of :data:`CAPTION_USES`.
    """
    if use not in CAPTION_USES:
        raise ValueError(f'captions must be one of {", ".join(CAPTION_USES)}, not {use!r}.')
    return use


def captions_of(row: Mapping, keys: Sequence[str], where: str) -> list[str]:
    """Captions of a row, stripped, without those that are blank when they are clean.

    Characters that are half a surrogate pair, which UTF-8 cannot hold, become U+FFFD.

    Args:
        row: Its values may be texts, lists of texts, null or absent.
        keys: Where captions are expected.
        where: Name of the row in messages.

    Raises:
        BadSampleError: A value is something else.
    """
    captions = []
    for key in keys:
        value = row.get(key)
        texts = list(value) if isinstance(value, list | tuple) else [value]
        if not all(text is None or isinstance(text, str) for text in texts):
            raise BadSampleError(
                f'{where}: {key!r} must be text or a list of texts, not {value!r:.60}.'
            )
        captions += [_repair(text).strip() for text in texts if text and not is_blank(text)]
    return captions


def text_of(
    row: Mapping, keys: Sequence[str], where: str, use: str = 'required'
) -> dict[str, list[str]]:
    """``text`` of a sample, or no entry for an image that has no caption and needs none.

    Args:
        row: See :func:`captions_of`, as for ``keys`` and ``where``.
        keys: Where captions are expected.
        where: Name of the row in messages.
        use: One of :data:`CAPTION_USES`.

    Raises:
        BadSampleError: A caption is required, and there is none.
    """
    if use == 'ignored':
        return {}
    captions = captions_of(row, keys, where)
    if captions:
        return dict(text=captions)
    if use == 'optional':
        return {}
    raise BadSampleError(
        f'{where} has no caption under {", ".join(map(repr, keys))}; it has '
        f'{", ".join(map(repr, row)) or "nothing"}. Fill it in, remove the sample, correct the '
        "caption keys of the data set, or let it take images without: captions='optional'."
    )


def read_captions(path: str | Path, use: str = 'required') -> list[str]:
    """The caption in a text file; none in a blank one.

    Args:
        path: The file.
        use: One of :data:`CAPTION_USES`.

    Raises:
        BadSampleError: The file is no UTF-8 or too large; or it is blank, and a caption is
            required.
    """
    try:
        text = read_file(path, str(path)).decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise BadSampleError(f'{path} is not UTF-8 ({error}): convert it.') from error
    captions = captions_of(dict(text=text), ['text'], str(path))
    if not captions and use == 'required':
        raise BadSampleError(
            f'{path} is empty: fill it in, remove it and its image, or let the data set take '
            "images without a caption: captions='optional'."
        )
    return captions


def _repair(text: str) -> str:
    return fix_surrogates(text) if _SURROGATE.search(text) else text
