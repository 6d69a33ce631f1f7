"""Every reach into what mmengine 0.10 keeps for itself, one function each.

When mmengine changes, this is the file to look at. Each function says what it relies on.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.logging import MMLogger
from mmengine.model import BaseAveragedModel
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader, Dataset

__all__ = [
    'averages_of',
    'checkpoint_to_load',
    'drop_iterator',
    'follow_parameters',
    'preparing_loggers',
    'replace_batches',
    'restoring_averages',
    'resume_requested',
    'set_kept_checkpoints',
    'set_max_iters',
    'set_resume',
    'source_of_sample',
    'surround_saving',
]


@contextmanager
def preparing_loggers(prepare: Callable[[MMLogger], None]) -> Iterator[None]:
    """Within, every new runner hands its logger to ``prepare`` before it says anything.

    Relies on: ``Runner.__init__`` calls ``build_logger`` and then logs the environment, the config
    and the hooks.
    """
    build = Runner.build_logger

    def build_prepared(runner: Runner, *args: Any, **kwargs: Any) -> MMLogger:
        logger = build(runner, *args, **kwargs)
        prepare(logger)
        return logger

    Runner.build_logger = build_prepared
    try:
        yield
    finally:
        Runner.build_logger = build


def resume_requested(runner: Runner) -> bool:
    """Whether the run is to go on from a checkpoint, rather than only load weights.

    Relies on: ``Runner.load_or_resume`` reads ``_resume`` after the hooks' ``before_run``, and
    leaves it as it is.
    """
    return runner._resume


def checkpoint_to_load(runner: Runner) -> str | None:
    """The checkpoint that the run will resume from or take its weights from, if one is named.

    Relies on: ``Runner.load_or_resume`` reads ``_load_from`` after the hooks' ``before_run``.
    """
    return runner._load_from


def set_resume(runner: Runner, path: str | None) -> None:
    """Have the run go on from the checkpoint ``path``, or begin anew with None.

    Call it in a hook's ``before_run``. Relies on: as :func:`resume_requested` and
    :func:`checkpoint_to_load`.
    """
    runner._resume = path is not None
    runner._load_from = path


@contextmanager
def restoring_averages(runner: Runner) -> Iterator[None]:
    """Within, ``runner.load_checkpoint`` restores averaged weights as a resume does.

    Relies on: ``EMAHook.after_load_checkpoint`` reads ``runner._resume``; where it is not set, the
    hook makes a copy of the weights its average.
    """
    before, runner._resume = runner._resume, True
    try:
        yield
    finally:
        runner._resume = before


def averages_of(runner: Runner) -> list[BaseAveragedModel]:
    """The averaged models of a run's EMA hooks, once ``before_run`` has built them.

    Relies on: ``EMAHook.ema_model``.
    """
    return [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]


def follow_parameters(average: BaseAveragedModel) -> None:
    """Let an averaged model know its parameters after others have taken their place.

    Relies on: ``BaseAveragedModel`` lists its tensors in ``avg_parameters`` when it is built, and
    updates those.
    """
    values = average.module.state_dict() if average.update_buffers else None
    average.avg_parameters = values or dict(average.module.named_parameters())


def drop_iterator(loader: DataLoader) -> None:
    """End the data workers that a loader keeps between epochs, so that new ones start.

    Relies on: ``DataLoader._iterator`` of PyTorch, which holds persistent workers.
    """
    loader._iterator = None


def replace_batches(loop: IterBasedTrainLoop, batches: Iterator[Any]) -> None:
    """Have an iteration loop take its batches from ``batches``.

    Call it in a hook's ``before_train``. Relies on: the loop makes ``dataloader_iterator`` when it
    is built, whose workers load the run's first batches at once; ``run`` asks it for as many
    batches as a resumed run has done, throws them away, and trains on those that follow.
    """
    loop.dataloader_iterator = None
    drop_iterator(loop.dataloader)
    loop.dataloader_iterator = batches


def set_max_iters(loop: EpochBasedTrainLoop, steps: int) -> None:
    """Tell an epoch loop how many steps the whole run will have done at its end.

    Call it before training begins. Relies on: the loop works ``_max_iters`` out from its epochs
    when it is built, and ends by epochs; optimiser wrapper and logs read it.
    """
    loop._max_iters = steps


def source_of_sample(wrapper: Dataset, index: int) -> int | tuple[int, int]:
    """Where a data set around others takes a sample from: number of the part, and index in it.

    The index alone where it is around one.

    Relies on: ``_get_ori_dataset_idx`` of ``ConcatDataset``, ``RepeatDataset`` and
    ``ClassBalancedDataset``.
    """
    return wrapper._get_ori_dataset_idx(index)


def set_kept_checkpoints(hook: CheckpointHook, steps: Sequence[int]) -> None:
    """Tell a hook which of its files, by the numbers in their names, are there to be limited.

    Relies on: ``CheckpointHook.keep_ckpt_ids``, oldest first, made in its ``before_train`` from a
    list in the message hub that all checkpoint hooks of a run share.
    """
    hook.keep_ckpt_ids = deque(steps, hook.max_keep_ckpts)


def surround_saving(runner: Runner, around: Callable[[], AbstractContextManager]) -> None:
    """Have all processes enter ``around()`` whenever the run saves a checkpoint.

    Relies on: every process calls ``runner.save_checkpoint`` (``CheckpointHook`` and
    :func:`mmslip.engine.checkpointing.stop.save_before_stopping`), but only the main one gets into
    it and to the hooks' ``before_save_checkpoint``, which is too late for collective calls.
    """
    save = runner.save_checkpoint

    def save_within(*args: Any, **kwargs: Any) -> None:
        with around():
            save(*args, **kwargs)

    runner.save_checkpoint = save_within
