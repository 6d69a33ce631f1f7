"""Classification among labels that are given as words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmpretrain.structures import DataSample
from torch import Tensor

from mmslip.apis.base import Image, SLIPInferencer, stated_templates
from mmslip.datasets.io.captions import as_list
from mmslip.datasets.tasks import Task, first_of_name, load_task
from mmslip.evaluation import ClassEmbedder, score_classes

__all__ = ['ZeroShotClassificationInferencer']


class ZeroShotClassificationInferencer(SLIPInferencer):
    """Name images by the label whose prompts are closest (Radford et al., arXiv 2103.00020, 3.1.4).

    Args:
        model: A model, the path of a config file, a config, or a name of
            :func:`mmslip.list_models`.
        pretrained: Checkpoint file.
        device: Defaults to the GPU where there is one.

    Raises:
        ValueError: The model has no text tower, or the checkpoint does not fit it.

    Example:
        >>> inferencer = ZeroShotClassificationInferencer('my_slip.py', 'epoch_25.pth')
        >>> inferencer('a.jpg', labels=['cat', ['dog', 'hound']])[0]['pred_class']
        'dog'
    """

    forward_kwargs = frozenset({'class_embeddings'})
    postprocess_kwargs = frozenset({'labels', 'names', 'topk'})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.require_text()
        self.templates = stated_templates(self.config)
        self._embedded: tuple[Task | None, Tensor | None] = None, None

    def __call__(
        self,
        inputs: Image | Sequence[Image],
        labels: Sequence[str | Sequence[str]] | None = None,
        templates: Sequence[str] | None = None,
        task: str | Path | None = None,
        topk: int = 5,
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> list[dict[str, Any]]:
        """Classify.

        Args:
            inputs: Image files, folders or arrays (BGR uint8 ``(H, W, 3)``), one or several.
            labels: What there is to choose from; several names of one label are synonyms.
            templates: Prompts with one ``{}`` for the label; by default those that the config
                evaluates with, or 'a photo of a {}.'.
            task: In their place, the labels and templates of an evaluation: the name of a shipped
                one (:func:`mmslip.datasets.tasks.list_tasks`) or the path of a JSON file.
            topk: Labels of a result.
            batch_size: Images of one pass.
            num_workers: Processes that read images.

        Returns:
            For each image ``image`` (its path, or its number among the arrays), ``pred_label``,
            ``pred_class``, ``pred_score`` as in mmpretrain, and ``top``: the best labels, each with
            its ``score`` (softmax over all labels of the scaled similarities) and ``similarity``
            (cosine). For one that cannot be read, ``image`` and ``error``.

        Raises:
            FileNotFoundError: There is no such image, folder or task.
            ValueError: Labels or templates are unusable.
        """
        if (labels is None) == (task is None):
            raise ValueError('Give `labels` or `task`.')
        if task is None:
            labels = as_list(labels)
            task = dict(name='labels', classes=labels)
            task['templates'] = as_list(templates or self.templates)
            if len(labels) < 2:
                raise ValueError('Give two labels or more: the closest of them names an image.')
            for number, first in enumerate(first_of_name(labels)):
                if number != first:
                    label = labels[number]
                    label = label if isinstance(label, str) else '|'.join(label)
                    raise ValueError(f'The label {label!r} is given twice.')
        task = load_task(task)
        classes = self._embed_classes(task)
        names = self._inputs_to_list(inputs)
        return super().__call__(
            names,
            batch_size=batch_size,
            num_workers=num_workers,
            class_embeddings=classes,
            labels=[synonyms[0] for synonyms in task.classes],
            names=names,
            topk=topk,
        )

    def _embed_classes(self, task: Task) -> Tensor:
        """The class embeddings ``(K, D)`` of a task; those of the last one are kept."""
        known, classes = self._embedded
        if task != known:
            tasks = dict(labels=(task.classes, task.templates))
            classes = ClassEmbedder(self.tokenizer)(self.model, tasks)['labels']
            self._embedded = task, classes  # in one step: another thread may be at it
        return classes

    def forward(
        self, inputs: list[dict | Exception], class_embeddings: Tensor
    ) -> list[DataSample | Exception]:
        """Features and scores ``pred_score`` ``(K,)`` of a batch; or the reason why not."""
        found = super().forward(inputs, task='labels')
        readable = [sample for sample in found if not isinstance(sample, Exception)]
        score_classes(readable, dict(labels=class_embeddings))
        return found

    def postprocess(
        self,
        preds: list,
        visualization: None,
        return_datasamples: bool = False,
        labels: Sequence[str] = (),
        names: Sequence[Image] = (),
        topk: int = 5,
    ) -> list[dict[str, Any]]:
        """Turn similarities into results."""
        scale = self.model.head.logit_scale.exp().item()
        results = []
        for number, (name, sample) in enumerate(zip(names, preds, strict=True)):
            result = dict(image=name if isinstance(name, str) else number)
            if isinstance(sample, Exception):
                results.append(dict(result, error=str(sample)))
                continue
            similarity = sample.pred_score.float().cpu()  # (labels,)
            score = torch.softmax(scale * similarity, dim=0)
            best = similarity.topk(min(topk, len(labels))).indices.tolist()
            result.update(
                pred_label=best[0],
                pred_class=labels[best[0]],
                pred_score=float(score[best[0]]),
                top=[
                    dict(label=labels[k], score=float(score[k]), similarity=float(similarity[k]))
                    for k in best
                ],
            )
            results.append(result)
        return results
