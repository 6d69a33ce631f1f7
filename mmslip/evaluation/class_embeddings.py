"""Embeddings of texts and classes, and the scores of images for classes."""

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from mmslip.datasets import CLIPTokenizer
from mmslip.datasets.tasks import role_of
from mmslip.models import TextTransformer
from mmslip.utils import digest_of, whole_file
from mmslip.utils.parts import find_all

__all__ = [
    'ClassEmbedder',
    'default_tokenizer',
    'embed_texts',
    'prompts_of',
    'score_classes',
    'stated_tokenizer',
]

# A class is a name or several synonyms.
Classes = Sequence[str | Sequence[str]]


def default_tokenizer(text_backbone: nn.Module) -> dict:
    """The config of the tokeniser of CLIP's text tower, as long as the tower reads.

    Raises:
        ValueError: The tower is another one, whose tokeniser cannot be known.
    """
    if not isinstance(text_backbone, TextTransformer) or text_backbone.end_id != 'highest':
        raise ValueError(
            f'No tokeniser is stated for the text tower {type(text_backbone).__name__}, and that '
            'of CLIP is not its own: set `tokenizer` of mmslip.ZeroShotHook, and of '
            'mmslip.TokenizeCaption in the pipelines.'
        )
    cfg = dict(type='mmslip.CLIPTokenizer', context_length=text_backbone.context_length)
    merges = CLIPTokenizer.merges_of(text_backbone.vocab_size)
    return cfg if merges is None else dict(cfg, num_merges=merges)


def stated_tokenizer(cfg: Mapping) -> dict | None:
    """The tokeniser of a config's captions, or of its classes, where it states one."""
    kinds = ('TokenizeCaption', 'ZeroShotHook', 'TokenizeCaptions')
    parts = (part for kind in kinds for part in find_all(cfg, kind))
    return next(filter(None, (part.get('tokenizer') for part in parts)), None)


def prompts_of(classes: Classes, templates: Sequence[str]) -> list[list[str]]:
    """The prompts of each class: every synonym in every template."""
    names = [[name] if isinstance(name, str) else name for name in classes]
    return [
        [template.format(name) for name in synonyms for template in templates] for synonyms in names
    ]


@torch.no_grad()
def embed_texts(model: nn.Module, ids: Tensor, batch_size: int = 256) -> Tensor:
    """Embed texts in batches of about equal length.

    A batch costs as much as its longest text, so texts are sorted by length first; the embeddings
    do not depend on it.

    Args:
        model: Has ``encode_text`` and ``trim_text``, and is in eval mode.
        ids: Token ids ``(N, L)``.
        batch_size: Texts in one pass.

    Returns:
        ``(N, D)``, unit rows, float32, on the model's device, in the order of ``ids``.
    """
    device = next(model.parameters()).device
    order = torch.tensor([model.trim_text(row[None]).shape[1] for row in ids]).argsort()
    chunks = [
        F.normalize(model.encode_text(model.trim_text(ids[rows]).to(device)).float(), dim=-1)
        for rows in order.split(batch_size)
    ]
    return torch.cat(chunks)[order.argsort()]  # (N, D)


class ClassEmbedder:
    """Embed the classes of several tasks as the means of their prompts.

    Each prompt's embedding is normalised, then averaged over the templates (and synonyms) of its
    class, then normalised again (Radford et al., arXiv 2103.00020, 3.1.4). The prompts of all tasks
    go through the text tower together, each different one once.

    Args:
        tokenizer: Maps N strings to ids ``(N, L)``.
        batch_size: Prompts in one pass.
        cache_dir: Folder where embeddings are kept by the text tower's weights and the tokenised
            prompts, so that the same checkpoint embeds a task once. None keeps nothing.
    """

    def __init__(
        self,
        tokenizer: Callable[[Sequence[str]], Tensor],
        batch_size: int = 256,
        cache_dir: str | Path | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.cache_dir = None if cache_dir is None else Path(cache_dir)

    def __call__(
        self, model: nn.Module, tasks: Mapping[str, tuple[Classes, Sequence[str]]]
    ) -> dict[str, Tensor]:
        """Embed tasks.

        Args:
            model: A :class:`mmslip.models.SLIP` in eval mode.
            tasks: Classes (K of them) and templates (prompts with ``{}`` for the name) of each.

        Returns:
            ``(K, D)`` for each task: unit rows, float32, on the model's device.
        """
        prompts = {task: prompts_of(*parts) for task, parts in tasks.items()}
        texts = list(dict.fromkeys(t for rows in prompts.values() for row in rows for t in row))
        place = {text: number for number, text in enumerate(texts)}
        ids = self.tokenizer(texts)  # (N, L)
        members = {  # rows of `ids`, by class
            task: [torch.tensor([place[text] for text in row]) for row in rows]
            for task, rows in prompts.items()
        }
        files = self._files(model, ids, members)
        found = {task: load_tensor(path) for task, path in files.items() if path.is_file()}
        device = next(model.parameters()).device
        embeddings = {task: value.to(device) for task, value in found.items() if value is not None}
        missing = [task for task in tasks if task not in embeddings]
        if missing:
            needed = torch.cat([row for task in missing for row in members[task]]).unique()
            feats = embed_texts(model, ids[needed], self.batch_size)
            for task in missing:
                means = [
                    feats[torch.searchsorted(needed, row).to(device)].mean(dim=0)
                    for row in members[task]
                ]
                embeddings[task] = F.normalize(torch.stack(means), dim=-1)  # (K, D)
                if task in files:
                    save_tensor(embeddings[task].cpu(), files[task])
        return embeddings

    def _files(
        self, model: nn.Module, ids: Tensor, members: Mapping[str, list[Tensor]]
    ) -> dict[str, Path]:
        """Where the embeddings of each task are kept."""
        if self.cache_dir is None:
            return {}
        tower = digest_of(model.text_backbone, model.text_neck)
        files = {}
        for task, rows in members.items():
            digest = tower.copy()
            for row in rows:
                digest.update(ids[row].numpy())
                digest.update(b'class')
            files[task] = self.cache_dir / f'{digest.hexdigest()[:40]}.pt'
        return files


def score_classes(samples: Sequence[Any], class_embeddings: Mapping[str, Tensor]) -> None:
    """Score images for the classes of their tasks.

    Args:
        samples: Have ``task`` and ``image_feat`` ``(D,)``, normalised, as
            :meth:`mmslip.models.SLIP.predict` returns them. Those that are judged in one of the
            tasks get ``pred_score`` ``(K,)``, the cosine similarity to each class.
        class_embeddings: ``(K, D)`` for each task, of :class:`ClassEmbedder`.
    """
    for task, classes in class_embeddings.items():
        judged = [
            sample
            for sample in samples
            if sample.get('task') == task and role_of(sample) == 'query'
        ]
        if judged:
            feats = torch.stack([sample.image_feat for sample in judged])  # (b, D)
            for sample, scores in zip(judged, feats @ classes.T, strict=True):  # (b, K)
                sample.set_field(scores, 'pred_score')


def load_tensor(path: Path) -> Tensor | None:
    """A kept tensor; None, with a warning, where the file is damaged."""
    try:
        return torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        print_log(f'{path} is damaged and made again ({error}).', logger='current', level=30)
        return None


def save_tensor(value: Tensor, path: Path) -> None:
    """Write a file that is whole or not there, whoever else writes it at the same time."""
    with whole_file(path) as part:
        torch.save(value, part)
