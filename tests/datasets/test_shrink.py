"""Images made smaller: sizes, orientation, what stays as it is, and shards of them."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmslip.datasets import FolderDataset, ShardDataset
from mmslip.datasets.io.decode import UndecodableError, decode_image
from mmslip.datasets.io.shrink import shrink
from mmslip.datasets.shard_writer import pack


def encode(width: int, height: int, kind: str = 'JPEG', orientation: int = 0) -> bytes:
    """A smooth picture that is dark on the left and at the top."""
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = 20 + 200 * (rows / height + columns / width) / 2
    image = Image.fromarray(np.repeat(pixels[..., None], 3, axis=2).astype(np.uint8))
    file, exif = io.BytesIO(), Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image.save(file, kind, **(dict(exif=exif) if orientation else {}))
    return file.getvalue()


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP'])
@pytest.mark.parametrize(('size', 'new'), [((96, 64), (48, 32)), ((50, 200), (32, 128))])
def test_short_side(kind: str, size: tuple[int, int], new: tuple[int, int]) -> None:
    content = encode(*size, kind)
    smaller = Image.open(io.BytesIO(shrink(content, 32)))
    assert (smaller.format, smaller.size) == ('JPEG', new)
    whole = Image.fromarray(decode_image(content, 2**20)).resize(new, Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(smaller, int) - np.asarray(whole, int)).max() <= 6


def test_nothing_is_enlarged() -> None:
    for content in (encode(32, 90), encode(31, 31, 'PNG')):
        assert shrink(content, 32) is content


@pytest.mark.parametrize('orientation', range(1, 9))
def test_the_exif_tag_is_applied(orientation: int) -> None:
    content = encode(96, 64, orientation=orientation)
    smaller = shrink(content, 32)
    assert Image.open(io.BytesIO(smaller)).getexif().get(0x0112, 1) == 1
    before, after = (decode_image(part, 2**20).astype(int) for part in (content, smaller))
    assert after.shape[:2] == tuple(side // 2 for side in before.shape[:2])
    corners = [image[[4, 4, -4, -4], [4, -4, 4, -4], 0] for image in (before, after)]
    assert np.abs(corners[0] - corners[1]).max() <= 20  # of 200 from corner to corner


def test_damaged_images() -> None:
    for content in (b'', b'nothing', encode(96, 64)[:400]):
        with pytest.raises(UndecodableError):
            shrink(content, 32)


def test_shards_of_smaller_images(make_pairs: Callable[..., Path]) -> None:
    root = make_pairs(5)
    images = root / 'images'
    (images / '02.jpg').write_bytes(encode(60, 90, orientation=6))
    (images / '02.png').unlink()
    (images / '03.png').write_bytes(b'no image')
    dataset = FolderDataset(str(images))
    done = pack(dataset, root / 'shards', 2, short_side=32, rows=[0, 2, 3])
    assert done.samples == 3
    assert [path.name for path in done.shards] == ['00000.tar', '00001.tar']
    assert len(done.undecodable) == 1
    assert '03.png' in done.undecodable[0]
    packed = ShardDataset('*.tar', data_root=str(root / 'shards'), captions='ignored')
    contents = [packed.get_data_info(index)['img_bytes'] for index in range(3)]
    assert [decode_image(part, 2**20).shape for part in contents[:2]] == [(32, 58, 3), (32, 48, 3)]
    assert contents[2] == b'no image'
    again = pack(dataset, root / 'shards', 2, short_side=32, rows=[0, 2, 3])
    assert again.bytes_after == 0  # nothing was written
    for settings in (dict(short_side=40), dict(short_side=32, quality=50), {}):
        with pytest.raises(ValueError, match='has shards already, with short side 32 and quality'):
            pack(dataset, root / 'shards', 2, rows=[0, 2, 3], **settings)
    with pytest.raises(ValueError, match='is there already, with other content'):
        pack(dataset, root / 'shards', 2, short_side=32, rows=[0, 1, 3])
