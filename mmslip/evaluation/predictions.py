"""Predictions of an evaluation, kept to be shown."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dist import collect_results, get_world_size
from torch import Tensor
from torch.utils.data import Dataset

from mmslip.datasets.tasks import first_of_name, query_parts, role_of
from mmslip.evaluation.zero_shot_accuracy import merge_names

__all__ = ['PredictionKeeper', 'Predictions', 'spread']


@dataclass
class Predictions:
    """Predictions on the images of one task, in the order of the data set.

    A query is a text that images are searched for: the name of a class, or a caption. An image is
    right for the query ``queries[q]`` where its ``label`` is that number.

    Args:
        index: ``(N,)``, place of each image in its data set.
        label: ``(N,)``, its class, the first of several of one name; for captioned images, its
            ``index``.
        prediction: ``(N,)``, the class it was taken for; None for captioned images. An equal score
            counts against the true class, as in :class:`mmslip.evaluation.ZeroShotAccuracy`.
        margin: ``(N,)``, score of the true class minus the best score of another; None likewise.
        queries: ``(Q,)``, some of the task's classes, or of the indices of its captioned images,
            at even distances.
        texts: The ``Q`` texts.
        scores: ``(N, Q)``, cosine similarity of each image and each query.
    """

    index: np.ndarray
    label: np.ndarray
    prediction: np.ndarray | None
    margin: np.ndarray | None
    queries: np.ndarray
    texts: list[str]
    scores: np.ndarray

    def best(self, query: int, number: int) -> np.ndarray:
        """Rows of the images that are closest to ``queries[query]``, the closest first."""
        # Scores that are not numbers come last.
        scores = np.nan_to_num(self.scores[:, query], nan=-np.inf)
        return np.argsort(-scores, kind='stable')[:number]


class PredictionKeeper:
    """Keep what :class:`Predictions` needs while an evaluation goes on.

    An image with scores for classes takes some hundred bytes, however many the classes; a captioned
    one its feature in half precision.

    Args:
        dataset: What the evaluation runs over: a data set with ``task`` in its ``metainfo``, or one
            of several ``datasets``.
        num_queries: Texts that images are searched for, in each task.
    """

    def __init__(self, dataset: Dataset, num_queries: int) -> None:
        self.parts = query_parts(dataset)
        self.num_queries = num_queries
        self._kept: dict[str, list[dict[str, np.ndarray]]] = defaultdict(list)
        self._captions: dict[str, dict[int, np.ndarray]] = defaultdict(dict)

    def add(self, outputs: Sequence[Any]) -> None:
        """Keep what matters of a batch of predicted samples."""
        by_task = defaultdict(list)
        for sample in outputs:
            if sample.get('task') in self.parts and role_of(sample) == 'query':
                by_task[sample.get('task')].append(sample)
        for task, samples in by_task.items():
            if 'pred_score' in samples[0]:
                self._kept[task].append(self._classified(task, samples))
            elif 'text_feat' in samples[0]:
                self._kept[task].append(self._captioned(task, samples))

    def _classified(self, task: str, samples: Sequence[Any]) -> dict[str, np.ndarray]:
        cosines = torch.stack([sample.pred_score for sample in samples]).float()  # (B, K)
        label = torch.cat([sample.gt_label for sample in samples]).to(cosines.device)  # (B,)
        scores, label = merge_names(cosines, label, self.parts[task].metainfo['classes'])
        truth = scores.gather(1, label[:, None])[:, 0]
        other, rival = scores.scatter(1, label[:, None], -torch.inf).max(dim=1)
        margin = truth - other
        return dict(
            index=_indices(samples),
            label=_numpy(label),
            prediction=_numpy(torch.where(margin > 0, label, rival)),
            margin=_numpy(margin),
            scores=_numpy(cosines[:, self._columns(task)]),
        )

    def _captioned(self, task: str, samples: Sequence[Any]) -> dict[str, np.ndarray]:
        for sample in samples:
            if sample.sample_idx in spread(len(self.parts[task]), self.num_queries):
                self._captions[task][sample.sample_idx] = _numpy(sample.text_feat[0])
        feats = torch.stack([sample.image_feat for sample in samples])  # (B, D)
        return dict(index=_indices(samples), feats=_numpy(feats.half()))

    def _columns(self, task: str) -> np.ndarray:
        """Classes of a task whose names images are searched for."""
        firsts = np.array(first_of_name(self.parts[task].metainfo['classes']))
        return np.unique(firsts[spread(len(firsts), self.num_queries)])

    def collect(self) -> dict[str, Predictions] | None:
        """Predictions by task, of all processes; None in all but the main one."""
        # One item a process, so that mmengine has nothing to reorder or to cut off.
        shares = collect_results([(dict(self._kept), dict(self._captions))], get_world_size())
        if shares is None:
            return None
        found = {}
        for task, part in self.parts.items():
            batches = [batch for kept, _ in shares for batch in kept.get(task, [])]
            if not batches:
                continue
            merged = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
            # Sorted, and without what the sampler added to make all shares equal.
            first = np.unique(merged['index'], return_index=True)[1]
            merged = {key: value[first] for key, value in merged.items()}
            if 'feats' in merged:
                captions = {k: v for _, texts in shares for k, v in texts.get(task, {}).items()}
                found[task] = _search(part, merged, captions)
            else:
                found[task] = self._named(part, merged)
        return found

    def _named(self, part: Dataset, merged: dict[str, np.ndarray]) -> Predictions:
        names = class_names(part)
        queries = self._columns(part.metainfo['task'])
        return Predictions(**merged, queries=queries, texts=[names[query] for query in queries])


def class_names(part: Dataset) -> list[str]:
    """Names of a set's classes, of several synonyms the first."""
    classes = part.metainfo['classes']
    return [names if isinstance(names, str) else names[0] for names in classes]


def spread(total: int, number: int) -> np.ndarray:
    """Up to ``number`` of the numbers below ``total``, at even distances, first and last among."""
    return np.unique(np.linspace(0, total - 1, min(number, total)).round().astype(int))


def _search(part: Dataset, merged: dict[str, np.ndarray], captions: dict) -> Predictions:
    """Compare images with some of their captions."""
    queries = np.array(sorted(captions))
    texts = [part.get_data_info(int(query))['text'] for query in queries]
    text_feats = np.stack([captions[query] for query in queries])  # (Q, D)
    return Predictions(
        index=merged['index'],
        label=merged['index'],
        prediction=None,
        margin=None,
        queries=queries,
        texts=[text if isinstance(text, str) else text[0] for text in texts],
        scores=merged['feats'].astype(np.float32) @ text_feats.T,
    )


def _indices(samples: Sequence[Any]) -> np.ndarray:
    return np.array([int(sample.sample_idx) for sample in samples])


def _numpy(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()
