"""Images made smaller once, so that training does not decode large ones at every visit."""

import io

import mmcv
from PIL import Image

from mmslip.datasets.io.decode import UndecodableError, decode_image

__all__ = ['shrink']

# Those that LoadImage takes.
_MAX_PIXELS = 2**27


def shrink(content: bytes, short_side: int, quality: int = 90) -> bytes:
    """A JPEG whose short side is ``short_side``; the same bytes where the image is no larger.

    Upright as its EXIF tag says, without the tag; transparency over white; resized by Pillow's
    Lanczos filter, chroma at half resolution.

    Args:
        content: An image file.
        short_side: In pixels; no image is enlarged.
        quality: Of the JPEG, 1 to 95.

    Raises:
        UndecodableError: It is no image, or a damaged one.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:  # reads the header alone
            if min(image.size) <= short_side:
                return content
    except Exception as error:  # headers can be damaged in many ways
        raise UndecodableError(str(error)) from error
    image = decode_image(content, _MAX_PIXELS)  # (H, W, 3)
    scale = short_side / min(image.shape[:2])
    size = tuple(max(short_side, round(side * scale)) for side in image.shape[1::-1])
    image = mmcv.imresize(image, size, interpolation='lanczos', backend='pillow')
    file = io.BytesIO()
    Image.fromarray(mmcv.bgr2rgb(image)).save(file, 'JPEG', quality=quality)
    return file.getvalue()
