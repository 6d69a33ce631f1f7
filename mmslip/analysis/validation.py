"""Checks of the validation, without running it."""

import copy

from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from torch import nn

from mmslip.analysis.finding import Finding
from mmslip.engine import check_monitored
from mmslip.engine.hooks.monitor_check import known_metrics

__all__ = ['check_validation']


def check_validation(cfg: Config, model: nn.Module) -> Finding:
    """Whether the metrics that the run watches are among those that its evaluators will give."""
    if not cfg.get('val_dataloader'):
        return Finding('validation', 'there is none')
    loader = copy.deepcopy(cfg.val_dataloader)
    dataset = Runner.build_dataloader(dict(loader, num_workers=0, persistent_workers=False)).dataset
    metrics = Evaluator(copy.deepcopy(cfg.val_evaluator)).metrics
    try:
        check_monitored(cfg, dataset, metrics, model)
    except ValueError as error:
        return Finding('validation', str(error), 'fail', 'one of the names that are given')
    names = [name for metric in metrics for name in known_metrics(metric, dataset) or []]
    shown = [name for name in names if not name.endswith(('_low', '_high'))]
    return Finding('validation', f'{len(dataset):,} samples; gives {", ".join(shown[:5])}')
