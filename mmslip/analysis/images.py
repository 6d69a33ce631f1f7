"""Checks of the images of the training data, as they are stored."""

import io
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from mmslip.analysis.data import read_samples, shared_in_batch
from mmslip.analysis.finding import Finding

__all__ = ['check_repeats', 'check_stored_sizes']

# Rows among which repeated images are looked for, and images that the pipeline is timed on.
_MANY_IMAGES, _TIMED = 100_000, 16


def check_repeats(
    dataset: Dataset, batch_size: int, seconds: float = 5.0, matched: bool = False
) -> Finding:
    """Rows that show the same image: in one batch they are false negatives of each other.

    Images are told apart by their path, or by their content where they have none.

    Args:
        dataset: The training data.
        batch_size: Samples that are compared with each other, over all processes.
        seconds: Time to look, at random rows.
        matched: Whether the image-text head matches equal images, which it knows by their path.
    """
    end, images = time.monotonic() + seconds, []
    for info, _ in read_samples(dataset, min(len(dataset), _MANY_IMAGES), once=True):
        images.append(_identity(info))
        if time.monotonic() > end:
            break
    repeated = len(images) - len(set(images))
    if not repeated:
        return Finding('repeated images', f'none of {len(images):,} rows repeats an image')
    share = shared_in_batch(images, batch_size)
    text = (
        f'{repeated:,} of {len(images):,} rows show an image of another row again; in a batch of '
    )
    text += f'{batch_size}, {share:.1%} have their own image beside them'
    by_path = all(isinstance(image, str) for image in images)
    if matched and by_path:
        text += ', and match its captions'
    if share <= 0.01 or (matched and by_path):
        return Finding('repeated images', text)
    remedy = 'one row an image, with a list of its captions'
    if by_path:
        remedy += '; or, for the image-text loss, model.head.match_duplicates = True'
    return Finding('repeated images', text, 'warn', remedy)


def _identity(info: dict) -> str | bytes:
    if 'img_path' in info:
        return info['img_path']
    content = info['img'].tobytes() if 'img' in info else info['img_bytes']
    return blake2b(content, digest_size=16).digest()


def check_stored_sizes(dataset: Dataset, size: int, number: int = 64) -> Finding:
    """Whether images are stored much larger than the views that are cut from them, or smaller.

    What smaller files would gain is measured: the pipeline runs on some images as they are and as
    JPEG whose short side is about 1.4 times the views.

    Args:
        dataset: The training data.
        size: Side of the views in pixels.
        number: Images that are looked at.
    """
    name, shorts, large = 'stored images', [], []
    target = -(-size * 10 // 7 // 16) * 16  # 224 -> 320
    for info, pipeline in read_samples(dataset, number):
        content = _content_of(info)
        if content is None:
            continue
        with suppress(OSError), Image.open(io.BytesIO(content)) as image:
            shorts.append(min(image.size))
            if shorts[-1] > 1.5 * target:
                large.append((info, pipeline, content))
    if not shorts:
        return Finding(name, 'they are held in memory')
    short = int(np.median(shorts))
    text = f'short side {short} px (median of {len(shorts)}), for views of {size}'
    if short < size / 2:
        remedy = f'image_size = {max(short, 16)} has all that there is, and costs less'
        return Finding(name, f'{text}: they are enlarged', 'warn', remedy)
    if len(large) * 2 < len(shorts):
        return Finding(name, text)
    before, after = _times_of_pipeline(large[:_TIMED], target)
    text += f'; a sample takes {1000 * before:.1f} ms, at a short side of {target} px '
    text += f'{1000 * after:.1f} ms: {before / after:.1f} times the speed of the loader'
    if before < 1.3 * after:
        return Finding(name, text)
    remedy = f'shrink them once: mmslip init NAME --data DATA --short-side {target} (or tools/'
    remedy += f'dataset_converters/folder_to_shards.py IMAGES OUT --short-side {target})'
    return Finding(name, text, 'warn', remedy)


def _content_of(info: dict) -> bytes | None:
    """The file of an image, None if it is held in memory as pixels."""
    if 'img_bytes' in info:
        return info['img_bytes']
    if 'img_path' not in info:
        return None
    with suppress(OSError):
        return Path(info['img_path']).read_bytes()
    return None


def _times_of_pipeline(
    samples: Sequence[tuple[dict, Callable, bytes]], side: int
) -> tuple[float, float]:
    """Seconds of the pipeline for an image as it is and with a short side of ``side`` pixels."""
    took = [0.0, 0.0]
    small = [_shrink(content, side) for _, _, content in samples]
    for _ in range(2):
        for (info, pipeline, content), shrunk in zip(samples, small, strict=True):
            for place, file in enumerate((content, shrunk)):
                sample = dict(info, img_bytes=file, img_name=info.get('img_path', ''))
                begin = time.perf_counter()
                pipeline(sample)
                took[place] += time.perf_counter() - begin
    return took[0] / (2 * len(samples)), took[1] / (2 * len(samples))


def _shrink(content: bytes, side: int) -> bytes:
    file = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        factor = side / min(image.size)
        small = image.convert('RGB').resize([round(factor * length) for length in image.size])
    small.save(file, 'JPEG', quality=90)
    return file.getvalue()
