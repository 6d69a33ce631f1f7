"""Classification by the nearest neighbours in feature space."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmslip.evaluation.reference_metric import ReferenceMetric
from mmslip.registry import METRICS

__all__ = ['KNNAccuracy', 'knn_predict']

# Similarities held at a time: 1,024 queries by 32,768 references, 128 MB.
_QUERIES, _REFERENCES = 2**10, 2**15


@METRICS.register_module()
class KNNAccuracy(ReferenceMetric):
    """Accuracy of weighted k-nearest-neighbour classification, ``knn/TASK_top1``.

    Each query is named by the vote of the ``k`` references with the most similar features, weighted
    by ``exp(cosine / temperature)`` (Wu et al., arXiv 1805.01978, section 3.4; with ``k = 20`` as
    in DINO, arXiv 2104.14294). Nothing is trained. Roles, units and errors are those of
    :class:`mmslip.evaluation.ReferenceMetric`.

    Args:
        k: Number of neighbours; all references where a task has fewer.
        temperature: Divides the similarity.
        feature: Field that holds the feature.
        collect_device: ``'cpu'`` or ``'gpu'``, for the exchange between processes.
    """

    default_prefix = 'knn'

    def __init__(
        self,
        k: int = 20,
        temperature: float = 0.07,
        feature: str = 'backbone_feat',
        collect_device: str = 'cpu',
    ) -> None:
        super().__init__(feature, collect_device)
        self.k = k
        self.temperature = temperature

    def classify(
        self, features: Tensor, labels: Tensor, queries: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Predicted labels ``(M,)``; no further figures."""
        return knn_predict(features, labels, queries, self.k, self.temperature), {}


@torch.no_grad()
def knn_predict(
    features: Tensor, labels: Tensor, queries: Tensor, k: int, temperature: float
) -> Tensor:
    """Labels by weighted vote of the nearest neighbours, block by block.

    Args:
        features: References, ``(N, C)``.
        labels: Their labels, ``(N,)`` int64.
        queries: ``(M, C)``.
        k: Number of neighbours.
        temperature: Divides the cosine similarity before ``exp``.

    Returns:
        Labels of the queries, ``(M,)``.
    """
    features = F.normalize(features, dim=-1)
    num_classes = int(labels.max()) + 1
    predicted = []
    for query in F.normalize(queries, dim=-1).split(_QUERIES):  # (m, C)
        nearest, votes_for = query.new_empty(len(query), 0), labels.new_empty(len(query), 0)
        for rows, names in zip(features.split(_REFERENCES), labels.split(_REFERENCES), strict=True):
            similarity = torch.cat([nearest, query @ rows.T], dim=1)  # (m, k + n)
            names = torch.cat([votes_for, names.expand(len(query), -1)], dim=1)
            nearest, order = similarity.topk(min(k, similarity.shape[1]))  # (m, k)
            votes_for = names.gather(1, order)
        # Relative to the nearest one, so that no temperature overflows; the winner is the same.
        weights = ((nearest - nearest[:, :1]) / temperature).exp()
        votes = weights.new_zeros(len(query), num_classes)
        predicted.append(votes.scatter_add_(1, votes_for, weights).argmax(dim=1))
    return torch.cat(predicted)
