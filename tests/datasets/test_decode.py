"""Every kind of image file, whole and damaged."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from PIL import Image, ImageOps

from mmslip.datasets.io.faults import BadSampleError
from mmslip.datasets.transforms import LoadImage

rng = np.random.default_rng(0)
# Smooth, so that JPEG keeps it.
PICTURE = cv2.resize(rng.integers(0, 256, (4, 4, 3), np.uint8), (60, 44))  # RGB


def encode(image: np.ndarray | Image.Image, kind: str = 'PNG', **options: object) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def load(content: bytes, **options: object) -> np.ndarray:
    """Decode to RGB."""
    return LoadImage(**options)(dict(img_bytes=content, img_name='a.tar:7'))['img'][..., ::-1]


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims a size."""
    content = bytearray(encode(PICTURE))
    content[16:24] = struct.pack('>II', width, height)
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, 'big')
    return bytes(content)


def jpeg_of_size(width: int, height: int) -> bytes:
    content = bytearray(encode(PICTURE, 'JPEG'))
    place = content.index(b'\xff\xc0')
    content[place + 5 : place + 9] = struct.pack('>HH', height, width)
    return bytes(content)


THUMBNAIL = encode(PICTURE[:8, :8], 'JPEG')
WHOLE = {
    'jpeg': encode(PICTURE, 'JPEG', quality=95),
    'progressive': encode(PICTURE, 'JPEG', quality=95, progressive=True),
    # A comment that holds a whole JPEG, as EXIF thumbnails do.
    'thumbnail': encode(PICTURE, 'JPEG', quality=95, comment=THUMBNAIL),
    'png': encode(PICTURE),
    'webp': encode(PICTURE, 'WEBP', quality=95),
    'lossless webp': encode(PICTURE, 'WEBP', lossless=True),
    'bmp': encode(PICTURE, 'BMP'),
    'tiff': encode(PICTURE, 'TIFF'),
    'gif': encode(PICTURE, 'GIF'),
}


@pytest.mark.parametrize('kind', WHOLE)
@pytest.mark.parametrize('defer', [False, True])
def test_truncated_files_are_bad(kind: str, defer: bool) -> None:
    whole = WHOLE[kind]
    image = LoadImage(defer=defer)(dict(img_bytes=whole, img_name='x'))['img']
    image = (image if isinstance(image, np.ndarray) else image.decode())[..., ::-1]
    assert np.abs(image.astype(int) - PICTURE).mean() < (20 if kind == 'gif' else 4)
    # The last bytes of a PNG are check sums, behind all pixels.
    for length in (len(whole) // 2, len(whole) * 9 // 10, len(whole) - 30):
        with pytest.raises(BadSampleError, match=rf'x \({length} bytes\) .*\(.+\)'):
            LoadImage(defer=defer)(dict(img_bytes=whole[:length], img_name='x'))


def test_bytes_behind_the_end_do_no_harm() -> None:
    np.testing.assert_array_equal(load(WHOLE['jpeg'] + bytes(99)), load(WHOLE['jpeg']))


@pytest.mark.parametrize('content', [b'', b'<html>404</html>', b'%!PS-Adobe EPSF-3.0', b'\xff\xd8'])
def test_other_files_are_bad(content: bytes) -> None:
    with pytest.raises(BadSampleError, match='its format is unknown'):
        load(content)


@pytest.mark.parametrize('content', [png_of_size(60_000, 60_000), jpeg_of_size(60_000, 60_000)])
@pytest.mark.parametrize('defer', [False, True])
def test_bombs_are_refused_before_decoding(content: bytes, defer: bool) -> None:
    with pytest.raises(BadSampleError, match=r'a\.tar:7'):
        load(content, defer=defer)


@pytest.mark.parametrize('kind', ['jpeg', 'png', 'webp', 'lossless webp'])
def test_limit_of_pixels(kind: str) -> None:
    assert load(WHOLE[kind], max_pixels=60 * 44).shape == (44, 60, 3)
    with pytest.raises(BadSampleError, match=r'claims 60 x 44 pixels; .*max_pixels=2639'):
        load(WHOLE[kind], max_pixels=60 * 44 - 1)


@pytest.mark.parametrize('kind', ['JPEG', 'TIFF'])
@pytest.mark.parametrize('defer', [False, True])
def test_cmyk(kind: str, defer: bool) -> None:
    image = load(encode(Image.fromarray(PICTURE).convert('CMYK'), kind), defer=defer)
    assert np.abs(image.astype(int) - PICTURE).mean() < 4


def test_sixteen_bits() -> None:
    deep = PICTURE[..., 0].astype(np.uint16) * 256 + 77
    for content in (encode(deep), encode(deep, 'TIFF')):
        np.testing.assert_array_equal(load(content), np.repeat(PICTURE[..., :1], 3, axis=2))
    colour = cv2.imencode('.png', PICTURE[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    np.testing.assert_array_equal(load(colour), PICTURE)
    with pytest.raises(BadSampleError, match='floating-point'):
        load(encode(PICTURE[..., 0].astype(np.float32), 'TIFF'))


@pytest.mark.parametrize(('kind', 'options'), [('PNG', {}), ('WEBP', dict(lossless=True))])
def test_transparency_is_over_white(kind: str, options: dict) -> None:
    alpha = np.repeat(np.linspace(0, 255, 60).astype(np.uint8)[None], 44, axis=0)
    content = encode(np.dstack([PICTURE, alpha]), kind, exact=True, **options)
    part = alpha[..., None] / 255
    expected = PICTURE * part + 255 * (1 - part)
    assert np.abs(load(content) - expected).max() <= 1
    assert (load(content)[:, 0] == 255).all()


def test_palette_and_its_transparent_colour() -> None:
    palette = Image.fromarray(PICTURE).quantize(16)
    expected = np.array(palette.convert('RGB'))
    np.testing.assert_array_equal(load(encode(palette)), expected)
    expected[np.asarray(palette) == 3] = 255
    np.testing.assert_array_equal(load(encode(palette, transparency=3)), expected)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP'])
@pytest.mark.parametrize('defer', [False, True])
def test_exif_rotation(kind: str, defer: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode(PICTURE, kind, exif=exif, **(dict(quality=95) if kind != 'PNG' else {}))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert('RGB'))
    assert upright.shape == (60, 44, 3)
    assert np.abs(load(content, defer=defer).astype(int) - upright).max() <= 4


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'GIF', 'BMP'])
@pytest.mark.parametrize('shape', [(1, 1, 3), (1, 200, 3)])
def test_thinnest_images_go_through_a_pipeline(kind: str, shape: tuple) -> None:
    content = encode(np.full(shape, 90, np.uint8), kind)
    views = dict(type='mmslip.SLIPViews', size=16, ssl_views=0, image_views=2)
    for defer in (False, True):
        pipeline = Compose([dict(type='mmslip.LoadImage', defer=defer), views])
        out = pipeline(dict(img_bytes=content, img_name='x'))
        assert all(np.abs(view.astype(int) - 90).max() <= 3 for view in out['image'])
