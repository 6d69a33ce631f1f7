"""Share of its time that a device waits for the loader: ``python tools/benchmarks/loader_wait.py``.

Steps of SLIP on batches of JPEGs that data workers read and cut, against steps on one batch that
lies in pinned memory; both include the copy to the device. The share is 1 - (time of a step on the
batch at hand) / (time of a step with the loader). Without ``--images`` photographs are generated.

On a GPU the rate at which torchvision's nvJPEG decodes the same files is measured as well, beside
that of one core: an alternative only where it is far above the rate of the steps.
"""

import argparse
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice, repeat
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader
from train_throughput import build_ours, complete, make_parser

import mmslip.engine  # noqa: F401  (registers the optimiser's wrapper)
from mmslip.datasets import ImageTextDataset, VisitSampler, collate
from mmslip.datasets.io.shrink import shrink
from mmslip.models import SLIP, SLIPDataPreprocessor

# Way -> pixels of the short side that files are shrunk to, and whether the device draws colours.
WAYS = {
    'files as they are': (None, False),
    'colour and blur on the device': (None, True),
    'shrunk to 320': (320, False),
    'shrunk, colour and blur on the device': (320, True),
}


def parse_args() -> argparse.Namespace:
    parser = make_parser(__doc__.splitlines()[0])
    parser.set_defaults(batch=256)
    parser.add_argument('--images', type=Path, help='folder with JPEGs; by default some are made')
    parser.add_argument('--number', type=int, default=400, help='pictures, each visited often')
    parser.add_argument('--side', type=int, default=640, help='width of pictures that are made')
    parser.add_argument('--workers', type=int, default=os.cpu_count())
    parser.add_argument('--steps', type=int, default=24, help='timed steps of each way')
    return complete(parser.parse_args())


def photographs(args: argparse.Namespace) -> list[bytes]:
    """JPEGs of a folder, or made of noise that is smooth at several scales, 4 : 3."""
    if args.images:
        files = sorted(p for p in args.images.rglob('*') if p.suffix.lower() in ('.jpg', '.jpeg'))
        if not files:
            raise SystemExit(f'There is no JPEG in {args.images}.')
        return [path.read_bytes() for path in files[: args.number]]
    rng, size = np.random.default_rng(0), (args.side, args.side * 3 // 4)
    contents = []
    for _ in range(min(args.number, 50)):
        image = sum(
            cv2.resize(rng.normal(0, 80 / scale, (3 * scale, 4 * scale, 3)), size)
            for scale in (1, 2, 4, 16)
        )
        noise = rng.normal(128, 6, image.shape)
        image = (image + noise).clip(0, 255).astype(np.uint8)
        contents.append(cv2.imencode('.jpg', image)[1].tobytes())
    return contents


def write(folder: Path, contents: list[bytes], number: int) -> None:
    """Files, and a table of ``number`` samples, which are links to them."""
    folder.mkdir()
    for index, content in enumerate(contents):
        (folder / f'file{index}').write_bytes(content)
    rows = []
    for index in range(number):
        (folder / f'{index}.jpg').symlink_to(f'file{index % len(contents)}')
        rows.append(json.dumps(dict(image=f'{index}.jpg', caption=f'photograph number {index}')))
    (folder / 'pairs.jsonl').write_text('\n'.join(rows))


def batches(args: argparse.Namespace, folder: Path, on_device: bool) -> Iterator[dict]:
    """Batches without end, as training loads them."""
    plain = dict(jitter=None, gray_prob=0.0, blur_prob=0.0) if on_device else {}
    tokenizer = dict(type='mmslip.CLIPTokenizer', context_length=args.context)
    dataset = ImageTextDataset(
        'pairs.jsonl',
        data_root=str(folder),
        data_prefix=dict(img_path='.'),
        pipeline=[
            dict(type='mmslip.LoadImage', defer=True),
            dict(type='mmslip.SLIPViews', size=args.image_size, **plain),
            dict(type='mmslip.TokenizeCaption', tokenizer=tokenizer),
            dict(type='mmslip.PackSLIPInputs'),
        ],
    )
    loader = DataLoader(
        dataset,
        args.batch,
        sampler=VisitSampler(dataset, shuffle=True),
        num_workers=args.workers,
        collate_fn=collate,
        drop_last=True,
        pin_memory=args.device == 'cuda',
        persistent_workers=args.workers > 0,
    )
    while True:
        yield from loader


def step_time(model: SLIP, wrapper: OptimWrapper, source: Iterator[dict], number: int) -> float:
    """Mean seconds of steps, after three that do not count."""
    for turn in range(3 + number):
        if turn == 3:
            _wait()
            begin = time.perf_counter()
        model.train_step(next(source), wrapper)
    _wait()
    return (time.perf_counter() - begin) / number


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def decoding(contents: list[bytes]) -> dict[str, float]:
    """Photographs a second that one core, and nvJPEG, decode."""
    contents = contents[:256]
    begin = time.perf_counter()
    for content in contents:
        cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    found = dict(one_core_images_per_s=len(contents) / (time.perf_counter() - begin))
    if torch.cuda.is_available():
        from torchvision.io import decode_jpeg

        encoded: list[Tensor] = [
            torch.frombuffer(bytearray(each), dtype=torch.uint8) for each in contents
        ]
        for _ in range(2):  # the first makes nvJPEG's state
            _wait()
            begin = time.perf_counter()
            for start in range(0, len(encoded), 64):
                decode_jpeg(encoded[start : start + 64], device='cuda')
            _wait()
        found['nvjpeg_images_per_s'] = len(encoded) / (time.perf_counter() - begin)
    return found


def measure(args: argparse.Namespace, contents: list[bytes], folder: Path) -> dict[str, dict]:
    """Figures of each way."""
    found = {}
    model, _ = build_ours('slip', args)
    for number, (way, (side, on_device)) in enumerate(WAYS.items()):
        files = [shrink(each, side) for each in contents] if side else contents
        # What the workers hold ready when the first step begins is passed over.
        ready = 2 * args.workers
        write(folder / str(number), files, (ready + args.steps + 4) * args.batch)
        augment = dict(type='mmslip.DeviceAugment') if on_device else None
        model.data_preprocessor = SLIPDataPreprocessor(view_augment=augment)
        model.data_preprocessor.trim_text = model.trim_text
        model.to(args.device).train()
        wrapper = build_optim_wrapper(
            model,
            dict(
                type='mmslip.BF16OptimWrapper' if args.amp else 'OptimWrapper',
                constructor='mmslip.NoDecay1dOptimWrapperConstructor',
                optimizer=dict(type='AdamW', lr=1e-5, fused=True),
            ),
        )
        source = batches(args, folder / str(number), on_device)
        deque(islice(source, ready), maxlen=0)
        loaded = step_time(model, wrapper, source, args.steps)
        batch = next(source)
        source.close()
        at_hand = step_time(model, wrapper, repeat(batch), max(args.steps // 4, 1))
        found[way] = dict(
            images_per_s=args.batch / loaded,
            images_per_s_at_hand=args.batch / at_hand,
            waits=max(0.0, 1 - at_hand / loaded),
        )
        print(f'{way}: the device waits for {found[way]["waits"]:.1%} of the time', flush=True)
    return found


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    contents = photographs(args)
    with TemporaryDirectory() as folder, DefaultScope.overwrite_default_scope('mmpretrain'):
        ways = measure(args, contents, Path(folder))
    table = Table(
        *('way', 'images/s', 'images/s, batch at hand', 'share of time that it waits'),
        title=f'{args.workers} workers, {args.device}, {args.size}, batch {args.batch}',
    )
    for way, row in ways.items():
        rates = [f'{row[key]:.0f}' for key in ('images_per_s', 'images_per_s_at_hand')]
        table.add_row(way, *rates, f'{row["waits"]:.1%}')
    Console(width=110).print(table)
    rates = decoding(contents)
    print('Decoding:', ', '.join(f'{key} {value:.0f}' for key, value in rates.items()))
    if args.json:
        args.json.write_text(json.dumps(dict(ways=ways, decoding=rates)))


if __name__ == '__main__':
    main()
