"""JSON of other people."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

__all__ = ['parse_json', 'read_json']


def parse_json(text: str | bytes, where: str) -> Any:
    """Value of a JSON text.

    Args:
        text: The text, or its bytes in UTF-8.
        where: File, and line or member, for messages.

    Raises:
        ValueError: It is no JSON, is nested too deeply, has a number of too many digits, or an
            object has a key twice, of which one value would be lost.
    """
    try:
        return json.loads(text, object_pairs_hook=_object_of)
    except (ValueError, RecursionError) as error:  # ValueError: of the encoding and numbers, too
        raise ValueError(f'{where} is not valid JSON: {error}.') from error


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(
            f'an object has the key {key!r} twice; rename one, and list both in `caption_keys` if '
            'they are captions'
        )
    return values


def read_json(path: str | Path) -> Any:
    """Value of a JSON file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not JSON; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'There is no annotation file {path}: check `ann_file` and `data_root` of the data set.'
        )
    return parse_json(path.read_bytes(), f'{path}, damaged or another kind of file,')
