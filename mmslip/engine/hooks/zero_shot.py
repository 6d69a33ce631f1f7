"""Class embeddings for zero-shot evaluation."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmslip.registry import HOOKS, TOKENIZERS

__all__ = ['ZeroShotHook', 'embed_classes']


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
        for task in _tasks(dataset):
            templates = task.get('templates', self.templates)
            model.class_embeddings[task['task']] = embed_classes(
                model, task['classes'], templates, self.tokenizer, self.batch_size
            )


def _tasks(dataset: Dataset) -> Iterator[dict]:
    """The ``metainfo`` of a data set, or of each part of a concatenated one."""
    for part in getattr(dataset, 'datasets', [dataset]):
        missing = {'task', 'classes'} - part.metainfo.keys()
        if missing:
            raise ValueError(
                f'The metainfo of {type(part).__name__} has no {", ".join(sorted(missing))}: '
                'zero-shot evaluation needs both. Give them as the `metainfo` argument.'
            )
        yield part.metainfo


@torch.no_grad()
def embed_classes(
    model: nn.Module,
    classes: Sequence[str],
    templates: Sequence[str],
    tokenizer: object,
    batch_size: int = 256,
) -> Tensor:
    """Embed class names as the mean of their prompts (Radford et al., arXiv 2103.00020, 3.1.4).

    Each prompt's embedding is normalised, then averaged over templates, then normalised again.

    Args:
        model: Has ``encode_text`` and is in eval mode.
        classes: ``K`` class names.
        templates: Prompts with ``{}`` for the name.
        tokenizer: Maps a list of strings to ids ``(N, L)``.
        batch_size: Prompts in one pass.

    Returns:
        ``(K, D)``, unit rows, float32, on the model's device.
    """
    device = next(model.parameters()).device
    prompts = [template.format(name) for name in classes for template in templates]
    chunks = []
    for start in range(0, len(prompts), batch_size):
        text = tokenizer(prompts[start : start + batch_size])  # (N, L)
        # Nothing behind the last end-of-text token can reach a feature.
        text = text[:, : int(text.argmax(dim=-1).max()) + 1].to(device)
        chunks.append(F.normalize(model.encode_text(text).float(), dim=-1))  # (N, D)
    embeddings = torch.cat(chunks).view(len(classes), len(templates), -1)  # (K, T, D)
    return F.normalize(embeddings.mean(dim=1), dim=-1)  # (K, D)
