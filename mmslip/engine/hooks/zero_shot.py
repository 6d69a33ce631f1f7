"""Scores of images for classes that are given as words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch.utils.hooks import RemovableHandle

from mmslip.datasets import require_fit
from mmslip.datasets.tasks import role_of
from mmslip.engine.unwrap import unwrap
from mmslip.evaluation import (
    ClassEmbedder,
    default_tokenizer,
    score_classes,
    stated_tokenizer,
)
from mmslip.registry import HOOKS, TOKENIZERS

__all__ = ['ZeroShotHook', 'tasks_of']


@HOOKS.register_module()
class ZeroShotHook(Hook):
    """Embed class names before each validation or test, and score its images for them.

    Every evaluation data set states its ``task`` (a name), its ``classes`` and, optionally, its
    ``templates`` in ``metainfo``; several sets may stand together in an ``EvaluationSuite`` or a
    ``ConcatDataset``. The embeddings are made with the model's present text tower (so with averaged
    weights where those are swapped in). They belong to this hook: until the epoch ends, a forward
    hook on the model gives ``pred_score`` to the samples that it predicts. A model without a text
    tower has no scores.

    Args:
        templates: Prompts with ``{}`` for the class name, for sets that state none.
        tokenizer: Config of the tokeniser; by default that of the captions in the run's config, or
            CLIP's, as long as the text tower reads.
        batch_size: Prompts in one pass of the text tower.
        cache_dir: Folder where a test keeps the embeddings, see :class:`ClassEmbedder`. In training
            the weights are new each time, so nothing is kept.
    """

    # After hooks that swap in averaged weights.
    priority = 'LOW'

    def __init__(
        self,
        templates: Sequence[str] = ('a photo of a {}.',),
        tokenizer: dict | None = None,
        batch_size: int = 256,
        cache_dir: str | Path | None = None,
    ) -> None:
        self.templates = tuple(templates)
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.cache_dir = cache_dir
        self.class_embeddings: dict[str, Tensor] = {}
        self._handle: RemovableHandle | None = None

    def before_val_epoch(self, runner: Runner) -> None:
        """Embed the classes of the validation data."""
        self._prepare(runner, runner.val_dataloader.dataset, None)

    def before_test_epoch(self, runner: Runner) -> None:
        """Embed the classes of the test data."""
        self._prepare(runner, runner.test_dataloader.dataset, self.cache_dir)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Stop scoring."""
        self._stop()

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Stop scoring."""
        self._stop()

    def _prepare(self, runner: Runner, dataset: Dataset, cache_dir: str | Path | None) -> None:
        self._stop()  # of an epoch that ended in an error
        model = unwrap(runner.model)
        tasks = tasks_of(dataset)
        if not model.with_text or not tasks:
            return
        model.eval()  # mmengine's loops do so only after this hook
        tokenizer = self.tokenizer or stated_tokenizer(runner.cfg)
        tokenizer = TOKENIZERS.build(tokenizer or default_tokenizer(model.text_backbone))
        require_fit(tokenizer, model.text_backbone)
        embed = ClassEmbedder(tokenizer, self.batch_size, cache_dir)
        self.class_embeddings = embed(
            model,
            {
                task: (part.metainfo['classes'], part.metainfo.get('templates', self.templates))
                for task, part in tasks.items()
            },
        )
        self._handle = model.register_forward_hook(self._score)

    def _score(self, model: nn.Module, args: tuple, output: Any) -> None:
        """Forward hook: score what was predicted."""
        if isinstance(output, list):
            score_classes(output, self.class_embeddings)

    def _stop(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle, self.class_embeddings = None, {}


def tasks_of(dataset: Dataset) -> dict[str, Dataset]:
    """The classification sets that are judged, by task.

    Args:
        dataset: A data set alone, or one of several ``datasets``. Parts without ``classes``
            (retrieval) and those of role ``'reference'`` are passed over.

    Raises:
        ValueError: The ``metainfo`` of a part has no ``task``.
    """
    tasks = {}
    for part in getattr(dataset, 'datasets', [dataset]):
        if 'task' not in part.metainfo:
            raise ValueError(
                f'The metainfo of {type(part).__name__} has no task: an evaluation needs a name '
                'for each of its sets. Wrap the set in mmslip.EvaluationDataset.'
            )
        if 'classes' in part.metainfo and role_of(part.metainfo) == 'query':
            tasks[part.metainfo['task']] = part
    return tasks
