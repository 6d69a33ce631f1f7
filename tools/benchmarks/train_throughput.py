"""Compare training steps of CLIP, SLIP and SimCLR with each other and with open_clip's CLIP.

A step is forward pass, backward pass, AdamW and the clamp of the logit scale, on random images that
lie on the device and captions of one length. All models take turns in every round of one run, so
that a change in the machine's load meets all of them; compare the ratios. On a CPU one thread runs
and only the processor's time counts.

    python tools/benchmarks/train_throughput.py --size base --batch 256 --amp --compile --memory
    python tools/benchmarks/train_throughput.py --size tiny --image-size 64 --batch 16

Utilisation (MFU) is 3 x F / (seconds x P). F are the FLOPs, two for each multiplication and
addition, of the matrix products and attention of a forward pass over the batch; what is computed
again does not count, nor does the comparison of embeddings. P is the dense peak of the device in
bfloat16. A model that the GPU has no memory for is left out of the timing.
"""

import argparse
import json
import logging
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmslip.engine.speed.compile import compile_blocks
from mmslip.models import SLIP
from mmslip.models.blocks import find_blocks

# Width, layers, heads of the image tower; of the text tower; width of the self-supervised head.
SIZES = {
    'tiny': ((192, 4, 3), (128, 4, 2), 512),
    'small': ((384, 12, 12), (512, 12, 8), 4096),
    'base': ((768, 12, 12), (512, 12, 8), 4096),
    'large': ((1024, 24, 16), (512, 12, 8), 4096),
}
MODELS = ['clip', 'slip', 'slip_cheap', 'simclr', 'open_clip']
# Dense bfloat16 TFLOP/s by the vendor, by a part of the device's name.
PEAK_TFLOPS = {
    'B200': 2250,
    'H200': 989,
    'H100': 989,
    'H100 PCIe': 756,
    'A100': 312,
    'L40S': 362,
    'L4': 121,
    'A10G': 70,
    'RTX 4090': 165,
}
OPTIMIZER = dict(type='AdamW', lr=1e-4, weight_decay=0.1, betas=(0.9, 0.98), fused=True)
Step = Callable[[], object]


def make_parser(description: str) -> argparse.ArgumentParser:
    """Options of a step."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--models', nargs='+', choices=MODELS, default=MODELS, help='first is 1.0')
    parser.add_argument('--size', choices=SIZES, default='base')
    parser.add_argument('--image-size', type=int, default=224)
    parser.add_argument('--patch-size', type=int, default=16)
    parser.add_argument('--batch', type=int, default=64)
    parser.add_argument('--context', type=int, default=77, help='tokens the text tower can take')
    parser.add_argument('--caption', type=int, help='tokens of the captions, by default --context')
    parser.add_argument('--amp', action='store_true', help='bfloat16 instead of float32')
    parser.add_argument('--compile', action='store_true', help="compile every model's blocks")
    parser.add_argument('--channels-last', action='store_true', help='images as (B, H, W, 3)')
    parser.add_argument('--chunk-size', type=int, help='of mmslip; open_clip has no such thing')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write what is printed there too')
    return parser


def parse_args() -> argparse.Namespace:
    parser = make_parser(__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--steps', type=int, default=5, help='steps of each model in a round')
    parser.add_argument(
        '--memory', action='store_true', help='on a CPU measure it too, in processes of its own'
    )
    parser.add_argument('--peak-tflops', type=float, help='of the device; some are known')
    return complete(parser.parse_args())


def complete(args: argparse.Namespace) -> argparse.Namespace:
    """Fill in what follows from other options, and the device."""
    args.caption = args.caption or args.context
    args.device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return args


def make_batch(args: argparse.Namespace, views: int) -> dict:
    """Random images, already normalised, and captions."""
    torch.manual_seed(0)
    layout = torch.channels_last if args.channels_last else torch.contiguous_format

    def images(size: int) -> Tensor:
        pixels = torch.randn(args.batch, 3, size, size, device=args.device)
        return pixels.to(memory_format=layout)

    text = torch.zeros(args.batch, args.context, dtype=torch.int64)
    text[:, : args.caption] = torch.randint(1, 49000, (args.batch, args.caption))
    text[:, args.caption - 1] = 49407
    return dict(
        image=images(args.image_size),
        views=[images(views), images(views)],
        text=text.to(args.device),
    )


def build_ours(name: str, args: argparse.Namespace) -> tuple[SLIP, dict]:
    """A model of mmslip, and its batch; ``slip_cheap`` drops patches and has half-size views."""
    (width, layers, heads), (text_width, text_layers, text_heads), hidden = SIZES[args.size]
    cheap = name == 'slip_cheap'
    language = dict(
        neck=dict(type='mmslip.LinearProjection', in_channels=width, out_channels=512),
        text_backbone=dict(
            type='mmslip.TextTransformer',
            context_length=args.context,
            width=text_width,
            num_layers=text_layers,
            num_heads=text_heads,
            quick_gelu=False,  # as open_clip's
        ),
        text_neck=dict(type='mmslip.LinearProjection', in_channels=text_width, out_channels=512),
        head=dict(type='mmslip.CLIPHead'),
    )
    neck = dict(
        type='NonLinearNeck',
        in_channels=width,
        hid_channels=hidden,
        out_channels=256,
        num_layers=3,
        with_bias=True,
        with_last_bias=True,
        with_last_bn=False,
        with_avg_pool=False,
        norm_cfg=dict(type='BN1d'),
    )
    model = SLIP(
        backbone=dict(
            type='mmslip.VisionTransformer',
            arch=dict(
                embed_dims=width,
                num_layers=layers,
                num_heads=heads,
                feedforward_channels=4 * width,
            ),
            img_size=args.image_size,
            patch_size=args.patch_size,
            patch_dropout=0.5 if cheap else 0.0,
        ),
        ssl=None
        if name == 'clip'
        else dict(type='mmslip.SimCLR', neck=neck, head=dict(type='mmslip.SimCLRHead')),
        chunk_size=args.chunk_size,
        **({} if name == 'simclr' else language),
    )
    batch = make_batch(args, args.image_size // 2 if cheap else args.image_size)
    batch['text'] = batch['text'][:, : args.caption]  # as the preprocessor does
    return model, batch


def ours(name: str, args: argparse.Namespace) -> Step:
    """A training step as mmengine runs it, behind the preprocessor."""
    model, batch = build_ours(name, args)
    logging.disable(logging.INFO)  # mmengine tells of every weight
    model.init_weights()
    logging.disable(logging.NOTSET)
    prepare(model, model.backbone.patch_embed, args)
    if args.compile:
        compile_blocks(find_blocks(model))
    cfg = dict(constructor='mmslip.NoDecay1dOptimWrapperConstructor', optimizer=OPTIMIZER)
    wrapper = build_optim_wrapper(model, cfg)

    def step() -> None:
        with autocast(args):
            loss, _ = model.parse_losses(model.loss(batch))
        wrapper.update_params(loss)

    return step


def open_clip(args: argparse.Namespace) -> Step:
    """A training step as open_clip runs it, with towers of the same shapes."""
    from open_clip.loss import ClipLoss
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    (width, layers, heads), (text_width, text_layers, text_heads), _ = SIZES[args.size]
    model = CLIP(
        512,
        CLIPVisionCfg(
            layers=layers,
            width=width,
            head_width=width // heads,
            patch_size=args.patch_size,
            image_size=args.image_size,
        ),
        CLIPTextCfg(
            context_length=args.context, width=text_width, heads=text_heads, layers=text_layers
        ),
    )
    prepare(model, model.visual.conv1, args)
    if args.compile:
        compile_blocks(find_blocks(model))
    params = list(model.parameters())
    groups = [
        dict(params=[param for param in params if param.ndim >= 2]),
        dict(params=[param for param in params if param.ndim < 2], weight_decay=0.0),
    ]
    options = {key: value for key, value in OPTIMIZER.items() if key != 'type'}
    optimizer = torch.optim.AdamW(groups, **options)
    loss_of, batch = ClipLoss(), make_batch(args, args.image_size)

    def step() -> None:
        optimizer.zero_grad()
        with autocast(args):
            loss = loss_of(*model(batch['image'], batch['text']))
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)

    return step


def prepare(model: nn.Module, patches: nn.Module, args: argparse.Namespace) -> None:
    model.to(args.device).train()
    if args.channels_last:
        patches.to(memory_format=torch.channels_last)


def autocast(args: argparse.Namespace) -> torch.autocast | nullcontext:
    return torch.autocast(args.device, torch.bfloat16) if args.amp else nullcontext()


def build(name: str, args: argparse.Namespace) -> Step:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return open_clip(args) if name == 'open_clip' else ours(name, args)


def count_flops(name: str, args: argparse.Namespace) -> int:
    """FLOPs of a step without recomputation; open_clip's are those of ``clip``."""
    plain = argparse.Namespace(**{**vars(args), 'chunk_size': None, 'device': 'meta'})
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmpretrain'):
        model, batch = build_ours('clip' if name == 'open_clip' else name, plain)
    model.train()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if model.with_text:
            model.embed(batch)
        if model.ssl is not None:
            for view in batch['views']:
                model.ssl.neck(model.backbone(view))
    return 3 * counter.get_total_flops()


def seconds(step: Step, number: int, device: str) -> float:
    """Time of some steps: between events on a GPU, of the processor on a CPU."""
    if device == 'cpu':
        start = time.process_time()
        for _ in range(number):
            step()
        return time.process_time() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(number):
        step()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def peak_memory(name: str, args: argparse.Namespace) -> float:
    """GiB that two steps take of this process, which runs nothing else, on a CPU."""
    torch.set_num_threads(1)
    before = resident_peak()
    step = build(name, args)
    for _ in range(2):
        step()
    return (resident_peak() - before) / 2**30


def resident_peak() -> int:
    """Largest resident size of this process so far, in bytes (Linux)."""
    # Not getrusage: there a new process begins with the size of the one that started it.
    status = Path('/proc/self/status').read_text()
    return int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]) * 1024


def peak_flops(args: argparse.Namespace) -> float:
    """FLOP/s of the device: given, known (else 0), or on a CPU those of a large matrix product."""
    if args.peak_tflops:
        return args.peak_tflops * 1e12
    if args.device == 'cuda':
        name = torch.cuda.get_device_name()
        known = [part for part in PEAK_TFLOPS if part in name and args.amp]
        return 1e12 * PEAK_TFLOPS[max(known, key=len)] if known else 0
    a = torch.rand(2048, 2048, dtype=torch.bfloat16 if args.amp else torch.float32)
    return 2 * 2048**3 / min(seconds(lambda: a @ a, 1, 'cpu') for _ in range(5))


def warm_up(name: str, args: argparse.Namespace) -> tuple[Step, float | None]:
    """A step that has been taken, and the GiB of a GPU that its model took in it at most."""
    on_gpu = args.device == 'cuda'
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_gpu else 0
    step = build(name, args)
    for _ in range(3):  # allocate, choose kernels, compile
        step()
    return step, (torch.cuda.max_memory_allocated() - before) / 2**30 if on_gpu else None


def measure(
    args: argparse.Namespace,
) -> tuple[dict[str, list[float]], dict[str, float | None]]:
    """Seconds of a step in each round, and GiB, by model."""
    steps, memory = {}, {}
    for name in args.models:
        try:
            steps[name], memory[name] = warm_up(name, args)
        except torch.OutOfMemoryError:
            print(f'{name}: the GPU has no memory for a batch of {args.batch}')
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, step in steps.items():
            times[name].append(seconds(step, args.steps, args.device) / args.steps)
    return times, memory


def spread(values: Sequence[float]) -> str:
    return f'{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})'


def figures(args: argparse.Namespace, peak: float) -> dict[str, dict]:
    """What was measured, by model; times are those of each round."""
    memory = {}
    if args.memory and args.device == 'cpu':
        for name in args.models:
            with multiprocessing.get_context('spawn').Pool(1) as pool:
                memory[name] = pool.apply(peak_memory, (name, args))
    times, on_gpu = measure(args)
    first = next(iter(times.values()), [])
    found = {}
    for name, values in times.items():
        median, flops = statistics.median(values), count_flops(name, args)
        found[name] = dict(
            images_per_s=args.batch / median,
            ms_a_step=1000 * median,
            times_first=[value / other for value, other in zip(values, first, strict=True)],
            gflop_a_step=flops / 1e9,
            utilisation=flops / median / peak if peak else None,
            peak_gib=memory.get(name, on_gpu[name]),
        )
    return found


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    peak = peak_flops(args)
    found = figures(args, peak)
    table = Table('model', 'images/s', 'ms a step', f'times the step of {next(iter(found), "-")}')
    for column in ('GFLOP a step', 'utilisation', 'peak GiB'):
        table.add_column(column, justify='right')
    for name, row in found.items():
        table.add_row(
            name,
            f'{row["images_per_s"]:.1f}',
            f'{row["ms_a_step"]:.1f}',
            spread(row['times_first']),
            f'{row["gflop_a_step"]:.1f}',
            '-' if row['utilisation'] is None else f'{row["utilisation"]:.0%}',
            '-' if row['peak_gib'] is None else f'{row["peak_gib"]:.2f}',
        )
    device = torch.cuda.get_device_name() if args.device == 'cuda' else 'one core'
    print(f'PyTorch {torch.__version__}, {device}, {peak / 1e12:.3g} TFLOP/s; {vars(args)}')
    Console(width=130).print(table)
    if args.json:
        args.json.write_text(json.dumps(dict(device=device, peak_tflops=peak / 1e12, models=found)))
    if not found:
        raise SystemExit('No model took a step.')


if __name__ == '__main__':
    main()
