"""Images of a folder, with captions in text files beside them or without."""

import os
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from mmslip.datasets.base import CaptionedDataset
from mmslip.datasets.io.captions import read_captions
from mmslip.datasets.io.folder import class_of, list_images
from mmslip.datasets.io.presence import missing_files
from mmslip.registry import DATASETS

__all__ = ['FolderDataset']


@DATASETS.register_module()
class FolderDataset(CaptionedDataset):
    """Images of a folder and what lies below it: with captions, without, or with classes.

    Hidden names are left out and links followed once, see
    :func:`mmslip.datasets.io.folder.list_images`. The caption of ``a/1.jpg`` is ``a/1.txt``, read
    when the image is; a blank file is none.

    Args:
        data_root: The folder, or one that ``data_prefix`` is relative to.
        data_prefix: ``dict(img_path=FOLDER)``, a folder in ``data_root``.
        with_label: Whether the first folders below are classes, in their sorted order. Images that
            lie in none are then left out, as are folders without images.
        captions: ``'ignored'``; ``'optional'`` or ``'required'`` read the text files, see
            :class:`CaptionedDataset`.
        **kwargs: Arguments of :class:`CaptionedDataset` and of mmengine's ``BaseDataset``.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no image, none in a folder of its own, or one without the caption that
            is required.

    Example:
        >>> dataset = dict(
        ...     type='mmslip.FolderDataset', data_root='data/photographs', pipeline=train_pipeline)
    """

    def __init__(
        self,
        data_root: str,
        data_prefix: dict | None = None,
        with_label: bool = False,
        captions: str = 'ignored',
        **kwargs: Any,
    ) -> None:
        self.with_label = with_label
        super().__init__(
            data_root=data_root,
            data_prefix=data_prefix or dict(img_path=''),
            captions=captions,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """List the images."""
        folder = Path(self.data_prefix['img_path'] or self.data_root)
        names = list_images(folder)
        if not self.with_label:
            records = [dict(img_path=str(folder / name)) for name in names]
        else:
            classes = sorted({class_of(name) for name in names} - {''})
            numbers = {name: number for number, name in enumerate(classes)}
            records = [
                dict(img_path=str(folder / name), gt_label=numbers[class_of(name)])
                for name in names
                if class_of(name)
            ]
            self._metainfo['classes'] = tuple(classes)
            if len(records) < len(names):
                print_log(
                    f'{folder}: {len(names) - len(records):,} images lie in no folder, so they '
                    'have no class and are passed over.',
                    logger='current',
                )
        if not records:
            place = 'in a folder for its class' if self.with_label else 'known by its suffix'
            raise ValueError(f'{folder} holds no image {place}.')
        if self.captions != 'ignored':
            self._find_captions(records, folder)
        return records

    def _find_captions(self, records: list[dict], folder: Path) -> None:
        """Note the text files that lie beside images."""
        paths = [_text_path(record['img_path']) for record in records]
        missing = missing_files(paths)
        if len(missing) == len(paths) or (missing and self.captions == 'required'):
            raise ValueError(
                f'{folder}: {len(missing):,} of {len(paths):,} images have no caption beside them; '
                f'there is no {missing[0]}, for example. Add it, or let the data set take images '
                "without: captions='optional', or 'ignored' where none has one."
            )
        absent = set(missing)
        for record, path in zip(records, paths, strict=True):
            if path not in absent:
                record['captioned'] = True

    def get_data_info(self, idx: int) -> dict:
        """Path of an image, and its caption where it has one."""
        info = super().get_data_info(idx)
        if info.pop('captioned', False):
            captions = read_captions(_text_path(info['img_path']), self.captions)
            if captions:
                info['text'] = captions
        return info


def _text_path(image: str) -> str:
    return f'{os.path.splitext(image)[0]}.txt'
