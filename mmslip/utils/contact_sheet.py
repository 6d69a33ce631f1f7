"""Pictures with words, drawn into one."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

__all__ = ['Tile', 'draw_grid', 'draw_sheet']

# Matplotlib's own font has no East Asian characters, Devanagari, Thai or emoji; where a text needs
# them, the first of these that is installed is asked.
_FONTS = (
    'DejaVu Sans', 'Noto Sans', 'Noto Sans CJK SC', 'Noto Sans CJK JP', 'Noto Sans SC',
    'WenQuanYi Zen Hei', 'PingFang SC', 'Hiragino Sans', 'Microsoft YaHei', 'Yu Gothic',
    'Malgun Gothic', 'Arial', 'Noto Sans Arabic', 'Noto Sans Devanagari', 'Nirmala UI',
    'Noto Sans Thai', 'Leelawadee UI', 'Noto Emoji', 'Segoe UI Emoji',
)  # fmt: skip
# In pixels: height of a line of text, column of the texts of rows, and room around a picture, in
# which its frame lies.
_LINE, _TEXTS, _GAP = 16, 260, 6
_DPI, _POINTS = 100, 9


class Tile(NamedTuple):
    """A picture of a sheet."""

    picture: np.ndarray  # RGB uint8 (H, W, 3)
    title: str = ''  # above
    frame: str | None = None  # colour, of Matplotlib; none is a thin grey line
    lines: Sequence[tuple[str, str]] = ()  # below, of a grid: set to the left, and to the right


def draw_sheet(
    rows: Sequence[tuple[str, Sequence[Tile]]], title: str = '', size: float = 2.0
) -> np.ndarray:
    """Draw rows of a text and the pictures that belong to it.

    Texts are cut or wrapped where they would leave their place.

    Args:
        rows: Text, set to the left, and pictures. Rows may be of different length.
        title: Stands above all.
        size: Side of a tile, in hundreds of pixels.

    Returns:
        RGB uint8 ``(H, W, 3)``.
    """
    columns = max(len(tiles) for _, tiles in rows)
    side, top = round(100 * size), 50 * bool(title)
    high = side + 20
    sheet = _Sheet(top + high * len(rows), _TEXTS + side * columns)
    sheet.write(title, _GAP, top // 2, sheet.width - 2 * _GAP)
    for row, (text, tiles) in enumerate(rows):
        y = top + row * high
        lines = wrap(text, _TEXTS - 2 * _GAP, high // _LINE)
        for number, line in enumerate(lines):
            middle = y + high / 2 + (number - (len(lines) - 1) / 2) * _LINE
            sheet.write(line, _GAP, middle, _TEXTS - 2 * _GAP, 'right')
        for column, tile in enumerate(tiles):
            sheet.place(tile, _TEXTS + column * side, y, side)
    return sheet.draw()


def draw_grid(tiles: Sequence[Tile], title: str = '', size: float = 2.2) -> np.ndarray:
    """Draw pictures in rows of equal length, with lines of text below each.

    Args:
        tiles: The pictures.
        title: Stands above all.
        size: Side of a tile, in hundreds of pixels.

    Returns:
        RGB uint8 ``(H, W, 3)``.
    """
    columns = min(len(tiles), 8, math.ceil(1.2 * math.sqrt(len(tiles))))
    side, top = round(100 * size), 30 * bool(title)
    high = side + 20 + _LINE * max(len(tile.lines) for tile in tiles) + _GAP
    sheet = _Sheet(top + high * math.ceil(len(tiles) / columns), side * columns)
    sheet.write(title, _GAP, top // 2, sheet.width - 2 * _GAP)
    for number, tile in enumerate(tiles):
        x, y = number % columns * side, top + number // columns * high
        sheet.place(tile, x, y, side)
        for line, (left, right) in enumerate(tile.lines):
            at = y + side + 20 + _LINE * (line + 0.5)
            room, taken = side - 4 * _GAP, text_width(right)
            sheet.write(left, x + 2 * _GAP, at, room - taken - _GAP)
            sheet.write(right, x + 2 * _GAP, at, room, 'right')
    return sheet.draw()


class _Sheet:
    """A white picture that others are put on, and texts.

    Args:
        height: In pixels.
        width: In pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self._pixels = np.full((height, width, 3), 255, np.uint8)
        self._texts: list[dict[str, Any]] = []

    def place(self, tile: Tile, x: int, y: int, side: int) -> None:
        """A picture in a square of ``side`` pixels, below a line for its title."""
        self.write(tile.title, x + _GAP, y + 10, side - 2 * _GAP, 'center')
        y, room = y + 20, side - 2 * _GAP
        scale = room / max(tile.picture.shape[:2])
        wide, high = (max(1, round(length * scale)) for length in tile.picture.shape[1::-1])
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
        picture = cv2.resize(tile.picture, (wide, high), interpolation=method)
        left, top = x + (side - wide) // 2, y + (side - high) // 2
        border = 3 if tile.frame else 1
        colour = np.array(to_rgb(tile.frame or 'lightgrey')) * 255
        framed = self._pixels[top - border : top + high + border, left - border :]
        framed[:, : wide + 2 * border] = colour.round().astype(np.uint8)
        self._pixels[top : top + high, left : left + wide] = picture

    def write(self, text: str, x: float, y: float, width: float, align: str = 'left') -> None:
        """A line of text around the height ``y``, cut to the width."""
        text = cut(text, width)
        if text:
            x += dict(left=0, center=width / 2, right=width)[align]
            at = dict(x=x / self.width, y=1 - y / self.height)
            self._texts.append(dict(at, s=text, ha=align, va='center_baseline'))

    def draw(self) -> np.ndarray:
        """RGB uint8 ``(height, width, 3)``."""
        # Without pyplot: no global state, no display, no open figure left behind.
        figure = Figure(figsize=(self.width / _DPI, self.height / _DPI), dpi=_DPI)
        canvas = FigureCanvasAgg(figure)
        figure.figimage(self._pixels, origin='upper')
        for text in self._texts:
            # Captions may hold dollar signs, which are no formulas here.
            figure.text(**text, fontproperties=_font(), parse_math=False)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def cut(text: str, width: float) -> str:
    """A text without its middle where it is too wide: file names differ at their ends."""
    text = ' '.join(text.split())
    if text_width(text) <= width:
        return text

    def short(kept: int) -> str:
        return f'{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}'

    kept = bisect_right(range(1, len(text)), width, key=lambda kept: text_width(short(kept)))
    return short(kept) if kept else ''


def wrap(text: str, width: float, most: int) -> list[str]:
    """Lines of a text that are no wider than ``width``, at most so many."""
    lines = [line for part in text.splitlines() for line in _wrapped(part, width)]
    if len(lines) > most:
        lines = [*lines[: most - 1], f'{lines[most - 1]} ...']
    return lines


def _wrapped(text: str, width: float) -> Iterator[str]:
    line = ''
    for word in text.split():
        longer = f'{line} {word}'.strip()
        if line and text_width(longer) > width:
            yield line
            longer = word
        while text_width(longer) > width and len(longer) > 1:  # a text without spaces
            places = range(1, len(longer) + 1)
            fits = bisect_right(places, width, key=lambda n: text_width(longer[:n])) or 1
            yield longer[:fits]
            longer = longer[fits:]
        line = longer
    yield line


def text_width(text: str) -> float:
    """Width of a line in pixels."""
    return _renderer().get_text_width_height_descent(text, _font(), ismath=False)[0]


@cache
def _renderer() -> Any:
    return FigureCanvasAgg(Figure(dpi=_DPI)).get_renderer()


@cache
def _font() -> FontProperties:
    installed = set(font_manager.get_font_names())
    return FontProperties([name for name in _FONTS if name in installed], size=_POINTS)
