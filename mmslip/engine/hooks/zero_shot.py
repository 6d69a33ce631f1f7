"""Class embeddings for zero-shot evaluation."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmslip.evaluation.class_embeddings import ClassEmbedder
from mmslip.registry import HOOKS, TOKENIZERS

__all__ = ['ZeroShotHook', 'tasks_of']


@HOOKS.register_module()
class ZeroShotHook(Hook):
    """Turn class names into class embeddings before each validation or test.

    Every evaluation data set states its ``task`` (a name), its ``classes`` and, optionally, its
    ``templates`` in ``metainfo``; several sets may stand together in an ``EvaluationSuite`` or a
    ``ConcatDataset``. The embeddings are made with the model's present text tower (so with averaged
    weights where those are swapped in) and read by :meth:`mmslip.models.SLIP.predict`. A model
    without a text tower has none.

    Args:
        templates: Prompts with ``{}`` for the class name, for sets that state none.
        tokenizer: Config of the tokeniser; CLIP's, as long as the text tower reads, by default.
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

    def before_val_epoch(self, runner: Runner) -> None:
        """Prepare the tasks of the validation data."""
        self._prepare(runner, runner.val_dataloader.dataset, None)

    def before_test_epoch(self, runner: Runner) -> None:
        """Prepare the tasks of the test data."""
        self._prepare(runner, runner.test_dataloader.dataset, self.cache_dir)

    def _prepare(self, runner: Runner, dataset: Dataset, cache_dir: str | Path | None) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        tasks = tasks_of(dataset)
        if not model.with_text or not tasks:
            return
        model.eval()  # mmengine's loops do so only after this hook
        tokenizer = self.tokenizer or dict(
            type='mmslip.CLIPTokenizer', context_length=model.text_backbone.context_length
        )
        embed = ClassEmbedder(TOKENIZERS.build(tokenizer), self.batch_size, cache_dir)
        model.class_embeddings = embed(
            model,
            {
                task: (part.metainfo['classes'], part.metainfo.get('templates', self.templates))
                for task, part in tasks.items()
            },
        )


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
        if 'classes' in part.metainfo and part.metainfo.get('role', 'query') == 'query':
            tasks[part.metainfo['task']] = part
    return tasks
