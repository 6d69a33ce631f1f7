"""What every data set of captioned images has in common."""

from typing import Any

import mmcv
import numpy as np
from mmengine.dataset import BaseDataset

from mmslip.datasets.sampler import Visit
from mmslip.datasets.transforms.load_image import LoadImage
from mmslip.utils import seeded

__all__ = ['CaptionedDataset']


class CaptionedDataset(BaseDataset):
    """Base of image-text data sets.

    A subclass implements :meth:`load_data_list`; an item then enters the pipeline as a dict with
    ``img_path`` (or ``img_bytes`` and ``img_name``), ``text`` (one caption or a list of them), and
    ``sample_idx``.
    """

    def __getitem__(self, index: int) -> Any:
        """Run the pipeline, under the seed of the visit where the sampler gave one."""
        if isinstance(index, Visit):
            with seeded(index.seed):
                return super().__getitem__(int(index))
        return super().__getitem__(index)

    def load_image(self, index: int) -> np.ndarray:
        """The stored image, RGB uint8 ``(H, W, 3)``, for looking at."""
        return mmcv.bgr2rgb(LoadImage()(self.get_data_info(index))['img'])
