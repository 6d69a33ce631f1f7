"""The figures of several runs, side by side and as one list."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmslip.analysis.report.runs import Key, Run
from mmslip.datasets.tasks import list_tasks, load_task
from mmslip.evaluation.published import load_published

__all__ = ['Row', 'columns_of', 'figure_rows', 'to_csv', 'to_list', 'to_markdown']

# What a published figure is read beside: the paper's main models, at its main length.
_REFERENCE = ('clip_vit-b16_yfcc15m', 'slip_vit-b16_yfcc15m')
_PROTOCOLS = (*('zero_shot', 'knn', 'linear', 'linear_exact', 'finetune', 'retrieval', 'accuracy'),)
_FIELDS = (
    'run', 'protocol', 'task', 'metric', 'official', 'value', 'low', 'high', 'samples', 'mode',
    'epoch', 'iter', 'checkpoint', 'time',
)  # fmt: skip


@dataclass
class Row:
    """One figure of several runs.

    Args:
        key: Protocol, task and metric.
        title: What tables call the task.
        official: Whether the task is judged by it.
        records: By run.
        published: By published model.
        best: Names of the runs with the highest value, where several have one.
    """

    key: Key
    title: str
    official: bool
    records: dict[str, dict[str, Any]]
    published: dict[str, float]
    best: tuple[str, ...]


def figure_rows(runs: Sequence[Run], published: Sequence[str] | None = None) -> list[Row]:
    """All figures of the runs in the order of a table.

    Args:
        runs: The runs.
        published: Names of published models; by default the one that has a run's name, and the
            paper's CLIP and SLIP of ViT-B.

    Raises:
        ValueError: A published model is unknown.
    """
    known = load_published()
    if published is None:
        own = [run.config_name for run in runs if run.config_name in known]
        published = dict.fromkeys((*own, *_REFERENCE))
    unknown = [name for name in published if name not in known]
    if unknown:
        raise ValueError(
            f'No published model is called {", ".join(unknown)}: choose among {", ".join(known)}.'
        )
    keys = dict.fromkeys(key for run in runs for key in run.figures)
    order = {task: place for place, task in enumerate(list_tasks())}
    rows = []
    for key in keys:
        protocol, task, metric = key
        records = {run.name: run.figures[key] for run in runs if key in run.figures}
        name = f'{protocol}/{task}_{metric}' if task else f'{protocol}/{metric}'
        figures = {model: known[model]['results'].get(name) for model in published}
        title = load_task(task).title if task in order else task or _title_of_mean(records)
        official = any(record.get('official') for record in records.values())
        figures = {model: value for model, value in figures.items() if value is not None}
        best = _best(metric, records)
        if task is None and protocol == 'zero_shot':
            sets = [record['sets'] for record in records.values()]
            if any(other != sets[0] for other in sets):
                best = ()
            if any(set(other) != order.keys() for other in sets):
                figures = {}  # the published mean is that of its 26 sets
        rows.append(Row(key, title, official, records, figures, best))

    def place(row: Row) -> tuple:
        protocol, task, _ = row.key
        first = _PROTOCOLS.index(protocol) if protocol in _PROTOCOLS else len(_PROTOCOLS)
        # The sort is stable: what is equal keeps the order of its record.
        return first, str(protocol), task is not None, order.get(task, len(order))

    return sorted(rows, key=place)


def _title_of_mean(records: dict[str, dict]) -> str:
    numbers = {len(record.get('sets', ())) for record in records.values()}
    number = f'{numbers.pop()} sets' if len(numbers) == 1 else "each run's own sets"
    return f'mean of {number}'


def _best(metric: str, records: dict[str, dict]) -> tuple[str, ...]:
    values = {run: record['value'] for run, record in records.items()}
    values = {run: value for run, value in values.items() if value is not None}
    if len(values) < 2 or not is_score(metric):
        return ()
    return tuple(run for run, value in values.items() if value == max(values.values()))


def is_score(metric: str) -> bool:
    """Whether a figure is a percentage of which more is better, and no setting that was chosen."""
    return metric != 'l2'


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Published models that at least one row has a figure of."""
    return list(dict.fromkeys(model for row in rows for model in row.published))


def to_list(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One flat entry for each figure of each run and, with the mode ``published``, each model."""
    return [dict(zip(_FIELDS, entry, strict=True)) for entry in _entries(rows)]


def _entries(rows: Sequence[Row]) -> Iterator[tuple]:
    for row in rows:
        for run, record in row.records.items():
            yield run, *row.key, row.official, *(record.get(field) for field in _FIELDS[5:])
        for model, value in row.published.items():
            epochs = load_published()[model]['epochs']
            yield (
                model, *row.key, row.official, value, None, None, None, 'published', epochs, None,
                None, None,
            )  # fmt: skip


def to_csv(rows: Sequence[Row]) -> str:
    """The list as CSV; what is unknown is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _FIELDS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(to_list(rows))
    return text.getvalue()


def to_markdown(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """The table of all figures, the highest of the runs in bold."""
    models = columns_of(rows)
    head = ['set', 'protocol', 'metric', *(run.name for run in runs)]
    head += [f'{model} (published)' for model in models]
    lines = [head, [':--'] * 3 + ['--:'] * (len(head) - 3)]
    for row in rows:
        protocol, _, metric = row.key
        cells = [row.title, protocol or '', metric]
        for run in runs:
            text, interval = figure_parts(row, run.name)
            text = f'**{text}**' if run.name in row.best else text
            cells.append(f'{text} ({interval})' if interval else text)
        cells += [
            f'{row.published[model]:.1f}' if model in row.published else '' for model in models
        ]
        lines.append(cells)
    for run in runs:
        for task, reason in run.skipped.items():
            lines.append([task, '', f'{run.name} skipped it: {reason}'] + [''] * (len(head) - 3))
    return ''.join(f'| {" | ".join(map(_cell, line))} |\n' for line in lines)


def figure_parts(row: Row, run: str) -> tuple[str, str]:
    """Texts of a figure and of its interval; empty where there is none."""
    if run not in row.records:
        return '', ''
    record = row.records[run]
    if record['value'] is None:
        return 'not finite', ''
    text = f'{record["value"]:.2f}' if is_score(row.key[2]) else f'{record["value"]:.3g}'
    if record.get('low') is None or record.get('high') is None:
        return text, ''
    return text, f'{record["low"]:.2f} to {record["high"]:.2f}'


def _cell(text: str) -> str:
    """A pipe would end the cell, a line end the table."""
    return ' '.join(text.replace('|', '\\|').split())
