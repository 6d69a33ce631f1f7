"""Resuming at the exact sample, in the middle of an epoch, without loading what came before."""

import logging
from collections.abc import Iterator
from itertools import repeat

from mmengine.dist import broadcast_object_list, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmslip.datasets.sampler import VisitSampler
from mmslip.datasets.stream import StreamDataset
from mmslip.engine.checkpointing.data_order import order_of
from mmslip.engine.checkpointing.differences import differences
from mmslip.engine.mmengine_compat import replace_batches, resume_requested, set_max_iters
from mmslip.registry import HOOKS

__all__ = ['ResumeDataHook', 'step_in_data', 'visit_source']


@HOOKS.register_module()
class ResumeDataHook(Hook):
    """Let a resumed run begin with the sample that would have come next.

    Alone, mmengine's epoch loop repeats the begun epoch from its start, and its iteration loop
    loads everything again that the run had seen. This hook saves the epoch, and how many samples of
    its order all processes together have visited, in every checkpoint (``meta.data_place``). After
    a resume :class:`VisitSampler` or :class:`StreamDataset` starts there, with the batch size and
    the number of processes of now. Runs with another sampler are left as they are.

    A place has a meaning in its own order only. So the checkpoint also notes what the order follows
    from (:func:`order_of`). Where that has changed, the log says what, and the epoch begins anew.

    Where these have changed, the steps done and the steps left are no longer those of the config's
    epochs. An epoch loop ends with its last epoch all the same, and its schedules by step go on at
    the place in the data (:func:`step_in_data`).
    """

    # After mmengine's DistSamplerSeedHook, before CheckpointHook.
    priority = 'BELOW_NORMAL'

    def __init__(self) -> None:
        self._epoch = 0
        self._samples = 0  # visited in this epoch, by all processes
        self._order: dict = {}  # what that of the samples follows from
        self._saved: dict | None = None
        self._begun = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note the place in the data."""
        loader = runner.train_dataloader
        source = visit_source(loader)
        if source is not None:
            in_table = isinstance(source, VisitSampler)  # a stream's end shows when it is reached
            checkpoint['meta']['data_place'] = dict(
                epoch=self._epoch,
                samples=self._samples,
                ended=in_table and not _steps_left(loader, source, self._samples),
                seed=source.seed,
                order=self._order,
            )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the place that the checkpoint notes, and count the steps that are left."""
        if self._begun or not resume_requested(runner):
            return  # a rollback, or weights alone
        _compare_order(runner.train_dataloader, checkpoint)
        self._saved = checkpoint['meta'].get('data_place')
        loop = runner.train_loop
        if not isinstance(loop, IterBasedTrainLoop):
            # With it mmengine tells the last steps of accumulated gradients.
            left = loop.max_iters - step_in_data(runner, checkpoint)
            set_max_iters(loop, checkpoint['meta']['iter'] + left)

    def before_train(self, runner: Runner) -> None:
        """Work out where to begin; a run that only loads weights begins at the beginning."""
        self._begun = True
        loop, loader = runner.train_loop, runner.train_dataloader
        source = visit_source(loader)
        if source is None:
            return
        self._order = order_of(source)
        in_steps = isinstance(loop, IterBasedTrainLoop)
        if isinstance(source, StreamDataset):
            if not in_steps:
                raise ValueError(
                    'How many steps an epoch of a stream has is known at its end only: set '
                    'train_cfg=dict(by_epoch=False, max_iters=...).'
                )
            source.batch_size = loader.batch_size
        elif not len(loader):  # of which `_batches` would never have one, without BatchCheckHook
            raise ValueError(
                f'The {len(loader.dataset)} samples of the training data are fewer than a batch of '
                f'all processes ({_step_size(loader)}): lower `batch_size`.'
            )
        if loop.iter and self._saved:
            self._epoch, self._samples = self._saved['epoch'], self._saved['samples']
            source.seed = self._saved['seed']
        elif in_steps:
            self._epoch, step = divmod(loop.iter, len(loader))
            self._samples = step * _step_size(loader)
        else:
            # A run killed after the last step of an epoch has its end yet to do: validation,
            # schedules. It resumes with no step left in that epoch.
            self._epoch = loop.epoch
            steps = min(max(loop.iter - loop.epoch * len(loader), 0), len(loader))
            self._samples = steps * _step_size(loader)
        if in_steps:
            replace_batches(loop, self._batches(loader, source, loop.iter))

    def before_train_epoch(self, runner: Runner) -> None:
        """Leave out the samples of this epoch that have been visited."""
        source = visit_source(runner.train_dataloader)
        if source is not None:
            source.set_epoch(self._epoch, self._samples)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Count."""
        self._samples += _step_size(runner.train_dataloader)

    def after_train_epoch(self, runner: Runner) -> None:
        """Go on to the next epoch; an iteration loop has one of these events, at its end."""
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            self._epoch, self._samples = self._epoch + 1, 0

    def _batches(
        self, loader: DataLoader, source: VisitSampler | StreamDataset, past: int
    ) -> Iterator[dict | None]:
        """Batches of epoch after epoch, from the present place on.

        mmengine's loop asks a resumed run's iterator for all ``past`` batches and throws them away:
        it gets nothing, at once.
        """
        yield from repeat(None, past)
        while True:
            source.set_epoch(self._epoch, self._samples)
            yield from loader
            self._epoch, self._samples = self._epoch + 1, 0


def visit_source(loader: DataLoader) -> VisitSampler | StreamDataset | None:
    """The stream or :class:`VisitSampler` that gives a loader's samples their order.

    The sampler stands alone or inside the batch sampler.
    """
    batch_sampler = getattr(loader.batch_sampler, 'sampler', None)
    for source in (loader.dataset, loader.sampler, batch_sampler):
        if isinstance(source, VisitSampler | StreamDataset):
            return source
    return None


def _compare_order(loader: DataLoader, checkpoint: dict) -> None:
    """If the order is another, let the epoch begin anew unless it had ended, and say so."""
    place, source = checkpoint['meta'].get('data_place'), visit_source(loader)
    if not place:
        if source is not None:
            message = (
                'The checkpoint does not note its place in the data: it is worked out from the '
                'step, for the batch size and the data of now.'
            )
            print_log(message, 'current', level=logging.WARNING)
        return
    now = dict(type=type(loader.sampler).__name__) if source is None else order_of(source)
    found = [[*differences(place.get('order', now), now, 'order')]]
    broadcast_object_list(found)  # all processes must begin at the same place
    if not found[0]:
        return
    changes = ', '.join(
        f'{name.removeprefix("order.")}: {old} -> {new}' for name, old, new in found[0]
    )
    epoch, samples = place['epoch'], 0
    if source is None:
        remedy = 'The place in the data is not kept, for which mmslip.VisitSampler is needed.'
    elif place['ended'] or not place['samples']:
        remedy = f'The epochs up to {epoch + place["ended"]} had ended before.'
        if place['ended'] and isinstance(source, StreamDataset):
            epoch += 1
        elif place['ended']:
            samples = len(source.dataset)  # an epoch loop has the end of the epoch yet to do
    else:
        remedy = (
            f'Epoch {epoch + 1} begins anew; {place["samples"]} samples of its former order had '
            'been visited.'
        )
    checkpoint['meta']['data_place'] = dict(place, epoch=epoch, samples=samples)
    message = f'Changed on resume: the training data ({changes}). {remedy}'
    print_log(message, 'current', level=logging.WARNING)


def step_in_data(runner: Runner, checkpoint: dict) -> int:
    """The step that a checkpoint's place in the data is at, with the epochs of this run.

    It is the step of the checkpoint, unless batch size or number of processes have changed in an
    epoch loop: then an epoch has other steps than were done.
    """
    loop, loader = runner.train_loop, runner.train_dataloader
    meta = checkpoint['meta']
    sampler, place = visit_source(loader), meta.get('data_place')
    if isinstance(loop, IterBasedTrainLoop) or not isinstance(sampler, VisitSampler) or not place:
        return meta['iter']
    return (place['epoch'] + 1) * len(loader) - _steps_left(loader, sampler, place['samples'])


def _steps_left(loader: DataLoader, sampler: VisitSampler, samples: int) -> int:
    """Steps of an epoch behind the samples that all processes have visited."""
    steps, rest = divmod(sampler.left(samples), _step_size(loader) // sampler.world_size)
    return steps + bool(rest and not loader.drop_last)


def _step_size(loader: DataLoader) -> int:
    """Samples of all processes in a step."""
    return (loader.batch_size or loader.batch_sampler.batch_size) * get_world_size()
