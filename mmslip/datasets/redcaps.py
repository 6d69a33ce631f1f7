"""RedCaps."""

import os
from collections.abc import Iterator, Sequence

from mmslip.datasets.base import CaptionedDataset
from mmslip.datasets.io.captions import captions_of
from mmslip.datasets.io.json_text import read_json
from mmslip.datasets.io.patterns import expand_patterns
from mmslip.datasets.io.presence import keep_usable
from mmslip.datasets.io.record_table import RecordTable
from mmslip.registry import DATASETS

__all__ = ['RedCapsDataset']


@DATASETS.register_module()
class RedCapsDataset(CaptionedDataset):
    r"""RedCaps as its downloader leaves it: a JSON file for each subreddit and year. ::

        data/redcaps/
        |-- annotations/abandoned_2017.json, ...   {"annotations": [{"image_id": ...}, ...]}
        `-- images/abandoned/guli1.jpg, ...        SUBREDDIT/IMAGE_ID.jpg

    One file with a plain list of entries is read as well. Entries whose image is absent, because
    its link has died, are left out; the log says how many.

    Args:
        ann_file: JSON files; shell patterns relative to ``data_root``.
        data_root: Folder that ``ann_file`` and ``data_prefix`` are relative to.
        data_prefix: ``dict(img_path=FOLDER)``, the folder of the subreddits' folders.
        caption_key: ``'caption'``, cleaned by the authors, or ``'raw_caption'``, the post's title.
        **kwargs: Arguments of :class:`CaptionedDataset` (``captions`` above all) and of mmengine's
            ``BaseDataset``.

    Raises:
        FileNotFoundError: No file matches a pattern, or none of the images exists.
        ValueError: A file or an entry is malformed; the message names both.
    """

    def __init__(
        self,
        ann_file: str | Sequence[str],
        data_root: str = '',
        data_prefix: dict | None = None,
        caption_key: str = 'caption',
        **kwargs: object,
    ) -> None:
        self.caption_key = caption_key
        self.ann_files = expand_patterns(ann_file, data_root, 'ann_file')
        super().__init__(
            data_root=data_root,
            data_prefix=data_prefix or dict(img_path=''),
            serialize_data=False,  # the table is packed already
            **kwargs,
        )

    def load_data_list(self) -> RecordTable:
        """Read all files, one at a time."""
        first, *others = self.ann_files
        source = f'{first} and {len(others)} more' if others else str(first)
        remedy = (
            'images are expected at SUBREDDIT/IMAGE_ID.jpg; check `data_root` and `data_prefix` '
            'of the data set.'
        )
        return RecordTable(keep_usable(self._records(), source, remedy, self.captions))

    def _records(self) -> Iterator[dict]:
        folder = self.data_prefix['img_path'] or ''
        for path in self.ann_files:
            content = read_json(path)
            entries = content.get('annotations') if isinstance(content, dict) else content
            if not isinstance(entries, list):
                raise ValueError(
                    f'{path} must be a list of entries, or an object with such a list under '
                    '`annotations`.'
                )
            for number, entry in enumerate(entries):
                where = f'{path}, entry {number}'
                names = [entry.get(key) for key in _NAMES] if isinstance(entry, dict) else [None]
                if not all(isinstance(name, str) and name for name in names):
                    raise ValueError(
                        f'{where} must be an object with texts {" and ".join(map(repr, _NAMES))}, '
                        f'not {entry!r:.80}.'
                    )
                if self.caption_key not in entry:
                    raise ValueError(
                        f'{where} has no caption {self.caption_key!r}; it has '
                        f'{", ".join(map(repr, entry))}. Set `caption_key` to one of its names.'
                    )
                yield dict(
                    img_path=os.path.join(folder, *names) + '.jpg',
                    text=captions_of(entry, [self.caption_key], where),
                )


_NAMES = ('subreddit', 'image_id')
