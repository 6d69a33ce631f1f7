"""A sheet shows its pictures, framed as asked, and any text."""

import warnings

import numpy as np

from mmslip.utils.contact_sheet import Tile, draw_sheet

GREEN, RED, BLUE = (44, 160, 44), (255, 0, 0), (0, 0, 255)  # `tab:green` first


def plain(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((20, 20, 3), colour, np.uint8)


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """First and last row, first and last column of what is marked."""
    rows, columns = np.nonzero(mask)
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_frame_lies_close_around_its_picture() -> None:
    tiles = [Tile(plain(BLUE), frame='tab:green'), Tile(plain(RED))]
    picture = draw_sheet([('a text', tiles)], 'title', size=1)
    assert picture.dtype == np.uint8
    assert picture.shape == (170, 460, 3)
    green, inner, wrong = ((picture == colour).all(-1) for colour in (GREEN, BLUE, RED))
    top, bottom, left, right = box(inner)
    assert bottom - top > 40
    # On all four sides, and nowhere else.
    near = np.array(box(green)) - (top, bottom, left, right)
    assert (near[[0, 2]] < 0).all()
    assert (near[[1, 3]] > 0).all()
    assert (abs(near) <= 6).all()
    assert green[(top + bottom) // 2].sum() >= 4
    assert box(wrong)[2] > right + 5  # red stands to the right of blue


def test_rows_of_different_length_stand_below_each_other() -> None:
    tiles = [Tile(plain(BLUE), frame='tab:green'), Tile(plain(BLUE))]
    picture = draw_sheet([('a', [Tile(plain(RED))]), ('b', tiles)], size=1)
    assert picture.shape == (240, 460, 3)
    assert box((picture == GREEN).all(-1))[0] > box((picture == RED).all(-1))[1]


def test_texts_are_drawn_as_they_are() -> None:
    def ink(text: str) -> int:
        return int((draw_sheet([(text, [Tile(plain(RED))])]) < 128).all(-1).sum())

    with warnings.catch_warnings():
        warnings.simplefilter('error')
        # A formula that is not closed would raise.
        assert ink('costs $5 or \\frac{') > ink('') == 0
        assert ink('Überschrift\nčeština') > ink('Überschrift') > 0
