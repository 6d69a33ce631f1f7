"""Samples as metrics get them."""

import numpy as np
import torch


def samples_of(
    features: np.ndarray, labels: np.ndarray, task: str = 'digits', **fields: object
) -> list[dict]:
    """One dict for each feature ``(N, C)`` with its label ``(N,)``; they share one storage."""
    rows = torch.as_tensor(features, dtype=torch.float32)
    return [
        dict(backbone_feat=row, gt_label=torch.tensor([int(label)]), task=task, **fields)
        for row, label in zip(rows, labels, strict=True)
    ]


def evaluate(metric, samples: list[dict], batch_size: int = 7) -> dict[str, float]:
    """The metrics of samples given in batches."""
    for start in range(0, len(samples), batch_size):
        metric.process({}, samples[start : start + batch_size])
    return metric.evaluate(len(samples))
