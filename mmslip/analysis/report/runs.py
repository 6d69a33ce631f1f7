"""Contents of a work folder: settings, curves, figures and pictures."""

import ast
import base64
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ['Run', 'read_runs']

# A log line's own coordinates, and what only the programmer of a data pipeline looks at.
_NO_CURVE = ('epoch', 'iter', 'step', 'time', 'data_time', 'memory', 'base_lr')
# Of a record.
_NEEDED = ('protocol', 'task', 'metric', 'value', 'mode', 'iter', 'time')
# What reading a config or describing it raises where it is damaged, or made to look like one.
_DAMAGE = (SyntaxError, ValueError, TypeError, AttributeError, RecursionError, MemoryError)
Key = tuple[str | None, str | None, str]  # protocol, task, metric


@dataclass
class Run:
    """A work folder.

    Args:
        name: Unique among the runs of a report.
        path: The folder.
        settings: What its config says, in words.
        curves: Points ``(step, value)`` by quantity, those of the validations included.
        figures: The record of each figure, see :class:`mmslip.engine.EvaluationRecordHook`; that of
            the last test, or of the last validation where no test has it.
        skipped: Reasons by evaluation set that was left out.
        showcases: See :func:`mmslip.evaluation.save_showcase`; images are data URIs.
        notes: What is missing or could not be read.
    """

    name: str
    path: Path
    settings: dict[str, str] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    figures: dict[Key, dict[str, Any]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    showcases: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def config_name(self) -> str | None:
        """Name of the config of the last evaluation, or of the last training."""
        last = max(self.figures.values(), key=lambda record: record['time'], default=None)
        return re.sub(r'_\d{8}_\d{6}$', '', last['experiment']) if last else None


def read_runs(paths: Sequence[str | Path]) -> list[Run]:
    """Read work folders, each once.

    Raises:
        ValueError: A path is no folder, or none of them holds curves or figures.
    """
    folders = list(dict.fromkeys(Path(path).resolve() for path in paths))
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f'There is no work folder {folder}.')
    runs = [_read(name, folder) for name, folder in zip(_names(folders), folders, strict=True)]
    if not any(run.curves or run.figures for run in runs):
        raise ValueError(
            f'Nothing to report in {", ".join(map(str, folders))}: neither results.jsonl, which '
            'mmslip.EvaluationRecordHook writes, nor */vis_data/scalars.json of a training. Is it '
            'the `work_dir` of a run?'
        )
    return runs


def _names(folders: Sequence[Path]) -> list[str]:
    """Ends of the paths, as long as it takes to tell them apart."""
    for length in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ['/'.join(folder.parts[-length:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names


def _read(name: str, folder: Path) -> Run:
    run = Run(name, folder)
    _read_settings(run)
    _read_curves(run)
    _read_figures(run)
    for path in sorted(folder.glob('evaluation/*/showcase.json')):
        try:
            showcase = _embed(json.loads(path.read_text(encoding='utf-8')), path.parent)
            run.showcases[showcase['task']] = showcase
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            run.notes.append(f'{path.relative_to(folder)} cannot be used: {error!r}.')
    return run


def _read_settings(run: Run) -> None:
    # Of tests, then of trainings, which say more; the newest of each last.
    configs = sorted(run.path.glob('*/vis_data/config.py'), key=_has_training)
    if not configs:
        run.notes.append('No config in */vis_data/config.py.')
        return
    for path in configs:
        try:
            config = _read_config(path.read_text(encoding='utf-8'))
            described = {key: value for key, value in _describe(config) if value}
            # In the order of the last, which has most.
            run.settings = described | run.settings | described
        except (*_DAMAGE, OSError) as error:
            run.notes.append(f'{path.relative_to(run.path)} cannot be read: {error!r}.')


def _read_config(text: str) -> dict[str, Any]:
    """Settings of a config as mmengine writes it out: a program, which is not executed.

    Raises:
        SyntaxError, ValueError: It holds anything else than assignments of plain values.
    """
    settings = {}
    for line in ast.parse(text).body:
        if not isinstance(line, ast.Assign) or not isinstance(line.targets[0], ast.Name):
            raise ValueError(f'line {line.lineno} is no assignment of a plain value')
        settings[line.targets[0].id] = _value_of(line.value)
    return settings


def _value_of(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name('dict'), args=[], keywords=entries):
            return {entry.arg: _value_of(entry.value) for entry in entries}
        case ast.Dict(keys=keys, values=values) if None not in keys:
            pairs = zip(keys, values, strict=True)
            return {ast.literal_eval(key): _value_of(value) for key, value in pairs}
        case ast.Call(func=ast.Name('dict'), args=[ast.Dict() as only], keywords=[]):
            return _value_of(only)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value_of(item) for item in items]
        case ast.Constant() | ast.UnaryOp():
            return ast.literal_eval(node)
    raise ValueError(f'line {node.lineno} holds no plain value')


def _has_training(config: Path) -> tuple[bool, Path]:
    log = config.with_name('scalars.json')
    return log.is_file() and '"iter"' in log.read_text(encoding='utf-8'), config


def _describe(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Settings that tell runs apart."""
    model = config.get('model') or {}
    backbone = model.get('backbone') or {}
    arch = backbone.get('arch') or backbone.get('depth')
    if isinstance(arch, dict):
        arch = f'{arch.get("num_layers")} layers of {arch.get("embed_dims")}'
    yield 'method', _method(config)
    yield 'image tower', _join(_type(backbone), arch)
    yield 'self-supervised', _join(_type(model.get('ssl')), model.get('ssl') and _weight(model))
    loader = config.get('train_dataloader') or {}
    data = loader.get('dataset') or {}
    yield 'data', _join(_type(data), data.get('ann_file') or data.get('split'))
    yield 'batch', _join(loader.get('batch_size'), loader and 'a process')
    optimizer = (config.get('optim_wrapper') or {}).get('optimizer') or {}
    rate, decay = optimizer.get('lr'), optimizer.get('weight_decay')
    yield 'optimiser', _join(_type(optimizer), rate and f'lr {rate:g}', decay and f'wd {decay:g}')
    length = config.get('train_cfg') or {}
    for key, unit in (('max_epochs', 'epochs'), ('max_iters', 'steps')):
        yield 'length', f'{length[key]:,} {unit}' if key in length else ''
    seed = (config.get('randomness') or {}).get('seed')
    yield 'seed', '' if seed is None else str(seed)


def _method(config: dict[str, Any]) -> str:
    """The method's own name; mmslip.SLIP is the class of CLIP and SimCLR as well."""
    model = config.get('model') or {}
    if _type(model) != 'SLIP':
        return _type(model)
    if not model.get('text_backbone'):
        return _type(model.get('ssl'))
    if not config.get('train_dataloader'):
        return ''  # a test leaves out the self-supervised half, whatever the training was
    language = 'SigLIP' if _type(model.get('head')) == 'SigLIPHead' else 'CLIP'
    if not model.get('ssl'):
        return language
    return 'SLIP' if language == 'CLIP' else f'SLIP with the loss of {language}'


def _weight(model: dict) -> str:
    return f'weight {model.get("ssl_weight", 1.0):g}'


def _type(config: dict | None) -> str:
    return str((config or {}).get('type', '')).removeprefix('mmslip.')


def _join(*parts: Any) -> str:
    return ', '.join(str(part) for part in parts if part)


def _read_curves(run: Run) -> None:
    """Training logs of the folder, of which a resumed run has several, the later ones winning."""
    curves: dict[str, dict[float, float]] = {}
    for path in sorted(run.path.glob('*/vis_data/scalars.json')):
        lines = list(_lines(run, path))
        start = min((line['iter'] for line in lines if 'iter' in line), default=math.inf)
        for points in curves.values():
            for step in [step for step in points if step >= start]:
                del points[step]
        for line in lines:
            if 'iter' in line:  # else it is of a validation, which results.jsonl has
                for key, value in line.items():
                    if key not in _NO_CURVE and _is_finite(value):
                        curves.setdefault(key, {})[line['iter']] = value
    if not curves:
        run.notes.append('No training curves: there is no usable */vis_data/scalars.json.')
    run.curves = {key: sorted(points.items()) for key, points in curves.items()}


def _read_figures(run: Run) -> None:
    path = run.path / 'results.jsonl'
    if not path.is_file():
        run.notes.append(
            'No results.jsonl: nothing was evaluated, or without mmslip.EvaluationRecordHook.'
        )
        return
    validated: dict[str, dict[float, float]] = {}
    records = []
    for record in _lines(run, path):
        if 'skipped' in record:
            run.skipped[record['task']] = record['skipped']
        elif missing := [key for key in _NEEDED if key not in record]:
            run.notes.append(f'A line of results.jsonl is left out: it has no {missing[0]!r}.')
        else:
            records.append(record)
    for record in _told_apart(records):
        key = record['protocol'], record['task'], record['metric']
        value, mode, step = record['value'], record['mode'], record['iter']
        if mode == 'val' and record.get('official') and _is_finite(value):
            name = f'{key[0]}/{key[1]}_{key[2]}' if key[1] else f'{key[0]}/{key[2]}'
            validated.setdefault(name, {})[step] = value
        if mode == 'test' or run.figures.get(key, record)['mode'] == 'val':
            run.figures[key] = record
    for name, points in validated.items():
        run.curves[name] = sorted(points.items())
    for _, task, _ in run.figures:
        run.skipped.pop(task, None)


def _told_apart(records: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Records whose key says what they are.

    The exact linear probe, which records the strength ``l2`` it chose beside its accuracy, has the
    protocol ``linear_exact``, since ``linear`` is the published one of 90 epochs of SGD. A mean
    over sets has them as ``sets``, and is left out where it is of one. An epoch that is 0 because
    steps were counted is None.
    """
    exact, sets = set(), defaultdict(set)
    for record in records:
        if record['protocol'] == 'linear' and record['metric'] == 'l2':
            exact.add((record['time'], record['task']))
        if record['protocol'] == 'zero_shot' and record['task'] and record.get('official'):
            sets[record['time']].add(record['task'])
    for record in records:
        changes: dict[str, Any] = {}
        if record['protocol'] == 'linear' and (record['time'], record['task']) in exact:
            changes['protocol'] = 'linear_exact'
        if record['protocol'] == 'zero_shot' and record['task'] is None:
            changes['sets'] = sorted(sets[record['time']])
            if len(changes['sets']) == 1:
                continue
        if record['iter'] and not record.get('epoch'):
            changes['epoch'] = None
        yield record | changes


def _lines(run: Run, path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSON Lines file; a run that was killed may have left half a line."""
    broken = 0
    for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            content = None
        if isinstance(content, dict):
            yield content
        else:
            broken += bool(line.strip())
    if broken:
        run.notes.append(f'{broken} broken lines of {path.relative_to(run.path)} are left out.')


def _embed(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Put images in the place of their names."""
    for row in content.get('worst', []):
        for example in row['examples']:
            example['image'] = _data_uri(folder, example['image'])
    for row in content['retrieval']:
        for hit in row['images']:
            hit['image'] = _data_uri(folder, hit['image'])
    similarity = content['similarity']
    similarity['images'] = [_data_uri(folder, name) for name in similarity['images']]
    return content


def _data_uri(folder: Path, name: str) -> str:
    content = (folder / Path(name).name).read_bytes()
    return 'data:image/jpeg;base64,' + base64.b64encode(content).decode('ascii')


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
