"""Rows of images and captions in JSON documents: plain lists, COCO Captions, Karpathy's splits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmslip.datasets.io.captions import captions_of
from mmslip.datasets.io.json_text import parse_json

__all__ = ['coco_rows', 'rows_of_json']


def rows_of_json(text: str, path: Path) -> Iterator[tuple[str, dict]]:
    """Rows of a JSON document, with their file and place as messages name them.

    Read are a list of objects, which are the rows; an object with one such list; an object of image
    names and their caption or captions; COCO Captions, see :func:`coco_rows`; and Karpathy's splits
    of COCO, Flickr8k and Flickr30k. All but the first two become rows of ``image`` and ``caption``,
    Karpathy's with their ``split``.

    Raises:
        ValueError: It is something else, or malformed.
    """
    content = parse_json(text, str(path))
    if isinstance(content, dict):
        if isinstance(content.get('images'), list) and 'annotations' in content:
            return coco_rows(content, path)
        if isinstance(content.get('images'), list) and _has(content['images'], 'sentences'):
            return _karpathy_rows(content['images'], path)
        lists = [value for value in content.values() if _has_objects(value)]
        if len(lists) == 1:
            content = lists[0]
        elif content and all(_is_caption(value) for value in content.values()):
            rows = (dict(image=image, caption=value) for image, value in content.items())
            return ((f'{path}, {row["image"]!r}', row) for row in rows)
    if not isinstance(content, list):
        raise ValueError(
            f'{path} must be a list of objects with image and caption, an object of image names '
            "and captions, or COCO's or Karpathy's annotations."
        )
    return _objects(content, path)


def coco_rows(content: dict[str, Any], path: str | Path) -> Iterator[tuple[str, dict]]:
    """Rows of COCO Captions: ``image`` and all its captions under ``caption``.

    Raises:
        ValueError: An entry is malformed.
    """
    tables = [content.get(key) for key in ('images', 'annotations')]
    if not all(isinstance(table, list) and table for table in tables):
        raise ValueError(
            f'{path} needs lists `images` and `annotations` with entries: use '
            'captions_train2017.json or captions_val2017.json.'
        )
    images, annotations = tables
    rows = {}
    for number, image in enumerate(images):
        _check(image, dict(id=int, file_name=str), f'{path}, images[{number}]')
        rows[image['id']] = dict(image=image['file_name'], caption=[])
    for number, entry in enumerate(annotations):
        where = f'{path}, annotations[{number}]'
        _check(entry, dict(image_id=int, caption=str), where)
        if entry['image_id'] not in rows:
            raise ValueError(
                f'{where} belongs to image {entry["image_id"]}, which is not among `images`: '
                'remove the entry.'
            )
        rows[entry['image_id']]['caption'] += captions_of(entry, ['caption'], where)
    return ((f'{path}, image {key}', row) for key, row in rows.items())


def _karpathy_rows(images: list, path: Path) -> Iterator[tuple[str, dict]]:
    for number, image in enumerate(images):
        where = f'{path}, images[{number}]'
        _check(image, dict(filename=str, sentences=list, split=str), where)
        for sentence in image['sentences']:
            _check(sentence, dict(raw=str), f'{where}.sentences')
        folder = image.get('filepath')
        yield (
            where,
            dict(
                image=f'{folder}/{image["filename"]}' if folder else image['filename'],
                caption=[sentence['raw'] for sentence in image['sentences']],
                split=image['split'],
            ),
        )


def _objects(entries: list, path: Path) -> Iterator[tuple[str, dict]]:
    for number, entry in enumerate(entries):
        where = f'{path}, entry {number}'
        if not isinstance(entry, dict):
            raise ValueError(f'{where} must be a JSON object, not {entry!r:.60}.')
        yield where, entry


def _has(entries: list, key: str) -> bool:
    return bool(entries) and isinstance(entries[0], dict) and key in entries[0]


def _has_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _is_caption(value: object) -> bool:
    texts = value if isinstance(value, list) else [value]
    return all(isinstance(text, str) for text in texts)


def _check(entry: object, types: dict[str, type], where: str) -> None:
    for key, kind in types.items():
        if not isinstance(entry, dict) or not isinstance(entry.get(key), kind):
            raise ValueError(
                f'{where} must be an object with {key!r} of type {kind.__name__}, not '
                f'{entry!r:.80}.'
            )
