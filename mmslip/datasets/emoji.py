"""The embedded data set: emoji of several vendors with their Unicode names."""

import json
from pathlib import Path

from mmslip.datasets.shards import ShardDataset
from mmslip.registry import DATASETS

__all__ = ['EmojiDataset']

_FOLDER = Path(__file__).parent / 'data' / 'emoji'


@DATASETS.register_module()
class EmojiDataset(ShardDataset):
    """64 x 64 drawings of emoji, shipped inside the package.

    ``data/emoji/README.md`` beside this file says how they were made and under which licences.

    Args:
        split: ``'train'`` (all vendors but Fluent, all concepts but the held-out ones), ``'val'``
            (Fluent's drawings of the training concepts: another style) or ``'concepts'`` (all
            vendors' drawings of concepts that occur nowhere in training: another meaning).
        **kwargs: Arguments of :class:`ShardDataset`, ``pipeline`` above all.
    """

    def __init__(self, split: str, **kwargs: object) -> None:
        if split not in ('train', 'val', 'concepts'):
            raise ValueError(f"split must be 'train', 'val' or 'concepts', not {split!r}.")
        super().__init__(
            shards=f'{split}*.tar.gz', data_root=str(_FOLDER), caption_keys='captions', **kwargs
        )
        if split != 'train':
            classes = json.loads((_FOLDER / 'classes.json').read_text(encoding='utf-8'))[split]
            # Not as the `metainfo` argument, whose strings mmengine tries to open as files.
            self._metainfo.update(task=split, classes=classes)
            self._labels = {name: label for label, name in enumerate(classes)}

    def parse_content(self, content: dict, name: str) -> dict:
        """Captions, and the label where the split is for evaluation."""
        fields = super().parse_content(content, name)
        if 'task' in self.metainfo:
            fields.update(task=self.metainfo['task'], gt_label=self._labels[content['label']])
        return fields
