"""Class embeddings for zero-shot evaluation."""

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmslip.evaluation.class_embeddings import embed_classes
from mmslip.registry import HOOKS, TOKENIZERS

__all__ = ['ZeroShotHook', 'tasks_of']


@HOOKS.register_module()
class ZeroShotHook(Hook):
    """Turn class names into class embeddings before each validation or test.

    Every evaluation data set states its ``task`` (a name), its ``classes`` and, optionally, its
    ``templates`` in ``metainfo``; several sets may stand together in a ``ConcatDataset``. The
    embeddings are made with the model's present text tower (so with averaged weights where those
    are swapped in) and read by :meth:`mmslip.models.SLIP.predict`.

    Args:
        templates: Prompts with ``{}`` for the class name, for sets that state none.
        tokenizer: Config of the tokeniser.
        batch_size: Prompts in one pass of the text tower.
    """

    # After hooks that swap in averaged weights.
    priority = 'LOW'

    def __init__(
        self,
        templates: Sequence[str] = ('a photo of a {}.',),
        tokenizer: dict | None = None,
        batch_size: int = 256,
    ) -> None:
        self.templates = tuple(templates)
        self.tokenizer = TOKENIZERS.build(tokenizer or dict(type='mmslip.CLIPTokenizer'))
        self.batch_size = batch_size

    def before_val_epoch(self, runner: Runner) -> None:
        """Prepare the tasks of the validation data."""
        self._prepare(runner, runner.val_dataloader.dataset)

    def before_test_epoch(self, runner: Runner) -> None:
        """Prepare the tasks of the test data."""
        self._prepare(runner, runner.test_dataloader.dataset)

    def _prepare(self, runner: Runner, dataset: Dataset) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.eval()  # mmengine's loops do so only after this hook
        for task, part in tasks_of(dataset).items():
            templates = part.metainfo.get('templates', self.templates)
            model.class_embeddings[task] = embed_classes(
                model, part.metainfo['classes'], templates, self.tokenizer, self.batch_size
            )


def tasks_of(dataset: Dataset) -> dict[str, Dataset]:
    """The evaluation sets by task: a data set alone, or the parts of a concatenated one.

    Raises:
        ValueError: The ``metainfo`` of a part lacks ``task`` or ``classes``.
    """
    parts = getattr(dataset, 'datasets', [dataset])
    for part in parts:
        missing = {'task', 'classes'} - part.metainfo.keys()
        if missing:
            raise ValueError(
                f'The metainfo of {type(part).__name__} has no {", ".join(sorted(missing))}: '
                'zero-shot evaluation needs both. Give them as the `metainfo` argument.'
            )
    return {part.metainfo['task']: part for part in parts}
