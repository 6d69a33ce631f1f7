"""Charts of a report, as SVG and HTML without anything from elsewhere.

Their colours are variables of the style sheet, so that they follow the reader's light or dark mode.
"""

import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmslip.analysis.report.runs import Run
from mmslip.analysis.report.tables import Row, is_score

__all__ = ['bar_groups', 'curve_panels', 'heat_map']

# In the order of a report; quantities that are not here follow by name.
_FIRST = ('loss', 'loss_clip', 'loss_ssl', 'acc_clip', 'acc_ssl', 'logit_scale', 'lr')
_LAST = ('images_per_s', 'captioned', 'bare')
_WIDTH, _HEIGHT = 380, 200  # points
_PLACE = (0.116, 0.12, 0.863, 0.84)  # of the axes: left, bottom, width, height, of the whole
# Stand-ins that Matplotlib draws with, for the variables of the style sheet.
_CURVES = [f'#00000{number}' for number in range(1, 9)]
_QUIET, _LINE = '#00000a', '#00000b'
_VARIABLES = {
    **{colour: f'var(--c{number})' for number, colour in enumerate(_CURVES)},
    _QUIET: 'var(--quiet)',
    _LINE: 'var(--line)',
}
# Text as text, and the same ids at every writing.
_STYLE = {'font.size': 11, 'lines.markersize': 4, 'svg.fonttype': 'none', 'svg.hashsalt': 'mmslip'}
# What an SVG needs outside of an HTML page only, or would do to the rest of the page.
_FOREIGN = re.compile(
    r'<metadata>.*?</metadata>|<style.*?</style>| xmlns(:\w+)?="[^"]*"| id="[a-z2.]+_\d+"|'
    r'font-family: [^;]*; ',
    re.DOTALL,
)
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
    thinned = [(number % 8, name, np.array(thin(points))) for number, name, points in curves]
    buffer = io.StringIO()
    with rc_context(_STYLE):
        figure = Figure((_WIDTH / 72, _HEIGHT / 72), dpi=72)
        axes = figure.add_axes(_PLACE, xmargin=0)
        axes.spines[:].set_visible(False)
        axes.grid(axis='y', color=_LINE, linewidth=1, clip_on=False)
        axes.tick_params(length=0, colors=_QUIET)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
            axis.set_major_formatter(lambda value, _: short(value))
        for color, _, points in thinned:
            dots = dict(marker='o') if len(points) <= 20 else {}
            axes.plot(*points.T, color=_CURVES[color], linewidth=1.6, clip_on=False, **dots)
        figure.savefig(buffer, format='svg', transparent=True, metadata=dict(Date=None))
    data = []
    for color, name, points in thinned:
        steps, values = points.T.tolist()
        # Upwards in Matplotlib is downwards in SVG.
        at = np.abs(axes.transData.transform(points) - (0, _HEIGHT)).round(1).tolist()
        values = [float(f'{value:.4g}') for value in values]
        data.append(dict(name=name, color=color, steps=steps, values=values, at=at))
    svg = _FOREIGN.sub('', buffer.getvalue().partition('<svg')[2])
    svg = re.sub(r'#00000[0-9a-f]', lambda found: _VARIABLES[found[0]], svg)
    data = escape(json.dumps(dict(curves=data)))
    rule = f'<path class="rule" d="M0 0V{_HEIGHT * (1 - _PLACE[1]):g}"/>'
    return Markup(
        f'<svg class="chart" role="img" data-curves="{data}"'
        + svg.replace('</svg>', f'{rule}</svg>')
    )


def thin(points: Sequence[Point]) -> list[Point]:
    """Means of neighbouring points, where there are more than a chart can show."""
    if len(points) <= _MAX_POINTS:
        return [(float(step), float(value)) for step, value in points]
    groups = np.array_split(np.array(points, float), _MAX_POINTS)
    return [(round(float(step)), float(value)) for step, value in (g.mean(axis=0) for g in groups)]


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
