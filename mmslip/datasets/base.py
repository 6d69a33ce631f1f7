"""Base of the data sets of images and captions."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import mmcv
import numpy as np
from mmengine.dataset import BaseDataset

from mmslip.datasets.io.captions import captions_of, check_use
from mmslip.datasets.io.faults import BadSampleError, BadSamples
from mmslip.datasets.io.split import read_split
from mmslip.datasets.sampler import Visit
from mmslip.datasets.transforms.load_image import LoadImage
from mmslip.utils import digest_of_texts, seeded, spread

__all__ = ['CaptionedDataset', 'check_captions', 'identify_record', 'load_picture']

# How far a bad sample looks for a neighbour that works: past a lost folder, not through a data set
# whose root is wrong.
_MAX_TRIES = 1000


class CaptionedDataset(BaseDataset):
    """Base of data sets of images, with captions or without.

    A subclass implements :meth:`load_data_list`; an item then enters the pipeline as a dict with
    ``img_path`` (or ``img_bytes`` and ``img_name``), ``text`` (a list of captions; none for an
    image without), and ``sample_idx``.

    In training, a sample that cannot be read (a missing or damaged image, no usable caption) is
    replaced by the next one that can; :class:`BadSamples` counts and lists it. With ``test_mode``,
    where a replaced sample would falsify the score, it raises.

    Args:
        captions: ``'required'``: a sample without a caption is a bad one. ``'optional'``: it has no
            ``text`` and can train the self-supervised half. ``'ignored'``: captions are not read,
            for self-supervised training alone.
        max_bad_share: Training stops where more than this share of the visits needed another
            sample; 0 raises at the first.
        keep_decoded: Decode an image at its first visit and keep its pixels, in each worker: for
            sets of small images that fit into memory.
        subset: ``dict(split=PATH, part='train')`` takes the samples that a file of
            :func:`mmslip.datasets.io.split.write_split` leaves to training, ``part='held_out'``
            those that it keeps for an evaluation, ``part='bare'`` those without a caption.
        **kwargs: Arguments of mmengine's ``BaseDataset``.

    Raises:
        FileNotFoundError, ValueError: There is no such split, or it is of another data set.
    """

    def __init__(
        self,
        *args: Any,
        captions: str = 'required',
        max_bad_share: float = 0.01,
        keep_decoded: bool = False,
        subset: dict | None = None,
        **kwargs: Any,
    ) -> None:
        self.captions = check_use(captions)
        self.keep_decoded = keep_decoded
        self._decoded: dict[int, dict] = {}
        self.bad_samples = BadSamples(max_bad_share)
        self.subset = subset
        super().__init__(*args, **kwargs)

    def full_init(self) -> None:
        """Read the data set, and keep the part that the split gives it."""
        if self._fully_initialized:
            return
        self.load_all()
        if self.subset is not None:
            split, part = self.subset['split'], self.subset['part']
            self.get_subset_(read_split(split, part, len(self), self.digest_of_images()))

    def load_all(self) -> None:
        """Read the data set; after it, samples can be asked for."""
        super().full_init()

    def __getitem__(self, index: int) -> Any:
        """Run the pipeline, under the seed of the visit where the sampler gave one."""
        try:
            item = self._visit(index, int(index))
        except (BadSampleError, OSError) as error:
            if self.test_mode or not self.bad_samples.max_share:
                raise
            item = self._replacement(index, error)
            self.bad_samples.count(error)
        else:
            self.bad_samples.count(None)
        return item

    def _visit(self, index: int, place: int) -> Any:
        # Every try starts from the visit's seed, so that a replacement depends on nothing else.
        with seeded(index.seed) if isinstance(index, Visit) else nullcontext():
            return super().__getitem__(place)

    def _replacement(self, index: int, error: Exception) -> Any:
        """The item of the next index that works; the sample's own error if there is none."""
        place, fault = int(index) % len(self), error
        for _ in range(min(_MAX_TRIES, len(self) - 1)):
            self.bad_samples.add(place, fault)
            place = (place + 1) % len(self)
            try:
                return self._visit(index, place)
            except (BadSampleError, OSError) as another:
                fault = another
        raise error

    def prepare_data(self, idx: int) -> Any:
        """Read a sample, make sure of its captions, and run the pipeline."""
        if not self.keep_decoded:
            return self.pipeline(self._read(idx))
        if idx not in self._decoded:
            self._decoded[idx] = LoadImage()(self._read(idx))
        info = self._decoded[idx]
        return self.pipeline(dict(info, img=info['img'].copy()))

    def _read(self, idx: int) -> dict:
        try:
            info = self.get_data_info(idx)
        except ValueError as error:  # such as text that is not UTF-8
            raise BadSampleError(str(error)) from error
        check_captions(info, idx, self.captions)
        return info

    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep the first, the last or the listed samples."""
        super().get_subset_(indices)
        self._decoded = {}  # by index, and these are others now

    def get_subset(self, indices: int | Sequence[int]) -> 'CaptionedDataset':
        """A data set of the first, the last or the listed samples."""
        part = super().get_subset(indices)
        part._decoded = {}
        return part

    def __getstate__(self) -> dict:
        """Without pixels, which a spawned worker decodes as it needs them."""
        return dict(self.__dict__, _decoded={})

    def identify(self, index: int) -> str:
        """What a sample is known by, wherever the data set lies, without reading its image."""
        return identify_record(self, index)

    def identify_image(self, index: int) -> str:
        """The same of its image, whatever the captions are."""
        return identify_record(self, index, captions=False)

    def digest_of_images(self) -> str:
        """A digest of what some hundred of the images are known by, the first and last included."""
        return digest_of_texts(map(self.identify_image, spread(range(len(self)))))

    def load_image(self, index: int) -> np.ndarray:
        """The stored image, RGB uint8 ``(H, W, 3)``, for looking at."""
        return load_picture(self, index)


def load_picture(dataset: BaseDataset, index: int) -> np.ndarray:
    """The stored image of any data set that ``LoadImage`` reads, RGB uint8 ``(H, W, 3)``."""
    return mmcv.bgr2rgb(LoadImage()(dataset.get_data_info(index))['img'])


def identify_record(dataset: BaseDataset, index: int, captions: bool = True) -> str:
    """The entry of mmengine's data list as text, its image relative to the folder of images.

    Its place in the list is no part of it, and captions only where they are wanted.
    """
    record = BaseDataset.get_data_info(dataset, index)  # subclasses may read the image
    for key in ('sample_idx', *(() if captions else ('text', 'captioned'))):
        record.pop(key, None)
    if isinstance(path := record.get('img_path'), str):
        folder = dataset.data_prefix.get('img_path') or dataset.data_root or '.'
        record['img_path'] = os.path.relpath(path, folder)
    return repr(record)


def check_captions(info: dict, place: int | str, use: str = 'required') -> None:
    """Leave out the captions of a sample that are blank, and ``text`` where none is left.

    Args:
        info: The sample; ``text`` is a caption or a list of them.
        place: Its index, for messages.
        use: One of :data:`mmslip.datasets.io.captions.CAPTION_USES`.

    Raises:
        BadSampleError: A caption is required, and none is left.
    """
    name = info.get('img_name') or info.get('img_path')
    text = info.pop('text', None)
    if use == 'ignored':
        return
    captions = captions_of(dict(text=text), ['text'], f'{name} (sample {place})')
    if captions:
        info['text'] = captions
    elif use == 'required':
        raise BadSampleError(
            f'{name} (sample {place}) has no caption: fill it in, remove the sample, or let the '
            "data set take images without a caption: captions='optional'."
        )
