"""The embedded data set: emoji of several vendors with their Unicode names."""

import json
from collections.abc import Collection
from pathlib import Path

from mmslip.datasets.shards import ShardDataset
from mmslip.registry import DATASETS

__all__ = ['EmojiDataset']

_FOLDER = Path(__file__).parent / 'data' / 'emoji'
_SPLITS = ('train', 'val', 'concepts')


@DATASETS.register_module()
class EmojiDataset(ShardDataset):
    """64 x 64 drawings of emoji, shipped inside the package.

    ``data/emoji/README.md`` beside this file says how they were made and under which licences.

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
        role: ``'query'`` for samples that an evaluation judges, ``'reference'`` for those that
            kNN and linear probes learn from.
        **kwargs: Arguments of :class:`ShardDataset`, ``pipeline`` above all.

    Raises:
        ValueError: A split, label or vendor is unknown.
    """

    def __init__(
        self,
        split: str,
        vendors: Collection[str] | None = None,
        task: str | None = None,
        label: str = 'name',
        role: str = 'query',
        **kwargs: object,
    ) -> None:
        if split not in _SPLITS:
            raise ValueError(f"split must be 'train', 'val' or 'concepts', not {split!r}.")
        if label not in ('name', 'subgroup'):
            raise ValueError(f"label must be 'name' or 'subgroup', not {label!r}.")
        self.vendors = None if vendors is None else set(vendors)
        self.label = label
        self._evaluation = {}
        if task or split != 'train':
            names = json.loads((_FOLDER / 'classes.json').read_text(encoding='utf-8'))
            classes = names['subgroup' if label == 'subgroup' else split]
            self._labels = {name: number for number, name in enumerate(classes)}
            self._evaluation = dict(task=task or split, role=role)
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

    def parse_content(self, content: dict, name: str) -> dict:
        """Captions, and for an evaluation the label, the task and the role."""
        fields = super().parse_content(content, name)
        if self._evaluation:
            fields.update(self._evaluation, gt_label=self._labels[content[self.label]])
        return fields
