"""Draw the architecture of README: what a pair passes on its way to the loss.

python tools/draw_architecture.py docs/architecture.png
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

# Fill and edge of each kind of box.
DATA, MODEL, LOSS, TOOL = (
    ('#eef2f7', '#64748b'),
    ('#dbeafe', '#2563eb'),
    ('#fee2d5', '#ea580c'),
    ('#f3f4f6', '#9ca3af'),
)
# Left, bottom, width, height, kind, first line, further lines. One unit is a tenth of an inch.
BOXES = {
    'pair': (0, 11, 13, 26, DATA, 'data set', 'image + captions\n\nfolder, table,\nshards, stream'),
    'views': (17, 30, 14, 7, DATA, '2 views', 'crop, colour, grey,\nblur, flip'),
    'image': (17, 20.5, 14, 7, DATA, '1 view', 'mild crop'),
    'text': (17, 11, 14, 7, DATA, 'token ids', 'one of the captions'),
    'backbone': (35, 20.5, 15, 16.5, MODEL, 'backbone', 'of both halves:\nViT, ResNet,\ntimm, ...'),
    'tower': (35, 11, 15, 7, MODEL, 'text_backbone', 'causal transformer'),
    'method': (54, 30, 15, 7, MODEL, 'ssl', 'SimCLR, MoCo v3, BYOL,\nMAE, ... or none'),
    'neck': (54, 20.5, 15, 7, MODEL, 'neck', 'image features (B, D)'),
    'text_neck': (54, 11, 15, 7, MODEL, 'text_neck', 'text features (B, D)'),
    'head': (73, 14.5, 13, 9.5, MODEL, 'head', 'InfoNCE or SigLIP,\nover all processes'),
    'loss_ssl': (73, 30, 13, 7, LOSS, 'loss_ssl', 'times ssl_weight'),
    'loss_clip': (90, 15.75, 9, 7, LOSS, 'loss_clip', ''),
    'loss': (90, 30, 9, 7, LOSS, 'loss', 'their sum'),
}  # fmt: skip
ARROWS = [
    ('pair', 'views'),
    ('pair', 'image'),
    ('pair', 'text'),
    ('views', 'backbone'),
    ('image', 'backbone'),
    ('text', 'tower'),
    ('backbone', 'method'),
    ('backbone', 'neck'),
    ('tower', 'text_neck'),
    ('neck', 'head'),
    ('text_neck', 'head'),
    ('method', 'loss_ssl'),
    ('head', 'loss_clip'),
    ('loss_ssl', 'loss'),
    ('loss_clip', 'loss'),
]
FLOOR = (
    ('Python config', 'names the parts, from\nthe registries of mmslip,\nmmpretrain and mmengine'),
    ('mmengine Runner', 'DDP, FSDP2, bf16,\nslices of the batch,\nrecomputation, compilation'),
    ('hooks', 'evaluation, checkpoints,\nexact resume, preemption,\nbroken samples, report'),
    ('afterwards', 'classify, search, embed, web;\nopen_clip, timm,\nHugging Face, ONNX'),
)  # fmt: skip


def draw(path: Path) -> None:
    """Draw everything and write ``path``."""
    figure = plt.figure(figsize=(10.4, 4.2), dpi=150, facecolor='white')
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1, 100), ylim=(-2, 39))
    axes.axis('off')
    for box in BOXES.values():
        draw_box(axes, *box)
    for start, end in ARROWS:
        draw_arrow(axes, BOXES[start], BOXES[end])
    for number, (title, text) in enumerate(FLOOR):
        draw_box(axes, number * 25.33, -1, 23, 8.5, TOOL, title, text)
    figure.savefig(path)
    plt.close(figure)


def draw_box(
    axes: Axes,
    left: float,
    bottom: float,
    width: float,
    height: float,
    kind: tuple[str, str],
    title: str,
    text: str,
) -> None:
    """A rounded box with a bold first line."""
    fill, edge = kind
    axes.add_patch(
        FancyBboxPatch(
            (left, bottom),
            width,
            height,
            boxstyle='round,pad=0,rounding_size=0.8',
            facecolor=fill,
            edgecolor=edge,
            linewidth=1.3,
        )
    )
    lines = text.count('\n') + 1 if text else 0
    middle, top = left + width / 2, bottom + height / 2 + lines * 0.7 + 0.3 * bool(text)
    axes.text(middle, top, title, ha='center', va='center', fontsize=10.5, fontweight='bold')
    if text:
        axes.text(
            middle,
            top - 1.4,
            text,
            ha='center',
            va='top',
            fontsize=8.3,
            color='#374151',
            linespacing=1.25,
        )


def draw_arrow(axes: Axes, start: tuple, end: tuple) -> None:
    """From the right edge of a box to the left edge of the next, or to the one above it."""
    left, bottom, width, height = start[:4]
    to_left, to_bottom, to_width, to_height = end[:4]
    if to_left < left + width:
        tail, head = (left + width / 2, bottom + height), (to_left + to_width / 2, to_bottom)
    else:
        # Level where the boxes overlap in height.
        low, high = max(bottom, to_bottom), min(bottom + height, to_bottom + to_height)
        level = (low + high) / 2 if high > low + 1 else None
        tail = (left + width, level or bottom + height / 2)
        head = (to_left, level or to_bottom + to_height / 2)
    axes.annotate(
        '',
        head,
        tail,
        arrowprops=dict(
            arrowstyle='-|>',
            color='#6b7280',
            linewidth=1.3,
            shrinkA=1,
            shrinkB=1,
            mutation_scale=12,
        ),
    )


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('path', type=Path, help='picture to write, .png or .svg')
    draw(parser.parse_args(arguments).path)


if __name__ == '__main__':
    main()
