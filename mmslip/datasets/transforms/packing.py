"""The last transform: what a sample hands to the model."""

from hashlib import blake2b

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.structures import DataSample
from torch import Tensor

from mmslip.datasets.text.cleaning import clean
from mmslip.registry import TRANSFORMS

__all__ = ['PackSLIPInputs']


@TRANSFORMS.register_module()
class PackSLIPInputs(BaseTransform):
    """Pack views and text for :class:`mmslip.models.SLIPDataPreprocessor`.

    Reads ``image`` and ``views`` of ``mmslip.SLIPViews``, or ``img`` where one picture is all there
    is, as in an evaluation. The result is ``inputs`` with ``image`` uint8 ``(3, H, W)`` (a list of
    them where the language half has several views), ``views`` a list of uint8 ``(3, h, w)``,
    ``text`` int64 ``(L,)`` or ``(m, L)`` and ``mask`` (of masked image modelling), each where the
    sample has it; and, for evaluation, ``data_samples`` with ``gt_label`` or the ``caption_ids``
    ``(n, L)`` of retrieval. Beside ``text`` there are ``keys`` int64 ``(1 + m,)``, of the image and
    of the captions, by which a loss knows equal ones in a batch: hashes of the image's path or name
    (of its pixels, if it has none) and of the clean captions.

    Raises:
        ValueError: ``img`` is a list of views that does not say which half each is for.
    """

    def transform(self, results: dict) -> dict:
        """Build the packed sample."""
        inputs = {}
        image = results.get('image', results.get('img'))
        if isinstance(results.get('img'), list):
            raise ValueError(
                f'`img` is a list of {len(image)} views: make them by mmslip.SLIPViews, which says '
                'which half each is for.'
            )
        if image is not None:
            several = isinstance(image, list)
            inputs['image'] = [*map(_to_tensor, image)] if several else _to_tensor(image)
        if 'views' in results:
            inputs['views'] = [_to_tensor(view) for view in results['views']]
        if 'text_ids' in results:
            inputs.update(text=results['text_ids'], keys=_keys(results, image))
        if 'mask' in results:
            inputs['mask'] = torch.as_tensor(results['mask'])
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


def _keys(results: dict, image: np.ndarray | list[np.ndarray] | None) -> Tensor:
    """Keys of the image and of its captions, ``(1 + m,)``."""
    name, text = results.get('img_path') or results.get('img_name'), results.get('text', [])
    pixels = b'' if image is None else np.asarray(image).tobytes()
    contents = [pixels if name is None else str(name).encode()]
    contents += [clean(caption).encode() for caption in ([text] if isinstance(text, str) else text)]
    hashes = [blake2b(content, digest_size=8).digest() for content in contents]
    return torch.tensor([int.from_bytes(value, 'little', signed=True) for value in hashes])


def _to_tensor(image: np.ndarray) -> Tensor:
    """``(H, W, 3) -> (3, H, W)``, contiguous."""
    planes = np.empty((image.shape[2], *image.shape[:2]), image.dtype)
    cv2.split(image, list(planes))  # half the time of a transposed copy
    return torch.from_numpy(planes)
