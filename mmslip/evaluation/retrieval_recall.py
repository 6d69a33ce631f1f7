"""Retrieval between images and captions."""

import sys
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.evaluator import BaseMetric
from torch import Tensor
from torch.utils.data import Dataset

from mmslip.datasets.tasks import query_parts
from mmslip.datasets.transforms.text import TokenizeCaptions
from mmslip.evaluation.statistics import names_of, percent, proportion, ratio_of_sums
from mmslip.registry import METRICS

__all__ = ['RetrievalRecall', 'retrieval_ranks']

# Similarities held at a time: 1,024 images by 1,024 captions, 4 MB, which a CPU's cache holds.
_BLOCK = 2**10
# Similarities of unit vectors in float32 that are closer than this are equal but for rounding.
_TIE = 1e-6


@METRICS.register_module()
class RetrievalRecall(BaseMetric):
    """Recall at K from images to captions and back, in percent, with 95 % intervals.

    An image (``retrieval/TASK_i2t_rK``) counts if one of its captions is among the K captions most
    similar to it; a caption (``retrieval/TASK_t2i_rK``) if its image is among the K images most
    similar to it, of all that were evaluated. This is the usual protocol for Flickr30k and COCO,
    with several captions an image (Karpathy & Fei-Fei, arXiv 1412.2306). The interval of ``t2i``
    draws images, with all their captions. What is as similar as the right one stands before it.

    Samples without ``text_feat`` (of classification) are passed over. Ranks are counted block by
    block in the main process, on its GPU where it has one: memory holds the embeddings, in float32,
    and never all similarities.

    Args:
        topk: The values of K.
        collect_device: ``'cpu'`` or ``'gpu'``, for the exchange between processes.

    Raises:
        ValueError: No sample has captions.
    """

    default_prefix = 'retrieval'

    def __init__(self, topk: Sequence[int] = (1, 5, 10), collect_device: str = 'cpu') -> None:
        super().__init__(collect_device=collect_device)
        self.topk = tuple(topk)

    def metric_names(self, dataset: Dataset) -> list[str]:
        """Names of what an evaluation of ``dataset`` will give, without the prefix."""
        tasks = [
            task
            for task, part in query_parts(dataset).items()
            if any(isinstance(step, TokenizeCaptions) for step in part.pipeline.transforms)
        ]
        ways = [f'{way}_r{k}' for k in self.topk for way in ('i2t', 't2i')]
        return [name for task in tasks for way in ways for name in names_of(f'{task}_{way}')]

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the embeddings of each image ``(D,)`` and of its captions ``(n, D)``."""
        for sample in data_samples:
            # One entry a sample, also for those passed over: mmengine drops by their number what
            # the sampler added to make the shares of all processes equal.
            entry = ()
            if 'text_feat' in sample:
                # Copied, for a row of a batch would keep, and take along, the whole batch.
                image, texts = (
                    sample[name].float().cpu().numpy().copy()
                    for name in ('image_feat', 'text_feat')
                )
                entry = (sample['task'], image, texts)
            self.results.append(entry)

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """Recall of each task in both directions."""
        tasks = defaultdict(list)
        for task, *pair in filter(None, results):
            tasks[task].append(pair)
        if not tasks:
            raise ValueError(
                'RetrievalRecall found no captions: evaluate a data set of images with captions, '
                'with mmslip.TokenizeCaptions in its pipeline, and a model with a text tower.'
            )
        metrics, device = {}, get_device()
        for task, pairs in tasks.items():
            images = torch.from_numpy(np.stack([image for image, _ in pairs])).to(device)
            texts = torch.from_numpy(np.concatenate([texts for _, texts in pairs])).to(device)
            captions = np.array([len(texts) for _, texts in pairs])
            owners = np.repeat(np.arange(len(pairs)), captions)
            ranks = retrieval_ranks(images, texts, torch.from_numpy(owners).to(device))
            to_text, to_image = (rank.cpu().numpy() for rank in ranks)
            for k in self.topk:
                found = np.bincount(owners, to_image < k, minlength=len(pairs)).astype(int)
                metrics.update(percent(f'{task}_i2t_r{k}', proportion(to_text < k)))
                metrics.update(percent(f'{task}_t2i_r{k}', ratio_of_sums(found, captions)))
        return metrics


@torch.no_grad()
def retrieval_ranks(images: Tensor, texts: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
    """How many wrong ones stand before the right one, for each image and for each caption.

    Args:
        images: ``(N, D)``, unit rows.
        texts: ``(M, D)``, unit rows.
        owners: Image of each caption, ``(M,)`` int64.

    Returns:
        ``(N,)``, the captions of other images before an image's best own one, and ``(M,)``, the
        images before a caption's own; ``sys.maxsize`` where the right similarity is not finite.
    """
    parts = zip(texts.split(_BLOCK), owners.split(_BLOCK), strict=True)
    own = torch.cat([(images[owner] * text).sum(dim=1) for text, owner in parts])  # (M,)
    best = own.new_full((len(images),), -torch.inf).scatter_reduce_(0, owners, own, 'amax')  # (N,)
    above_text = torch.full_like(best, len(texts), dtype=torch.int64)
    above_image = torch.full_like(owners, len(images))
    numbers = torch.arange(len(images), device=images.device)
    for rows in numbers.split(_BLOCK):
        for columns in torch.arange(len(texts), device=texts.device).split(_BLOCK):
            scores = images[rows] @ texts[columns].T  # (n, m)
            scores.masked_fill_(rows[:, None] == owners[columns], -torch.inf)
            # What is not clearly below counts as above, NaN too.
            below = scores < best[rows, None] - _TIE
            above_text[rows] -= below.sum(dim=1, dtype=torch.int32)
            below = scores < own[columns] - _TIE
            above_image[columns] -= below.sum(dim=0, dtype=torch.int32)
    for ranks, right in ((above_text, best), (above_image, own)):
        ranks.masked_fill_(~right.isfinite(), sys.maxsize)
    return above_text, above_image
