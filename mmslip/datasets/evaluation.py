"""Data sets of an evaluation: of classes, of captions, and many in one pass."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from logging import WARNING
from pathlib import Path
from typing import Any

import mmcv
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.logging import print_log

from mmslip.datasets.base import check_captions
from mmslip.datasets.folder import FolderDataset
from mmslip.datasets.io.presence import missing_files
from mmslip.datasets.table import TableDataset
from mmslip.datasets.tasks import Task, load_task, role_of
from mmslip.datasets.text.cleaning import is_blank
from mmslip.registry import DATASETS

__all__ = ['EvaluationDataset', 'EvaluationSuite', 'RetrievalDataset']


@DATASETS.register_module()
class EvaluationDataset(BaseDataset):
    """Any classification data set as one that an evaluation can judge.

    Samples get ``task``, ``role`` and ``gt_label``, the number of the class among the task's
    classes. A data set that names its classes may have them in another order than the task: they
    are matched by name. One that does not must have the task's order. Classes without an image are
    counted in a warning.

    Args:
        task: Name of a shipped task, path of a JSON file, or its content; see
            :func:`mmslip.datasets.tasks.load_task`.
        dataset: Config of the data set, of mmpretrain or mmslip, without pipeline.
        role: ``'query'`` for samples that are judged, ``'reference'`` for those that kNN and
            linear probes learn from.
        samples: The number of samples of the complete set; another number is an error.
        pipeline: Transforms of a sample, which begin with ``mmslip.LoadImage``.

    Raises:
        ValueError: The data set cannot be read, is incomplete, or has other classes than the task.
    """

    def __init__(
        self,
        task: str | dict,
        dataset: dict,
        role: str = 'query',
        samples: int | None = None,
        pipeline: Sequence = (),
    ) -> None:
        if role not in ('query', 'reference'):
            raise ValueError(f"role must be 'query' or 'reference', not {role!r}.")
        self.task = load_task(task)
        self.role = role
        self._where = f'Task {self.task.name!r}: {dataset["type"]} in {dataset.get("data_root")}'
        self.dataset = self._build(dataset)
        super().__init__(
            pipeline=list(pipeline), test_mode=True, serialize_data=False, lazy_init=True
        )
        # Not as the `metainfo` argument, whose strings mmengine tries to open as files.
        self._metainfo.update(task=self.task.name, role=role, **_description(self.task))
        self._order = self._order_of(self.dataset.metainfo.get('classes'))
        self._check_complete(samples)
        self._fully_initialized = True

    def __len__(self) -> int:
        return len(self.dataset)

    def get_data_info(self, idx: int) -> dict:
        """A sample of the data set, for the task."""
        info = self.dataset.get_data_info(idx)
        if 'img' in info:  # held in memory, such as CIFAR: RGB or grey, where transforms expect BGR
            convert = mmcv.gray2bgr if info['img'].ndim == 2 else mmcv.rgb2bgr
            info['img'] = convert(info['img'])
        label = self._label_of(info, idx)
        return dict(info, task=self.task.name, role=self.role, gt_label=label)

    def _label_of(self, info: dict, index: int) -> int:
        """Number of a sample's class in the task."""
        label = info.get('gt_label')
        if label is None:
            raise ValueError(f'{self._where}: sample {index} has no label (`gt_label`).')
        if int(label) not in self._order:
            raise ValueError(
                f'{self._where}: sample {index} has label {label}, but the task has '
                f'{len(self._order)} classes.'
            )
        return self._order[int(label)]

    def _build(self, config: dict) -> BaseDataset:
        try:
            dataset = DATASETS.build(dict(config, pipeline=[]))
            dataset.full_init()
        except Exception as error:  # readers of half a data set fail in many ways
            raise ValueError(
                f'{self._where} cannot be read: {error!r}. Is it complete, and in the layout that '
                'the documentation of the data set asks for?'
            ) from error
        return dataset

    def _order_of(self, own: Sequence[str] | None) -> dict[int, int]:
        """Number of each class in the task by its number in the data set."""
        labels = self.task.labels
        if own is None or tuple(own) == labels:
            return {number: number for number in range(len(labels))}
        if len(set(own)) != len(own) or not set(own) <= set(labels):
            odd = sorted(set(own) ^ set(labels))
            raise ValueError(
                f'{self._where} has {len(own)} classes that are not the {len(labels)} labels of '
                f'the task; only one of them has {", ".join(map(repr, odd[:5]))}. State the names '
                'of the data set as `labels` of the task.'
            )
        return {number: labels.index(name) for number, name in enumerate(own)}

    def _check_complete(self, samples: int | None) -> None:
        if samples is not None and len(self) != samples:
            raise ValueError(
                f'{self._where} has {len(self):,} samples, not {samples:,}: it is incomplete or '
                'another version. Complete it, or change `samples` if this is what you want.'
            )
        if not _names_images(self.dataset):
            return
        paths, absent = [], set(range(len(self.task.labels)))
        for index in range(len(self)):
            info = self.dataset.get_data_info(index)
            absent.discard(self._label_of(info, index))
            if 'img_path' in info:
                paths.append(info['img_path'])
        _check_files(self._where, paths)
        if absent:
            print_log(
                f'{self._where} has no image of {len(absent)} of {len(self.task.labels)} classes, '
                f'such as {self.task.labels[min(absent)]!r}.',
                'current',
                WARNING,
            )


@DATASETS.register_module()
class RetrievalDataset(BaseDataset):
    """Any captioned data set as one on which retrieval is judged.

    Samples get ``task``, ``role`` and, under ``text``, all captions of the image. Rows of one image
    become one sample, since each of its captions is right for it; sets that hold the images
    themselves (shards, Parquet) are taken row by row. Images without a caption are left out, and
    captions that several images have are counted, in the log: where the data set says so without
    reading images.

    Args:
        task: Name of the set in results.
        dataset: Config of the data set, without pipeline.
        pipeline: Transforms of a sample, with ``mmslip.TokenizeCaptions``.

    Raises:
        ValueError: The data set lacks images, or has no caption.
    """

    def __init__(self, task: str, dataset: dict, pipeline: Sequence = ()) -> None:
        self.dataset = DATASETS.build(dict(dataset, pipeline=[], test_mode=True))
        self.dataset.full_init()
        self._given = dict(task=task, role='query')
        super().__init__(
            pipeline=list(pipeline), test_mode=True, serialize_data=False, lazy_init=True
        )
        # Not as the `metainfo` argument, whose strings mmengine tries to open as files.
        self._metainfo.update(self._given)
        self._rows = self._images_of(f'Task {task!r}')
        self._fully_initialized = True

    def __len__(self) -> int:
        return len(self._rows)

    def get_data_info(self, idx: int) -> dict:
        """An image with all its captions."""
        infos = [self.dataset.get_data_info(row) for row in self._rows[idx]]
        for row, info in zip(self._rows[idx], infos, strict=True):
            check_captions(info, row)
        captions = dict.fromkeys(text for info in infos for text in info['text'])
        return dict(infos[0], text=list(captions), sample_idx=idx, **self._given)

    def _images_of(self, where: str) -> list[list[int]]:
        """Rows of each image."""
        if not _names_images(self.dataset):
            return [[row] for row in range(len(self.dataset))]
        rows: dict[str, list[int]] = defaultdict(list)  # by image
        owners: dict[str, set[str]] = defaultdict(set)  # images by caption
        every = set()
        for row in range(len(self.dataset)):
            info = self.dataset.get_data_info(row)
            every.add(info['img_path'])
            texts = [text for text in info.get('text', ()) if not is_blank(text)]
            for text in texts:
                owners[text].add(info['img_path'])
            if texts:
                rows[info['img_path']].append(row)
        if not rows:
            raise ValueError(f'{where}: no image has a caption.')
        _check_files(where, list(rows))
        shared = sum(len(images) > 1 for images in owners.values())
        remarks = {
            'images have no caption and are left out': len(every) - len(rows),
            'captions belong to several images, of which one counts as right': shared,
        }
        for remark, number in remarks.items():
            if number:
                print_log(f'{where}: {number:,} {remark}.', 'current', WARNING)
        return list(rows.values())


@DATASETS.register_module()
class EvaluationSuite(ConcatDataset):
    """Many evaluation sets in one pass of a loader.

    Sets whose folder is not there are left out with a warning, and listed in
    ``metainfo['skipped']`` as ``{name: reason}``. ``metainfo['tasks']`` has the classes, templates
    and metric of those that are judged.

    Args:
        datasets: Configs by name, of ``mmslip.EvaluationDataset`` or others with ``task`` in their
            ``metainfo``.
        tasks: Names of those to evaluate; all by default.
        pipeline: Transforms for the sets that have none of their own.

    Raises:
        ValueError: A name is unknown, no set is there, or two of the same task are judged.
    """

    def __init__(
        self,
        datasets: Mapping[str, dict],
        tasks: str | Sequence[str] | None = None,
        pipeline: Sequence | None = None,
    ) -> None:
        chosen = [tasks] if isinstance(tasks, str) else list(datasets if tasks is None else tasks)
        unknown = [name for name in chosen if name not in datasets]
        if unknown:
            raise ValueError(
                f'There is no evaluation set {", ".join(unknown)}: choose among '
                f'{", ".join(datasets)}.'
            )
        skipped = {}
        for name in chosen:
            root = _root_of(datasets[name])
            if root and not Path(root).is_dir():
                skipped[name] = f'there is no folder {root}'
                print_log(f'Evaluation set {name} is skipped: {skipped[name]}.', 'current', WARNING)
        if len(skipped) == len(chosen):
            raise ValueError(f'There is nothing to evaluate on: {skipped or "no set is chosen"}.')
        parts = []
        for name in chosen:
            if name not in skipped:
                defaults = {} if pipeline is None else dict(pipeline=pipeline)
                parts.append(DATASETS.build({**defaults, **datasets[name]}))
        super().__init__(
            parts, ignore_keys=sorted({key for part in parts for key in part.metainfo})
        )
        self._metainfo = dict(tasks=_judged(parts), skipped=skipped)


def _judged(parts: Sequence[BaseDataset]) -> dict[str, dict]:
    tasks = {}
    for meta in (part.metainfo for part in parts):
        if role_of(meta) == 'query' and 'classes' in meta:
            if meta['task'] in tasks:
                raise ValueError(
                    f'Two sets are judged as task {meta["task"]!r}: give one of them another name, '
                    "or role='reference'."
                )
            keys = ('title', 'classes', 'templates', 'metric')
            tasks[meta['task']] = {key: meta[key] for key in keys if key in meta}
    return tasks


def _names_images(dataset: BaseDataset) -> bool:
    """Whether a data set's ``get_data_info`` names its images, and reads none."""
    if isinstance(dataset, TableDataset):
        return type(dataset).find_image is TableDataset.find_image
    if isinstance(dataset, FolderDataset):
        return True
    return type(dataset).get_data_info is BaseDataset.get_data_info


def _check_files(where: str, paths: Sequence[str]) -> None:
    missing = missing_files(paths)
    if missing:
        raise ValueError(
            f'{where} lacks {len(missing):,} of {len(paths):,} images, such as {missing[0]}: '
            'complete it.'
        )


def _description(task: Task) -> dict[str, Any]:
    return dict(
        title=task.title, classes=task.classes, templates=task.templates, metric=task.metric
    )


def _root_of(config: dict) -> str:
    return config.get('data_root') or config.get('dataset', {}).get('data_root') or ''
