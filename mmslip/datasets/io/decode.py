"""From the bytes of an image file to pixels, or to the reason why not."""

import io
import struct
from functools import cache
from typing import NamedTuple

import cv2
import mmcv
import numpy as np
from PIL import Image, ImageOps

__all__ = ['Header', 'UndecodableError', 'check_image', 'decode_image', 'is_turned']

# Start-of-frame markers: C0-CF without DHT (C4), JPG (C8) and DAC (CC).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APP1, _START_OF_SCAN, _END_OF_IMAGE = 0xE1, 0xDA, b'\xff\xd9'
_ORIENTATION = 0x0112


class UndecodableError(ValueError):
    """Bytes are no image, not a whole one, or too large a one."""


class Header(NamedTuple):
    """Format and size of an image, as the first bytes of its file state them."""

    kind: str  # 'JPEG' or 'WEBP'
    height: int
    width: int
    whole: bool  # the file is not cut short
    plain: bool  # grey or RGB, without transparency
    exif: bool = False  # it has EXIF tags, which may turn it


def check_image(content: bytes, max_pixels: int) -> Header | None:
    """Refuse a JPEG or WebP that is too large or cut short, in microseconds and without decoding.

    Versions of OpenCV fill the rest of a truncated JPEG with grey or black and report nothing.
    Other formats pass: Pillow, which decodes those, checks them itself.

    Returns:
        What the header says; ``None`` for other formats and unusual files.

    Raises:
        UndecodableError: With the reason.
    """
    header = _jpeg_header(content) or _webp_header(content)
    if header is not None:
        _check_size(header.width, header.height, max_pixels)
        if not header.whole:
            raise UndecodableError('it is cut short')
    return header


def is_turned(content: bytes) -> bool:
    """Whether an EXIF tag of a JPEG turns or mirrors it.

    Ask only where :class:`Header` has ``exif``: this takes as long as to decode a small image.
    """
    try:
        with Image.open(io.BytesIO(content), formats=['JPEG', 'MPO']) as image:
            return image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except Exception:  # Pillow has many ways to refuse a header; full decoding names the sample
        return True


def decode_image(content: bytes, max_pixels: int) -> np.ndarray:
    """Decode to BGR uint8 ``(H, W, 3)``, upright, transparency over white.

    Ordinary JPEG and WebP files go through OpenCV, in half of Pillow's time or less. All else goes
    through Pillow, because OpenCV drops transparency and leaves it to each format what a damaged
    file is.

    Raises:
        UndecodableError: With the reason.
    """
    header = check_image(content, max_pixels)
    if header is None or not header.plain:
        return _decode_by_pillow(content, max_pixels)
    try:
        image = mmcv.imfrombytes(content, flag='color', backend='cv2')
    except cv2.error:
        image = None
    if image is None:
        raise UndecodableError('its data is damaged')
    return image


def _jpeg_header(content: bytes) -> Header | None:
    """Walk the segments of a JPEG up to its first scan; ``None`` for what is no usual JPEG."""
    if content[:2] != b'\xff\xd8':
        return None
    place, frame, exif = 2, None, False
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4], 'big')
        if marker == 0xFF:  # padding
            place += 1
        elif marker == _START_OF_SCAN:
            if not frame or not all(frame):
                return None
            # Searched from here on, since a thumbnail in front of the scan has an end, too. In
            # image data these two bytes cannot follow each other; what follows the end is free.
            whole = content.rfind(_END_OF_IMAGE, place) > 0
            return Header('JPEG', frame[0], frame[1], whole, frame[2] in (1, 3), exif)
        else:
            if marker in _FRAMES and place + 10 <= len(content):
                frame = struct.unpack_from('>HHB', content, place + 5)  # height, width, channels
            exif |= marker == _APP1 and content.startswith(b'Exif\0\0', place + 4)
            place += 2 + length
    return None


def _webp_header(content: bytes) -> Header | None:
    """Read a simple WebP; ``None`` for an extended one, which may be turned or animated."""
    kind = content[8:16]
    if content[:4] != b'RIFF' or kind not in (b'WEBPVP8 ', b'WEBPVP8L') or len(content) < 30:
        return None
    whole = len(content) >= 8 + int.from_bytes(content[4:8], 'little')
    if kind == b'WEBPVP8 ':
        width, height = struct.unpack_from('<HH', content, 26)
        return Header('WEBP', height & 0x3FFF, width & 0x3FFF, whole, plain=True)
    bits = int.from_bytes(content[21:25], 'little')
    alpha = bits >> 28 & 1
    return Header('WEBP', (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, whole, plain=not alpha)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UndecodableError(
            f'it claims {width} x {height} pixels; LoadImage(max_pixels={max_pixels}) is the limit'
        )


@cache
def _formats() -> list[str]:
    """Formats of pixels; not such as EPS, for which Pillow would start an interpreter."""
    Image.init()
    wanted = 'AVIF BMP DIB GIF JPEG JPEG2000 MPO PNG PPM TIFF WEBP'.split()
    return [name for name in wanted if name in Image.OPEN]


def _decode_by_pillow(content: bytes, max_pixels: int) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            _check_size(*image.size, max_pixels)
            rgb = np.asarray(_to_rgb(ImageOps.exif_transpose(image)))  # (H, W, 3)
    except UndecodableError:
        raise
    except Image.UnidentifiedImageError as error:  # whose text holds a memory address
        raise UndecodableError('its format is unknown') from error
    except Exception as error:  # damaged files fail in many ways, all of which mean this
        raise UndecodableError(str(error)) from error
    return np.ascontiguousarray(rgb[..., ::-1])


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith('I'):  # 16 bits; Pillow's conversion would cut off above 255
        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > 65535:
            raise UndecodableError('its pixels have more than 16 bits')
        image = Image.fromarray((deep >> 8).astype(np.uint8))
    elif image.mode == 'F':
        raise UndecodableError('its pixels are floating-point numbers')
    if image.mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa') or 'transparency' in image.info:
        image = image.convert('RGBA')
        return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB')
    return image.convert('RGB')
