"""A sheet shows its pictures, framed as asked, and any text."""

import warnings

import numpy as np

from mmslip.utils.contact_sheet import Tile, cut, draw_grid, draw_sheet, text_width

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


LONG = 'a_file_name_that_is_far_longer_than_the_tile_below_it_is_wide_0001.jpg'


def ink(picture: np.ndarray) -> np.ndarray:
    return (picture < 128).all(-1)


def test_titles_stay_above_their_pictures() -> None:
    tiles = [Tile(plain(RED), LONG), Tile(plain(RED), LONG), Tile(plain(RED), 'short')]
    for size in (1, 2):
        side = round(100 * size)
        marked = ink(draw_sheet([('', tiles)], size=size))
        columns = np.flatnonzero(marked.any(axis=0))
        assert (columns > 260).all()
        for tile in range(3):  # white on both sides of each title
            inside = columns[(columns >= 260 + tile * side) & (columns < 260 + (tile + 1) * side)]
            assert len(inside) > 10
            assert inside[0] >= 260 + tile * side + 5
            assert inside[-1] < 260 + (tile + 1) * side - 5
        assert np.flatnonzero(marked.any(axis=1))[-1] < 20  # nothing lies on a picture
    narrow = ink(draw_sheet([('', tiles[:1])], LONG * 10, size=1))
    assert not narrow[:, [0, 1, 2, -3, -2, -1]].any()


def test_texts_of_rows_stay_in_their_column_and_row() -> None:
    words, word = 'many words of a caption ' * 60, 'x' * 400
    one, two = (ink(draw_sheet([(text, [Tile(plain(RED))])] * 2)) for text in (words, word))
    for marked in (one, two):
        assert np.flatnonzero(marked.any(axis=0))[-1] < 260
        rows = np.flatnonzero(marked.any(axis=1))
        assert rows[0] >= 0
        assert not marked[218:222].any()  # between the rows


def test_file_names_keep_both_ends() -> None:
    short = cut(LONG, 100)
    assert short.startswith('a_file')
    assert short.endswith('1.jpg')
    assert 85 < text_width(short) <= 100
    assert cut('short', 100) == 'short'
    assert cut(LONG, 1) == ''


def test_a_grid_has_rows_of_equal_length_and_lines_below() -> None:
    lines = [(LONG, '12.3%'), ('b', '1%')]
    tiles = [Tile(plain(BLUE), str(number), lines=lines) for number in range(7)]
    picture = draw_grid(tiles)
    height = 220 + 20 + 2 * 16 + 6
    assert picture.shape == (2 * height, 4 * 220, 3)
    blue = (picture == BLUE).all(-1)
    for number in range(8):
        row, column = divmod(number, 4)
        tile = np.s_[row * height : (row + 1) * height, column * 220 : (column + 1) * 220]
        assert blue[tile].any() == (number < 7)
        text = ink(picture)[tile][240:]
        assert text.any() == (number < 7)
        assert not text[:, [0, 1, 2, 3, 4, -5, -4, -3, -2, -1]].any()
    assert draw_grid(tiles[:1], LONG * 3).shape == (height + 30, 220, 3)
