"""The embedded data set: emoji of several vendors with their Unicode names."""

import gzip
import json
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset

from mmslip.datasets.shards import ShardDataset
from mmslip.datasets.transforms.load_image import LoadImage
from mmslip.registry import DATASETS

__all__ = ['EmojiDataset']

_FOLDER = Path(__file__).parent / 'data' / 'emoji'
_SPLITS = ('train', 'val', 'concepts')


@DATASETS.register_module()
class EmojiDataset(ShardDataset):
    """64 x 64 drawings of emoji, shipped inside the package.

    ``data/emoji/README.md`` beside this file says how they were made and under which licences.
    A drawing is decoded at its first visit and kept, 12 kB of pixels, 76 MB for all of ``train``;
    later visits take a twentieth of the time.

    Args:
        split: ``'train'`` (all vendors but Fluent, all concepts but the held-out ones), ``'val'``
            (Fluent's drawings of the training concepts: another style) or ``'concepts'`` (all
            vendors' drawings of concepts that occur nowhere in training: another meaning).
        vendors: The vendors whose drawings are taken; all by default. Leave one out of training
            to test on it.
        task: Name of the evaluation task, for which samples get a label. Defaults to the split;
            ``'train'`` has none unless one is given.
        label: What an evaluation asks for: the ``'name'`` (the classes are the names of the whole
            split) or the ``'subgroup'`` of the Unicode list (98 classes, the same for all splits).
        languages: Codes of the languages of captions and of class names (``en``, ``de``, ``fr``,
            ``es``, ``ru``, ``ar``, ``hi``, ``zh``, ``ja``, ``th``). Each visit draws one of them,
            which has three captions of a drawing. An evaluation takes one language, after which its
            task is called: ``val_de``. By default, the one to three English captions as they are.
        role: ``'query'`` for samples that an evaluation judges, ``'reference'`` for those that
            kNN and linear probes learn from.
        **kwargs: Arguments of :class:`ShardDataset`, ``pipeline`` above all.

    Raises:
        ValueError: A split, label, vendor or language is unknown, or an evaluation has several
            languages.
    """

    def __init__(
        self,
        split: str,
        vendors: Collection[str] | None = None,
        task: str | None = None,
        label: str = 'name',
        languages: Sequence[str] | None = None,
        role: str = 'query',
        **kwargs: object,
    ) -> None:
        if split not in _SPLITS:
            raise ValueError(f"split must be 'train', 'val' or 'concepts', not {split!r}.")
        if label not in ('name', 'subgroup'):
            raise ValueError(f"label must be 'name' or 'subgroup', not {label!r}.")
        self.vendors = None if vendors is None else set(vendors)
        self.label = label
        self.languages = languages
        self._evaluation = {}
        self._decoded: dict[str, dict] = {}
        if languages is not None:
            _check_languages(languages, None if not task and split == 'train' else label)
            task = task or (None if split == 'train' else f'{split}_{languages[0]}')
        if task or split != 'train':
            names = json.loads((_FOLDER / 'classes.json').read_text(encoding='utf-8'))
            classes = names['subgroup' if label == 'subgroup' else split]
            self._labels = {name: number for number, name in enumerate(classes)}
            self._evaluation = dict(task=task or split, role=role)
            if languages is not None:
                names = read_names()
                codepoints = {name: codepoint for codepoint, (name,) in names['en'].items()}
                classes = [names[languages[0]][codepoints[name]][0] for name in classes]
        super().__init__(
            shards=f'{split}*.tar.gz', data_root=str(_FOLDER), caption_keys='captions', **kwargs
        )
        if self._evaluation:
            # Not as the `metainfo` argument, whose strings mmengine tries to open as files.
            self._metainfo.update(self._evaluation, classes=classes)

    def load_data_list(self) -> list[dict]:
        """Index the drawings of the chosen vendors."""
        records = super().load_data_list()
        if self.vendors is None:
            return records
        vendor_of = [record['stem'].partition('_')[0] for record in records]
        unknown = self.vendors - set(vendor_of)
        if unknown or not self.vendors:
            raise ValueError(
                f'This split has no drawings of {", ".join(sorted(unknown)) or "no vendor"}: its '
                f'vendors are {", ".join(sorted(set(vendor_of)))}.'
            )
        return [
            record
            for record, vendor in zip(records, vendor_of, strict=True)
            if vendor in self.vendors
        ]

    def get_data_info(self, idx: int) -> dict:
        """One sample: captions and ``img``, BGR uint8 ``(64, 64, 3)``, a copy."""
        record = BaseDataset.get_data_info(self, idx)
        info = self._decoded.get(record['stem'])
        if info is None:
            info = LoadImage()(super().get_data_info(idx))
            self._decoded[record['stem']] = info
        info = dict(info, img=info['img'].copy(), sample_idx=record['sample_idx'])
        if self.languages is not None and 'text' in info:
            first = 3 * np.random.randint(len(self.languages))
            info['text'] = info['text'][first : first + 3]
        return info

    def __getstate__(self) -> dict:
        """Without the drawings, which a spawned worker decodes as it needs them."""
        return dict(super().__getstate__(), _decoded={})

    def fields_of(self, record: dict, name: str) -> dict:
        """Captions in all languages, and for an evaluation the label, the task and the role."""
        fields = super().fields_of(record, name)
        if self.languages is not None and 'text' in fields:
            codepoint = record['stem'].partition('_')[2]
            fields['text'] = [
                caption
                for language in self.languages
                for caption in _captions(language, codepoint, fields['text'])
            ]
        if self._evaluation:
            content = json.loads(self.read_member(record, 'json'))
            fields.update(self._evaluation, gt_label=self._labels[content[self.label]])
        return fields


@cache
def read_names() -> dict[str, dict[str, list[str]]]:
    """Name and keywords of each emoji: language -> code points -> texts, the name first.

    English has the name alone, since its keywords are in the shards.
    """
    return json.loads(gzip.decompress((_FOLDER / 'languages.json.gz').read_bytes()))


def _check_languages(languages: Sequence[str], label: str | None) -> None:
    """Raise ``ValueError`` for those that are not there, or do not suit the label asked for."""
    known = read_names()
    unknown = [language for language in languages if language not in known]
    if unknown or isinstance(languages, str) or not languages:
        raise ValueError(
            f'languages must be a list of some of {", ".join(known)}, not {languages!r}.'
        )
    if label and (label != 'name' or len(languages) > 1):
        raise ValueError(
            f"An evaluation in languages={languages!r} takes one language and label='name': give "
            'each language a data set of its own.'
        )


def _captions(language: str, codepoint: str, english: Sequence[str]) -> list[str]:
    """Three captions, made alike in all languages: the name takes the place of keywords."""
    if language == 'en':
        return [*english, english[0], english[0]][:3]
    name, *keywords = read_names()[language][codepoint]
    first, second = ', '.join(keywords[:3]), ', '.join(keywords[3:])
    return [name, f'{name}: {first}' if first else name, f'{name} ({second})' if second else name]
