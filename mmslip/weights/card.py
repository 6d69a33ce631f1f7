"""The model card of a folder: README.md with a YAML header, as model hubs show it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmslip.weights.spec import ForeignText, ModelSpec

__all__ = ['facts_of', 'model_card', 'read_results', 'recipe_of']


def read_results(source: Path) -> list[dict[str, Any]]:
    """The last official value of each task in the ``results.jsonl`` beside a checkpoint.

    A line that is damaged or has no value is left out.
    """
    folder = source if source.is_dir() else source.parent
    path = folder / 'results.jsonl'
    found = {}
    for line in path.read_text(encoding='utf-8').splitlines() if path.is_file() else ():
        try:
            result = json.loads(line)
            key = tuple(str(result[name]) for name in ('protocol', 'task', 'metric'))
            if result.get('official') and isinstance(result['value'], int | float):
                found[key] = result
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return list(found.values())


def recipe_of(config: Mapping[str, Any]) -> dict[str, str]:
    """What a config says of its training: data, self-supervision, batch, learning rate, epochs."""
    loader = config.get('train_dataloader') or {}
    ssl = (config.get('model') or {}).get('ssl') or {}
    optimizer = (config.get('optim_wrapper') or {}).get('optimizer') or {}
    facts = {
        'Data': ', '.join(_datasets(loader.get('dataset'))),
        'Self-supervision': ssl.get('type'),
        'Batch of a process': loader.get('batch_size'),
        'Optimiser': optimizer.get('type'),
        'Learning rate': optimizer.get('lr'),
        'Epochs': (config.get('train_cfg') or {}).get('max_epochs'),
    }
    return {name: str(value) for name, value in facts.items() if value}


def facts_of(spec: ModelSpec) -> dict[str, str]:
    """The architecture of a model, for its card."""
    vision, text = spec.vision, spec.text
    facts = {
        'Images': f'ViT, {vision.width} wide, {vision.layers} layers, {vision.heads} heads, '
        f'patches of {vision.patch_size} in {vision.image_size} pixels'
    }
    if isinstance(text, ForeignText):
        kind = text.tower.get('config', {}).get('model_type') or text.tower['type']
        facts['Texts'] = f'{kind}, {text.tokenizer["type"]}'
    elif text:
        facts['Texts'] = (
            f'transformer, {text.width} wide, {text.layers} layers, {text.heads} heads, '
            f'{text.context_length} tokens of {text.vocab_size}'
        )
    return facts


def model_card(
    name: str,
    library: str,
    usage: str,
    facts: Mapping[str, str],
    recipe: Mapping[str, str],
    results: list[dict[str, Any]],
) -> str:
    """Text of the card; the licence is its user's to state.

    Args:
        name: Of the model.
        library: Its name on model hubs.
        usage: Markdown that shows how the folder is used.
        facts: Of its towers, ``Images`` and ``Texts``, such as those of :func:`facts_of`.
        recipe: Of :func:`recipe_of`.
        results: Of :func:`read_results`.
    """
    task = 'zero-shot-image-classification' if 'Texts' in facts else 'image-feature-extraction'
    header = {'library_name': library, 'pipeline_tag': task, 'tags': ['mmslip', 'slip', 'clip']}
    if results:
        header['model-index'] = [{'name': name, 'results': [_indexed(line) for line in results]}]
    # JSON is YAML.
    lines = ['---', '# license: (yours to state; also that of the data)']
    lines += [f'{key}: {json.dumps(value, ensure_ascii=False)}' for key, value in header.items()]
    lines += ['---', f'# {name}', '', 'Written by mmslip.', '']
    lines.append(usage)
    for title, part in (('Model', facts), ('Training', recipe), ('Results', _shown(results))):
        if part:
            lines += ['', f'## {title}', '', *(f'- {key}: {part[key]}' for key in part)]
    return '\n'.join(lines) + '\n'


def _datasets(dataset: Any) -> Iterator[str]:
    """Class and source of every data set of a config that names one."""
    if isinstance(dataset, Mapping):
        if 'type' in dataset:
            keys = ('ann_file', 'data_root', 'split')
            given = [str(dataset[key]) for key in keys if dataset.get(key)]
            yield ' '.join([dataset['type'].split('.')[-1], *given])
        for key, value in dataset.items():
            if key in ('dataset', 'datasets'):
                yield from _datasets(value)
    elif isinstance(dataset, list | tuple):
        for part in dataset:
            yield from _datasets(part)


def _indexed(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result in the layout of a hub's ``model-index``."""
    task = dict(type=str(result['protocol']).replace('_', '-'))
    dataset = dict(name=str(result['task']), type=str(result['task']))
    metric = dict(type=str(result['metric']), value=result['value'])
    return dict(task=task, dataset=dataset, metrics=[metric])


def _shown(results: list[dict[str, Any]]) -> dict[str, str]:
    return {
        f'{line["protocol"]}, {line["task"]}': f'{line["metric"]} {line["value"]:.4g}'
        + (f' ({line["low"]:.4g} to {line["high"]:.4g})' if line.get('low') is not None else '')
        for line in results
    }
