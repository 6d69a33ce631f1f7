"""Pictures with words, drawn into one."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ['Tile', 'draw_sheet']

# Matplotlib's own font has no East Asian characters, Devanagari or emoji; where a text needs
# them, the first of these that is installed is asked.
_FONTS = (
    'DejaVu Sans', 'Noto Sans', 'Noto Sans CJK SC', 'Noto Sans CJK JP', 'WenQuanYi Zen Hei',
    'PingFang SC', 'Hiragino Sans', 'Microsoft YaHei', 'Yu Gothic', 'Malgun Gothic', 'Arial',
    'Noto Sans Devanagari', 'Nirmala UI', 'Noto Emoji', 'Segoe UI Emoji',
)  # fmt: skip


class Tile(NamedTuple):
    """A picture of a sheet."""

    picture: np.ndarray  # RGB uint8 (H, W, 3)
    title: str = ''
    frame: str | None = None  # colour, of Matplotlib; none is a thin grey line


def draw_sheet(
    rows: Sequence[tuple[str, Sequence[Tile]]], title: str = '', size: float = 2.0
) -> np.ndarray:
    """Draw rows of a text and the pictures that belong to it.

    Args:
        rows: Text, set to the left, and pictures. Rows may be of different length.
        title: Stands above all.
        size: Side of a tile, in hundreds of pixels.

    Returns:
        RGB uint8 ``(H, W, 3)``.
    """
    columns = max(len(tiles) for _, tiles in rows)
    # Without pyplot: no global state, no display, no open figure left behind.
    figure = Figure(
        figsize=(2.6 + size * columns, 0.5 * bool(title) + (size + 0.2) * len(rows)),
        dpi=100,
        layout='constrained',
    )
    canvas = FigureCanvasAgg(figure)
    # Captions may hold dollar signs, which are no formulas here.
    style = dict(fontfamily=_fonts(), fontsize=9, parse_math=False)
    if title:
        figure.suptitle(title, **dict(style, fontsize=10))
    grid = figure.add_gridspec(len(rows), columns + 1, width_ratios=[2.6] + [size] * columns)
    for row, (text, tiles) in enumerate(rows):
        label = figure.add_subplot(grid[row, 0])
        label.set_axis_off()
        label.text(0.97, 0.5, _wrap(text), ha='right', va='center', **style)
        for column, tile in enumerate(tiles, 1):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(tile.picture, interpolation='nearest')
            axes.set(xticks=[], yticks=[])
            axes.set_title(_cut(tile.title, round(14 * size)), **style)
            for spine in axes.spines.values():
                spine.set(color=tile.frame or 'lightgrey', linewidth=3 if tile.frame else 1)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _cut(text: str, width: int) -> str:
    """Without its middle where it is too long: file names differ at their ends."""
    half = width // 2
    return text if len(text) <= width else f'{text[:half]} ... {text[-half:]}'


def _wrap(text: str) -> str:
    lines = [
        textwrap.fill(textwrap.shorten(line, 220, placeholder=' ...'), 30)
        for line in text.splitlines()
    ]
    return '\n'.join(lines)


def _fonts() -> list[str]:
    installed = set(font_manager.get_font_names())
    return [name for name in _FONTS if name in installed]
