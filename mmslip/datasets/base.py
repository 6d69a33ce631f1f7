"""What every data set of captioned images has in common."""

from contextlib import nullcontext
from typing import Any

import mmcv
import numpy as np
from mmengine.dataset import BaseDataset

from mmslip.datasets.faults import BadSampleError, BadSamples
from mmslip.datasets.sampler import Visit
from mmslip.datasets.transforms.load_image import LoadImage
from mmslip.utils import seeded

__all__ = ['CaptionedDataset', 'load_picture']

# How far a bad sample looks for a neighbour that works: past a lost folder, not through a data set
# whose root is wrong.
_MAX_TRIES = 1000


class CaptionedDataset(BaseDataset):
    """Base of image-text data sets.

    A subclass implements :meth:`load_data_list`; an item then enters the pipeline as a dict with
    ``img_path`` (or ``img_bytes`` and ``img_name``), ``text`` (one caption or a list of them), and
    ``sample_idx``.

    In training, a sample that cannot be read (a missing or damaged image, no usable caption) is
    replaced by the next one that can; :class:`BadSamples` counts and lists it. With ``test_mode``,
    where a replaced sample would falsify the score, it raises.

    Args:
        max_bad_share: Training stops where more than this share of the visits needed another
            sample; 0 raises at the first.
        **kwargs: Arguments of mmengine's ``BaseDataset``.
    """

    def __init__(self, *args: Any, max_bad_share: float = 0.01, **kwargs: Any) -> None:
        self.bad_samples = BadSamples(max_bad_share)
        super().__init__(*args, **kwargs)

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
        try:
            info = self.get_data_info(idx)
        except ValueError as error:  # such as text that is not UTF-8
            raise BadSampleError(str(error)) from error
        if 'text' in info:
            check_captions(info, idx)
        return self.pipeline(info)

    def load_image(self, index: int) -> np.ndarray:
        """The stored image, RGB uint8 ``(H, W, 3)``, for looking at."""
        return load_picture(self, index)


def load_picture(dataset: BaseDataset, index: int) -> np.ndarray:
    """The stored image of any data set that ``LoadImage`` reads, RGB uint8 ``(H, W, 3)``."""
    return mmcv.bgr2rgb(LoadImage()(dataset.get_data_info(index))['img'])


def check_captions(info: dict, place: int | str) -> None:
    """Strip the captions of a sample and leave out empty ones.

    Raises:
        BadSampleError: None is left.
    """
    if isinstance(info['text'], str):
        info['text'] = info['text'].strip()
    else:
        info['text'] = [text for text in info['text'] if text.strip()]
    if not info['text']:
        raise BadSampleError(
            f'The caption of {info.get("img_name") or info.get("img_path")} (sample {place}) is '
            'empty: fill it in or remove the sample.'
        )
