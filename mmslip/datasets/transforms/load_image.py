"""The first transform: from the bytes of an image file to pixels."""

from pathlib import Path

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from mmslip.datasets.io.contents import read_file
from mmslip.datasets.io.decode import UndecodableError, check_image, decode_image, is_turned
from mmslip.datasets.io.faults import BadSampleError, MissingImageError
from mmslip.registry import TRANSFORMS

__all__ = ['EncodedImage', 'LoadImage']

# A JPEG is stored as 8 x 8 frequencies: its decoder makes 4, 2 or 1 pixels of 8 from the lowest of
# them, which filters and shrinks at once. The size is the header's, so the tag plays no part.
_FLAGS = {
    1: cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
    2: cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION,
    4: cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_IGNORE_ORIENTATION,
    8: cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_IGNORE_ORIENTATION,
}


class EncodedImage:
    """A JPEG that waits for its crops to be drawn, since they say how small it may be decoded.

    Args:
        content: The file.
        shape: Height and width from its header.
        label: What an error message calls it.
    """

    def __init__(self, content: bytes, shape: tuple[int, int], label: str) -> None:
        self.content = content
        self.shape = shape
        self.label = label

    def decode(self, factor: int = 1) -> np.ndarray:
        """Decode to BGR uint8 ``(ceil(H / factor), ceil(W / factor), 3)``.

        Args:
            factor: 1, 2, 4 or 8.

        Raises:
            BadSampleError: The bytes cannot be decoded.
        """
        try:
            image = cv2.imdecode(np.frombuffer(self.content, np.uint8), _FLAGS[factor])
        except cv2.error:
            image = None
        if image is None:
            raise _not_an_image(self.label, self.content, 'its data is damaged')
        return image


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Decode a sample's image to BGR uint8 ``(H, W, 3)``, upright.

    Reads ``img_bytes`` (from a shard) or the file ``img_path``, and passes on an ``img`` that the
    data set holds in memory; adds ``img``, ``img_shape`` and
    ``ori_shape``. BGR is what mmcv's and mmpretrain's transforms expect; the data preprocessor
    makes RGB of it on the device.

    Args:
        defer: Leave the decoding of a JPEG to the transform that follows, which must be
            ``mmslip.SLIPViews`` or ``mmslip.RandomResizedCrop``: it draws its crops and decodes
            at the smallest scale that still gives each of them its output size. What is no JPEG,
            or is turned by an EXIF tag, is decoded here as ever.
        max_pixels: Larger images are refused before they are decoded, whatever their format: a file
            of a few kilobytes may claim gigabytes of pixels.

    Raises:
        MissingImageError: There is no such file.
        BadSampleError: The bytes are no image, not a whole one, or too large a one or too many.
    """

    def __init__(self, defer: bool = False, max_pixels: int = 2**27) -> None:
        self.defer = defer
        self.max_pixels = max_pixels

    def transform(self, results: dict) -> dict:
        """Add ``img``."""
        image = results.get('img')
        if image is None:
            image = self._read(results)
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results

    def _read(self, results: dict) -> np.ndarray | EncodedImage:
        name = results.get('img_name') or results['img_path']
        number = results.get('sample_idx')
        label = name if number is None else f'{name}, sample {number}'
        content = results.pop('img_bytes', None)
        if content is None:
            if not Path(name).is_file():
                raise MissingImageError(
                    f'There is no image {label}: check `data_root` and `data_prefix` of the data '
                    'set, or remove the row.'
                )
            content = read_file(name, label)
        try:
            header = check_image(content, self.max_pixels) if self.defer else None
            plain = header and header.kind == 'JPEG' and header.plain
            if plain and not (header.exif and is_turned(content)):
                return EncodedImage(content, (header.height, header.width), label)
            return decode_image(content, self.max_pixels)
        except UndecodableError as error:
            raise _not_an_image(label, content, str(error)) from error


def _not_an_image(label: str, content: bytes, reason: str) -> BadSampleError:
    return BadSampleError(
        f'{label} ({len(content)} bytes) is not an image that can be decoded ({reason}): replace '
        'the file or remove the sample.'
    )
