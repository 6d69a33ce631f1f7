"""Drawings of a report, as SVG and HTML without anything from elsewhere.

Colours are classes that the style sheet defines, so that they follow the reader's light or dark
mode; every text goes through an escape.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator

from mmslip.analysis.report.runs import Run
from mmslip.analysis.report.tables import Row, is_score

__all__ = ['bar_groups', 'curve_panels', 'heat_map']

# In the order of a report; quantities that are not here follow by name.
_FIRST = ('loss', 'loss_clip', 'loss_ssl', 'acc_clip', 'acc_ssl', 'logit_scale', 'lr')
_LAST = ('images_per_s',)
_WIDTH, _HEIGHT = 380, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 372, 8, 176
_MAX_POINTS = 300  # of a curve: more than its pixels show nothing
_SCALES = (1, 2, 5, 10, 20, 50, 100)
Point = tuple[float, float]


def curve_panels(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One panel for each quantity, with the curves of all runs: ``title`` and ``svg``."""
    names = {name for run in runs for name in run.curves}

    def place(name: str) -> tuple:
        if name in _FIRST:
            return 0, _FIRST.index(name), name
        return 1 + (name in _LAST), '/' in name, name

    panels = []
    for name in sorted(names, key=place):
        curves = [(number, run.name, run.curves.get(name)) for number, run in enumerate(runs)]
        panels.append(dict(title=name, svg=line_chart([curve for curve in curves if curve[2]])))
    return panels


def line_chart(curves: Sequence[tuple[int, str, Sequence[Point]]]) -> Markup:
    """Curves ``(number of the colour, name, points)`` over a common step axis.

    The points stand in ``data-curves``, from which the page's script reads out values.
    """
    thinned = [(number, name, thin(points)) for number, name, points in curves]
    points = np.concatenate([np.array(curve) for _, _, curve in thinned])
    (left, low), (right, high) = points.min(axis=0), points.max(axis=0)
    right = right if right > left else left + 1
    # A flat curve gets room, too.
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1
    low, high = low - room, high + room

    def x(value: float) -> float:
        return round(_LEFT + (value - left) / (right - left) * (_RIGHT - _LEFT), 1)

    def y(value: float) -> float:
        return round(_BOTTOM - (value - low) / (high - low) * (_BOTTOM - _TOP), 1)

    parts = []
    for tick in ticks(low, high):
        parts.append(f'<path class="grid" d="M{_LEFT} {y(tick)}H{_RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(tick) + 4}" class="end">{short(tick)}</text>')
    for tick in ticks(left, right):
        parts.append(f'<text x="{x(tick)}" y="{_BOTTOM + 17}" class="mid">{short(tick)}</text>')
    for number, _, curve in thinned:
        line = 'M' + 'L'.join(f'{x(step)} {y(value)}' for step, value in curve)
        dots = '' if len(curve) > 20 else ''.join(
            f'<circle cx="{x(step)}" cy="{y(value)}" r="2"/>' for step, value in curve
        )  # fmt: skip
        parts.append(f'<g class="curve c{number % 8}"><path d="{line}"/>{dots}</g>')
    data = dict(
        curves=[
            dict(
                name=name,
                color=number % 8,
                steps=[step for step, _ in curve],
                values=[float(f'{value:.4g}') for _, value in curve],
                at=[[x(step), y(value)] for step, value in curve],
            )
            for number, name, curve in thinned
        ]
    )
    return Markup(
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'data-curves="{escape(json.dumps(data))}">{"".join(parts)}'
        f'<path class="rule" d="M0 {_TOP}V{_BOTTOM}"/></svg>'
    )


def thin(points: Sequence[Point]) -> list[Point]:
    """Means of neighbouring points, where there are more than a chart can show."""
    if len(points) <= _MAX_POINTS:
        return [(float(step), float(value)) for step, value in points]
    groups = np.array_split(np.array(points, float), _MAX_POINTS)
    return [(round(float(step)), float(value)) for step, value in (g.mean(axis=0) for g in groups)]


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two."""
    found = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in found if low <= tick <= high]


def short(value: float) -> str:
    """A number for an axis."""
    if abs(value) >= 10000:
        return f'{value / 1000:g}k'
    return f'{value:.4g}'.replace('e-0', 'e-')


def bar_groups(rows: Sequence[Row], runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Bars of the official figures, a group for each protocol with a scale of its own.

    Lengths are percentages of the scale, which ends at a round number beyond all values.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if (row.official or row.key[1] is None) and is_score(row.key[2]):
            groups.setdefault(row.key[0] or 'other', []).append(row)
    result = []
    for protocol, members in groups.items():
        values = [value for row in members for value in _values(row)]
        if not values:
            continue
        scale = next((scale for scale in _SCALES if scale >= max(values)), 100)
        sets = [
            dict(
                title=row.title,
                metric=row.key[2],
                bars=list(_bars(row, runs, scale)),
                published=[
                    dict(name=name, at=_share(value, scale), value=value)
                    for name, value in row.published.items()
                ],
            )
            for row in members
        ]
        result.append(dict(protocol=protocol, scale=scale, half=f'{scale / 2:g}', sets=sets))
    return result


def _values(row: Row) -> Iterator[float]:
    for record in row.records.values():
        yield from (record[k] for k in ('value', 'high') if record.get(k) is not None)
    yield from row.published.values()


def _bars(row: Row, runs: Sequence[Run], scale: float) -> Iterator[dict[str, Any]]:
    for number, run in enumerate(runs):
        record = row.records.get(run.name, {})
        if record.get('value') is not None:
            ends = [record.get(key) for key in ('low', 'high')]
            yield dict(
                run=run.name,
                color=number % 8,
                value=record['value'],
                length=_share(record['value'], scale),
                ends=None if None in ends else [_share(end, scale) for end in ends],
            )


def _share(value: float, scale: float) -> float:
    return round(100 * min(max(value / scale, 0), 1), 2)


def heat_map(similarity: dict[str, Any]) -> dict[str, Any] | None:
    """Texts, images and rows of cells ``(shade from 0 to 1, cosine)`` of a similarity matrix."""
    cosines = np.array(similarity['cosines'], dtype=float)  # None becomes NaN
    if not np.isfinite(cosines).any():
        return None
    low, high = float(np.nanmin(cosines)), float(np.nanmax(cosines))
    shades = np.nan_to_num((cosines - low) / ((high - low) or 1)).round(2)
    cells = [
        list(zip(*pair, strict=True))
        for pair in zip(shades.tolist(), similarity['cosines'], strict=True)
    ]
    rows = list(zip(similarity['texts'], cells, strict=True))
    return dict(images=similarity['images'], rows=rows, low=low, high=high)
