"""The report's page and the tables beside it."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mmslip.analysis.report.charts import bar_groups, curve_panels, heat_map
from mmslip.analysis.report.runs import Run
from mmslip.analysis.report.tables import (
    Row,
    columns_of,
    figure_parts,
    figure_rows,
    to_csv,
    to_list,
    to_markdown,
)
from mmslip.evaluation.published import load_published

__all__ = ['write_report']


def write_report(
    runs: Sequence[Run], out: Path, published: Sequence[str] | None = None
) -> list[Path]:
    """Write ``out``, one HTML file that needs nothing else, and the tables beside it.

    The tables have the name of ``out`` with the endings ``.json``, ``.csv`` and ``.md``; all four
    hold the same figures.

    Args:
        runs: Of :func:`read_runs`.
        out: The HTML file.
        published: Names of published models to show beside; see :func:`figure_rows`.

    Returns:
        The files written.
    """
    rows = figure_rows(runs, published)
    contents = {
        '.html': render(runs, rows),
        '.json': json.dumps(_document(runs, rows), ensure_ascii=False, indent=1) + '\n',
        '.csv': to_csv(rows),
        '.md': to_markdown(rows, runs),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    paths = [out if suffix == '.html' else out.with_suffix(suffix) for suffix in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_text(content, encoding='utf-8')
    return paths


def render(runs: Sequence[Run], rows: Sequence[Row]) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader('mmslip.analysis.report', '.'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    models = columns_of(rows)
    tasks = dict.fromkeys(task for run in runs for task in run.showcases)
    return environment.get_template('page.html').render(
        title=' · '.join(run.name for run in runs),
        date=datetime.now().strftime('%Y-%m-%d %H:%M'),
        runs=[dict(about=run, color=number % 8) for number, run in enumerate(runs)],
        rows=rows,
        models={model: load_published()[model] for model in models},
        groups=bar_groups(rows, runs),
        panels=curve_panels(runs),
        tasks={task: list(_shown(task, runs)) for task in tasks},
        figure_parts=figure_parts,
        origin=_origin,
    )


def _shown(task: str, runs: Sequence[Run]) -> Any:
    for number, run in enumerate(runs):
        if task in run.showcases:
            content = run.showcases[task]
            heat = heat_map(content['similarity'])
            yield dict(name=run.name, color=number % 8, content=content, heat=heat)


def _origin(record: dict[str, Any]) -> str:
    """Mode, checkpoint and epoch, or step, of an evaluation, as one text."""
    checkpoint, epoch, step = (record.get(key) for key in ('checkpoint', 'epoch', 'iter'))
    trained = f'epoch {epoch}' if epoch or (epoch == 0 and not step) else ''
    if step and not trained:
        trained = f'step {step:,}'
    parts = record['mode'], Path(checkpoint).name if checkpoint else '', trained
    return ', '.join(part for part in parts if part)


def _document(runs: Sequence[Run], rows: Sequence[Row]) -> dict[str, Any]:
    return dict(
        runs=[
            dict(
                name=run.name,
                path=str(run.path),
                settings=run.settings,
                skipped=run.skipped,
                notes=run.notes,
            )
            for run in runs
        ],
        published={model: _about(model) for model in columns_of(rows)},
        results=to_list(rows),
    )


def _about(model: str) -> dict[str, Any]:
    return {key: value for key, value in load_published()[model].items() if key != 'results'}
