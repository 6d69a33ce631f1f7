"""What weights between two trainings gain and forget."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

__all__ = ['Point', 'best_of', 'draw_curve', 'table_of']


@dataclass(frozen=True)
class Point:
    """An interpolation and its scores, higher being better.

    Attributes:
        alpha: 0 for the weights before the adaptation, 1 for those after it.
        own: Score on the data of the adaptation.
        kept: Score on what must not be forgotten, where that is judged.
    """

    alpha: float
    own: float
    kept: float | None = None

    @property
    def mean(self) -> float:
        """Of both scores."""
        return self.own if self.kept is None else (self.own + self.kept) / 2


def best_of(points: Sequence[Point]) -> Point:
    """The point of the highest mean; of equal ones, that with the smaller change."""
    return max(points, key=lambda point: (point.mean, -point.alpha))


def table_of(points: Sequence[Point], names: Sequence[str], chosen: Point) -> str:
    """A Markdown table; the chosen row is marked.

    Args:
        points: Its rows.
        names: Of the scores, one or two.
        chosen: One of them.
    """
    head = ['alpha', *names, *(['mean'] if len(names) > 1 else []), '']
    rows = [head, [':--', *['--:'] * (len(head) - 2), ':--']]
    for point in points:
        scores = [point.own] if point.kept is None else [point.own, point.kept, point.mean]
        mark = 'chosen' if point == chosen else ''
        rows.append([f'{point.alpha:g}', *(f'{score:.2f}' for score in scores), mark])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = (
        ' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return '\n'.join(f'| {line} |' for line in lines) + '\n'


def draw_curve(
    points: Sequence[Point], names: Sequence[str], chosen: Point, path: str | Path
) -> None:
    """Draw own over kept score, a point for each alpha; over alpha, where nothing is kept.

    Args:
        points: In the order of alpha.
        names: Of the scores, one or two.
        chosen: One of the points.
        path: Of the picture.
    """
    figure = Figure(figsize=(5.2, 4.2), layout='constrained')
    axes = figure.add_subplot()
    across = [point.alpha if point.kept is None else point.kept for point in points]
    axes.plot(across, [point.own for point in points], '-o', color='tab:blue', markersize=5)
    place = across[list(points).index(chosen)]
    ring = dict(s=140, facecolors='none', edgecolors='tab:red', linewidths=1.8, zorder=3)
    axes.scatter([place], [chosen.own], **ring, label=f'chosen, alpha {chosen.alpha:g}')
    for number, (x, point) in enumerate(zip(across, points, strict=True)):
        side, align = ((-10, 'right'), (10, 'left'))[number % 2]  # neighbours may be close
        place = dict(xytext=(side, 0), textcoords='offset points', ha=align, va='center')
        axes.annotate(f'{point.alpha:g}', (x, point.own), fontsize=9, **place)
    axes.set_ylim(_span([point.own for point in points]))
    if len(names) > 1:
        axes.set_xlim(_span(across))
    axes.set_ylabel(names[0])
    axes.set_xlabel('alpha' if len(names) == 1 else f'kept: {names[1]}')
    axes.set_title('0: before the adaptation, 1: after it', fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc='best', fontsize=9)
    figure.savefig(path, dpi=110)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Limits of an axis, five percent apart at least: chance alone moves scores by less."""
    middle, half = (max(values) + min(values)) / 2, (max(values) - min(values)) / 2
    half = max(1.2 * half, 2.5)
    return middle - half, middle + half
