"""The last transform: what a sample hands to the model."""

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.structures import DataSample
from torch import Tensor

from mmslip.registry import TRANSFORMS

__all__ = ['PackSLIPInputs']


@TRANSFORMS.register_module()
class PackSLIPInputs(BaseTransform):
    """Pack views and text for :class:`mmslip.models.SLIPDataPreprocessor`.

    ``img`` is one array (the image of the language half, or of an evaluation) or the list of
    ``MultiView``, of which the last ``ssl_views`` are for the self-supervised half and the one
    before them, if any, for the language half. The result is ``inputs`` with ``image`` uint8
    ``(3, H, W)``, ``views`` ``ssl_views x (3, h, w)`` and ``text`` int64 ``(L,)``, each where the
    sample has it; and, for evaluation, ``data_samples`` with ``gt_label`` or the ``caption_ids``
    ``(n, L)`` of retrieval.

    Args:
        ssl_views: Number of views of the self-supervised half.

    Raises:
        ValueError: There are more or fewer views than that.
    """

    def __init__(self, ssl_views: int = 2) -> None:
        self.ssl_views = ssl_views

    def transform(self, results: dict) -> dict:
        """Build the packed sample."""
        inputs = {}
        views = results['img']
        if isinstance(views, np.ndarray):
            inputs['image'] = _to_tensor(views)
        else:
            extra = len(views) - self.ssl_views
            if extra not in (0, 1):
                raise ValueError(
                    f'MultiView made {len(views)} views, but PackSLIPInputs(ssl_views='
                    f'{self.ssl_views}) takes that many, and one more before them for the '
                    'language half: let `num_views` of MultiView agree.'
                )
            if extra:
                inputs['image'] = _to_tensor(views[0])
            inputs['views'] = [_to_tensor(view) for view in views[extra:]]
        if 'text_ids' in results:
            inputs['text'] = results['text_ids']
        packed = dict(inputs=inputs)
        if 'gt_label' in results or 'caption_ids' in results:
            sample = DataSample()
            if 'gt_label' in results:
                sample.set_gt_label(results['gt_label'])
            if 'caption_ids' in results:
                sample.set_field(results['caption_ids'], 'caption_ids')
            meta = ('task', 'role', 'sample_idx', 'img_path')
            sample.set_metainfo({key: results[key] for key in meta if key in results})
            packed['data_samples'] = sample
        return packed


def _to_tensor(image: np.ndarray) -> Tensor:
    """``(H, W, 3) -> (3, H, W)``, contiguous."""
    planes = np.empty((image.shape[2], *image.shape[:2]), image.dtype)
    cv2.split(image, list(planes))  # half the time of a transposed copy
    return torch.from_numpy(planes)
