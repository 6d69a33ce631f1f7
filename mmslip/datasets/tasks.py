"""Tasks of evaluation: class names, prompts and metric, as data files; roles of their samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from mmslip.datasets.io.json_text import parse_json

__all__ = [
    'METRICS',
    'Task',
    'first_of_name',
    'list_tasks',
    'load_task',
    'query_parts',
    'role_of',
]

METRICS = ('top1', 'mean_per_class', 'top1_top5_mean', 'roc_auc')
_FOLDER = Path(__file__).parent / 'data' / 'tasks'
# The sets of Mu et al. (SLIP, ECCV 2022), in the order of their table.
_SHIPPED = (
    'food101', 'cifar10', 'cifar100', 'cub200', 'sun397', 'cars', 'aircraft', 'dtd', 'pets',
    'caltech101', 'flowers', 'mnist', 'fer2013', 'stl10', 'eurosat', 'resisc45', 'gtsrb',
    'kitti_distance', 'country211', 'patch_camelyon', 'ucf101_frames', 'kinetics700_frames',
    'clevr_counts', 'hateful_memes', 'rendered_sst2', 'imagenet',
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A classification task.

    Args:
        name: What results call it.
        title: What tables call it.
        metric: The one figure that is reported for it, in percent: ``'top1'`` accuracy,
            ``'mean_per_class'`` (mean over the classes of the accuracy on each),
            ``'top1_top5_mean'`` (half the sum of top-1 and top-5 accuracy) or ``'roc_auc'`` (area
            under the ROC curve of ``score[1] - score[0]``, for two classes).
        classes: The names of each class; several are synonyms.
        templates: Prompts with one ``{}`` for the name.
        labels: What the data set itself calls the classes, in the order of ``classes``; by default
            the first name of each.

    Raises:
        ValueError: One of them is unusable; the message names the task and the reason.
    """

    name: str
    title: str
    metric: str
    classes: tuple[tuple[str, ...], ...]
    templates: tuple[str, ...]
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.labels:
            object.__setattr__(self, 'labels', tuple(names[0] for names in self.classes if names))
        faults = {
            f'its metric must be one of {", ".join(METRICS)}, not {self.metric!r}': (
                self.metric not in METRICS
            ),
            'it needs two classes or more, each with a name': (
                len(self.classes) < 2 or not all(map(all, self.classes)) or () in self.classes
            ),
            'each template must have one {} for the class name': (
                not self.templates or any(text.count('{}') != 1 for text in self.templates)
            ),
            f'it has {len(self.classes)} classes, but {len(self.labels)} labels': (
                len(self.classes) != len(self.labels)
            ),
            'roc_auc needs exactly two classes': (
                self.metric == 'roc_auc' and len(self.classes) != 2
            ),
        }
        for fault, present in faults.items():
            if present:
                raise ValueError(f'Task {self.name!r}: {fault}.')


def list_tasks() -> tuple[str, ...]:
    """Names of the shipped tasks, the 26 of the SLIP paper in its order."""
    return _SHIPPED


def load_task(source: str | Path | dict[str, Any]) -> Task:
    """A task by the name of a shipped one, the path of a JSON file, or its content.

    The file is an object with ``classes`` (each a name or a list of synonyms) and, optionally,
    ``name`` (by default that of the file), ``title`` (the name), ``metric`` (``'top1'``),
    ``templates`` (``['a photo of a {}.']``) and ``labels``.

    Raises:
        FileNotFoundError: There is no shipped task and no file of this name.
        ValueError: The file is not JSON, or its content is unusable.
    """
    if isinstance(source, dict):
        return _build(source, source.get('name', ''), 'the task')
    if str(source) in _SHIPPED:
        path = _FOLDER / f'{source}.json'
    elif not (path := Path(source)).is_file():
        raise FileNotFoundError(
            f'There is no task {source}: give the path of a JSON file, or one of '
            f'{", ".join(_SHIPPED)}.'
        )
    content = parse_json(path.read_bytes(), str(path))
    if not isinstance(content, dict):
        raise ValueError(f'{path} must hold an object with `classes` and `templates`.')
    return _build(content, path.stem, str(path))


def _build(content: dict[str, Any], name: str, where: str) -> Task:
    unknown = content.keys() - {'name', 'title', 'metric', 'classes', 'templates', 'labels'}
    if unknown:
        raise ValueError(f'{where} has unknown keys: {", ".join(sorted(unknown))}.')
    name = content.get('name', name)
    if not name or not content.get('classes'):
        raise ValueError(f'{where} needs a `name` and `classes`.')
    return Task(
        name=name,
        title=content.get('title', name),
        metric=content.get('metric', 'top1'),
        classes=tuple(
            _texts([names] if isinstance(names, str) else names, f'{where}: a class')
            for names in _sequence(content['classes'], f'{where}: `classes`')
        ),
        templates=_texts(content.get('templates', ['a photo of a {}.']), f'{where}: `templates`'),
        labels=_texts(content.get('labels', ()), f'{where}: `labels`'),
    )


def _sequence(values: Any, what: str) -> Sequence:
    if not isinstance(values, list | tuple):
        raise ValueError(f'{what} must be a list, not {values!r:.60}.')
    return values


def _texts(values: Any, what: str) -> tuple[str, ...]:
    for value in _sequence(values, what):
        if not isinstance(value, str):
            raise ValueError(f'{what} must be a list of texts; {value!r:.60} is none.')
    return tuple(values)


def role_of(sample: Any) -> str:
    """The role of a sample, or of the ``metainfo`` of its data set, in a task.

    Returns:
        ``'query'`` if it is judged, which is the default, or ``'reference'`` if kNN and linear
        probes learn from it.
    """
    return sample.get('role', 'query')


def first_of_name(classes: Sequence[str | Sequence[str]]) -> list[int]:
    """For each class the first that has the same name, mostly itself.

    Classes of one name have the same prompts, so that no score can tell them apart: zero-shot
    evaluations count them as one class. ImageNet has two such pairs, missile and sunglasses. Letter
    case and spaces make no other name.

    Args:
        classes: A name, or synonyms, of each.
    """
    first: dict[tuple[str, ...], int] = {}
    names = ([names] if isinstance(names, str) else names for names in classes)
    keys = [tuple(sorted(' '.join(name.lower().split()) for name in group)) for group in names]
    return [first.setdefault(key, number) for number, key in enumerate(keys)]


def query_parts(dataset: Dataset) -> dict[str, Dataset]:
    """The sets that an evaluation judges, by task; those without ``task`` are passed over."""
    parts = {}
    for part in getattr(dataset, 'datasets', [dataset]):
        meta = getattr(part, 'metainfo', {})
        if 'task' in meta and role_of(meta) == 'query':
            parts[meta['task']] = part
    return parts
