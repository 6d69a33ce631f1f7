"""Whether what a run watches will be measured, before its first step."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.optim.scheduler.param_scheduler import ReduceOnPlateauParamScheduler
from mmengine.runner import Runner
from mmpretrain.evaluation import Accuracy
from torch import nn
from torch.utils.data import Dataset

from mmslip.datasets.tasks import query_parts
from mmslip.engine.unwrap import unwrap
from mmslip.evaluation import ZeroShotAccuracy
from mmslip.models import SLIP
from mmslip.registry import HOOKS, PARAM_SCHEDULERS
from mmslip.utils.parts import find_all, is_kind, parts_of

__all__ = ['MonitorCheckHook', 'check_monitored', 'known_metrics', 'monitored']


_STOPS = ', and training would stop at its first validation.'


@HOOKS.register_module()
class MonitorCheckHook(Hook):
    """Refuse settings that name a metric or a task which no validation will give.

    Without it the run ends at its first validation, often hours later and before anything is
    saved. See :func:`check_monitored`.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Compare the settings with the evaluators."""
        if runner.val_loop is not None:
            dataset, metrics = runner.val_dataloader.dataset, runner.val_evaluator.metrics
            check_monitored(runner.cfg, dataset, metrics, unwrap(runner.model))


def check_monitored(
    cfg: Config, dataset: Dataset, metrics: Sequence[BaseMetric], model: nn.Module
) -> None:
    """Refuse settings that name a metric or a task which no validation will give.

    Args:
        cfg: The config of the run.
        dataset: The validation data.
        metrics: Its evaluators. The names that one of another library gives are known of
            mmpretrain's ``Accuracy`` alone; what might be given by others is not refused.
        model: The model. :class:`mmslip.models.SLIP` has its class scores from
            :class:`ZeroShotHook`, others may have their own.

    Raises:
        ValueError: A metric is not given, an evaluator has nothing to judge, or a task does not
            exist.
    """
    given, unknown = [], []
    for metric in metrics:
        names = known_metrics(metric, dataset)
        if names is None:
            unknown.append(metric.prefix)
        elif not names:
            raise ValueError(
                f'val_evaluator: {type(metric).__name__} finds nothing to judge in val_dataloader '
                f'({_tasks(dataset)}){_STOPS}'
            )
        else:
            given += names
        if isinstance(metric, ZeroShotAccuracy) and isinstance(model, SLIP):
            lacks = None
            if not model.with_text:
                lacks = 'a text tower in model'
            elif not any(find_all(_hooks(cfg), 'ZeroShotHook')):
                lacks = "dict(type='mmslip.ZeroShotHook') in custom_hooks"
            if lacks:
                raise ValueError(f'val_evaluator: ZeroShotAccuracy needs {lacks}{_STOPS}')
    for setting, name in monitored(cfg, dataset):
        prefix = name.rpartition('/')[0]
        if name in given or any(other is None or prefix == other for other in unknown):
            continue
        like = get_close_matches(name, given, 1, 0.4)
        raise ValueError(
            f'{setting} = {name!r}: no evaluator gives this metric{_STOPS} '
            f'{f"Is {like[0]!r} meant? " if like else ""}Given are '
            f'{", ".join(name for name in given if not name.endswith(("_low", "_high")))}.'
        )
    for path, hook in parts_of(_hooks(cfg)):
        if is_kind(hook, 'RetrievalPictureHook') and hook['task'] not in query_parts(dataset):
            raise ValueError(
                f'{path}.task = {hook["task"]!r}: no such task in val_dataloader '
                f'({_tasks(dataset)}).'
            )


def known_metrics(metric: BaseMetric, dataset: Dataset) -> list[str] | None:
    """Names that a metric will report of a data set, with its prefix; None if they are not known.

    A metric tells them by a method ``metric_names(dataset)``, without the prefix, as those of
    mmslip do.
    """
    if hasattr(metric, 'metric_names'):
        names = metric.metric_names(dataset)
    elif type(metric) is Accuracy and len(metric.thrs) == 1:
        names = [f'top{k}' for k in metric.topk]
    else:
        return None
    return [f'{metric.prefix}/{name}' if metric.prefix else name for name in names]


def monitored(cfg: Config, dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Settings that name a metric of the validation, and the metric.

    Of ``save_best`` (but ``'auto'``), early stopping, schedulers that wait for a plateau, and the
    metrics that :class:`PixelBaselineHook` sets its own beside.
    """
    for path, hook in parts_of(_hooks(cfg)):
        best = hook.get('save_best') or []
        for name in [best] if isinstance(best, str) else best:
            if name != 'auto':
                yield f'{path}.save_best', name
        if is_kind(hook, 'EarlyStoppingHook') and hook.get('monitor'):
            yield f'{path}.monitor', hook['monitor']
        if is_kind(hook, 'PixelBaselineHook'):
            for task, part in query_parts(dataset).items():
                if 'classes' in part.metainfo:
                    yield from ((path, f'zero_shot/{task}_top{k}') for k in (1, 5))
    for path, scheduler in parts_of(cfg.get('param_scheduler'), 'param_scheduler'):
        kind = scheduler['type']
        kind = PARAM_SCHEDULERS.get(kind) if isinstance(kind, str) else kind
        if kind is not None and issubclass(kind, ReduceOnPlateauParamScheduler):
            yield f'{path}.monitor', scheduler.get('monitor', 'loss')  # mmengine's default


def _hooks(cfg: Config) -> dict:
    return {key: cfg.get(key) for key in ('default_hooks', 'custom_hooks')}


def _tasks(dataset: Dataset) -> str:
    names = ', '.join(query_parts(dataset))
    return f'tasks: {names}' if names else 'which names no task'
