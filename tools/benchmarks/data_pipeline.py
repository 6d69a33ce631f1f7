"""Compare the speed of ways to make SLIP's three views of a JPEG, on one core.

All ways take turns in every repeat of one run, so that a change in the machine's load meets all of
them, and only the processor's time counts; compare the ratios. The files are read beforehand.

    python tools/benchmarks/data_pipeline.py --images FOLDER --repeats 7
    python tools/benchmarks/data_pipeline.py --images FOLDER --enlarge 3
    python tools/benchmarks/data_pipeline.py --images FOLDER --short-side 320

With ``--short-side`` ours read the pictures shrunk once, as ``folder_to_shards.py --short-side``
stores them, and torchvision reads them as they are.
"""

import argparse
import io
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table
from torchvision import transforms as tv

import mmslip.datasets  # noqa: F401  (registers the transforms)
from mmslip.datasets.io.shrink import shrink

Way = Callable[[bytes], object]


class PillowBlur:
    """Gaussian blur with Pillow, sigma uniform in 0.1 to 2."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


def classic() -> Way:
    """Pillow under torchvision, to three normalised float tensors."""
    tensor = [tv.ToTensor(), tv.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    clip_view = tv.Compose([tv.RandomResizedCrop(224, scale=(0.5, 1.0)), *tensor])
    ssl_view = tv.Compose(
        [
            tv.RandomResizedCrop(224, scale=(0.08, 1.0)),
            tv.RandomApply([tv.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            tv.RandomGrayscale(p=0.2),
            tv.RandomApply([PillowBlur()], p=0.5),
            tv.RandomHorizontalFlip(),
            *tensor,
        ]
    )

    def run(content: bytes) -> list[torch.Tensor]:
        image = Image.open(io.BytesIO(content)).convert('RGB')
        return [view(image) for view in (clip_view, ssl_view, ssl_view)]

    return run


def ours(defer: bool, **views: object) -> Way:
    """The pipeline of the published configs, to three uint8 tensors."""
    pipeline = Compose(
        [
            dict(type='mmslip.LoadImage', defer=defer),
            dict(type='mmslip.SLIPViews', **views),
            dict(type='mmslip.PackSLIPInputs'),
        ]
    )
    return lambda content: pipeline(dict(img_name='benchmark', img_bytes=content))


def decode(content: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def read(folder: Path, number: int, enlarge: float) -> list[bytes]:
    """The files, or bigger versions of the same pictures."""
    files = sorted(path for path in folder.rglob('*') if path.suffix.lower() in ('.jpg', '.jpeg'))
    if not files:
        raise FileNotFoundError(f'There is no JPEG in {folder}.')
    files = files[:: max(1, len(files) // number)][:number]
    contents = [path.read_bytes() for path in files]
    if enlarge == 1:
        return contents
    bigger = (
        cv2.resize(decode(content), None, fx=enlarge, fy=enlarge, interpolation=cv2.INTER_CUBIC)
        for content in contents
    )
    return [cv2.imencode('.jpg', image)[1].tobytes() for image in bigger]


def measure(ways: dict[str, tuple[Way, list[bytes]]], repeats: int) -> dict[str, list[float]]:
    """Seconds of the processor for all pictures in each repeat; a first one goes unrecorded."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, (way, contents) in ways.items():
            begin = time.process_time()
            for content in contents:
                way(content)
            if repeat:
                seconds[name].append(time.process_time() - begin)
    return seconds


def report(seconds: dict[str, list[float]], number: int) -> Table:
    """Medians over the repeats; a ratio is taken within each repeat first."""
    table = Table('way', 'samples/s', 'times the first', 'range')
    base = next(iter(seconds.values()))
    for name, times in seconds.items():
        ratios = [first / own for first, own in zip(base, times, strict=True)]
        table.add_row(
            name,
            f'{number / statistics.median(times):.0f}',
            f'{statistics.median(ratios):.2f}',
            f'{min(ratios):.2f} to {max(ratios):.2f}',
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--images', type=Path, required=True, help='folder with JPEGs')
    parser.add_argument('--number', type=int, default=50, help='pictures a repeat')
    parser.add_argument('--repeats', type=int, default=7, help='timed repeats of each way')
    parser.add_argument('--enlarge', type=float, default=1.0, help='scale the pictures up first')
    parser.add_argument(
        '--short-side', type=int, metavar='PIXELS', help='shrink those of our ways once, before'
    )
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    contents = read(args.images, args.number, args.enlarge)
    small = [shrink(each, args.short_side) for each in contents] if args.short_side else contents
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        ways = {
            'a  torchvision, float': (classic(), contents),
            'b  ours, uint8': (ours(defer=False), small),
            'c  b, scaled decoding': (ours(defer=True), small),
            'd  c, colour and blur on device': (
                ours(defer=True, jitter=None, gray_prob=0.0, blur_prob=0.0),
                small,
            ),
            'e  decoding alone': (decode, small),
        }
        seconds = measure(ways, args.repeats)
    Console().print(report(seconds, len(contents)))


if __name__ == '__main__':
    main()
