"""Decoding."""

from pathlib import Path

import cv2
import mmcv
from mmcv.transforms import BaseTransform

from mmslip.registry import TRANSFORMS

__all__ = ['LoadImage']


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Decode a sample's image to BGR uint8 ``(H, W, 3)``, upright.

    Reads ``img_bytes`` (from a shard) or the file ``img_path``; adds ``img``, ``img_shape`` and
    ``ori_shape``. BGR is what mmcv's and mmpretrain's transforms expect; the data preprocessor
    makes RGB of it on the device.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The bytes are no image, or are cut short beyond decoding.
    """

    def transform(self, results: dict) -> dict:
        """Add ``img``."""
        name = results.get('img_name') or results['img_path']
        content = results.pop('img_bytes', None)
        if content is None:
            if not Path(name).is_file():
                raise FileNotFoundError(
                    f'There is no image {name} (sample {results.get("sample_idx")}): check '
                    '`data_root` and `data_prefix` of the data set, or remove the row.'
                )
            content = Path(name).read_bytes()
        try:
            image = mmcv.imfrombytes(content, flag='color', backend='cv2') if content else None
        except cv2.error:  # such as a header that claims more pixels than OpenCV accepts
            image = None
        if image is None:
            raise ValueError(
                f'{name} (sample {results.get("sample_idx")}, {len(content)} bytes) is not an '
                'image that can be decoded: replace the file or remove the sample.'
            )
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results
