"""Resuming at the exact sample, in the middle of an epoch, without loading what came before."""

from collections.abc import Iterator
from itertools import chain, repeat

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmslip.datasets.sampler import VisitSampler
from mmslip.datasets.stream import StreamDataset
from mmslip.registry import HOOKS
from mmslip.utils import mix_seed

__all__ = ['ResumeDataHook']


@HOOKS.register_module()
class ResumeDataHook(Hook):
    """Let a resumed run begin with the sample that would have come next.

    Alone, mmengine's epoch loop repeats the begun epoch from its start, and its iteration loop
    loads everything again that the run had seen. This hook saves epoch and step within it in every
    checkpoint (``meta.data_order``) and, after a resume, starts :class:`VisitSampler` there. Runs
    with another sampler are left as they are. A :class:`StreamDataset` cannot go on where it was:
    it begins anew in another order, with a warning.

    With another batch size or number of processes, a resumed run goes on at the same place of the
    epoch, rounded down to a whole batch, and says so.
    """

    # After mmengine's DistSamplerSeedHook, before CheckpointHook.
    priority = 'BELOW_NORMAL'

    def __init__(self) -> None:
        self._epoch = 0
        self._step = 0  # steps done in this epoch
        self._saved: dict | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note the place in the data."""
        loader = runner.train_dataloader
        sampler = visit_sampler(loader)
        if sampler is not None:
            checkpoint['meta']['data_order'] = dict(
                epoch=self._epoch, step=self._step, steps=len(loader), seed=sampler.seed
            )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the place that the checkpoint notes."""
        self._saved = checkpoint.get('meta', {}).get('data_order')

    def before_train(self, runner: Runner) -> None:
        """Work out where to begin; a run that only loads weights begins at the beginning."""
        loop, loader = runner.train_loop, runner.train_dataloader
        if isinstance(loader.dataset, StreamDataset):
            _begin_stream(runner)
            return
        sampler = visit_sampler(loader)
        if sampler is None:
            return
        steps = len(loader)
        if isinstance(loop, IterBasedTrainLoop):
            self._epoch, self._step = divmod(loop.iter, steps)
        else:
            # A run killed after the last step of an epoch has its end yet to do: validation,
            # schedules. It resumes with no step left in that epoch.
            self._epoch, self._step = loop.epoch, min(max(loop.iter - loop.epoch * steps, 0), steps)
        if loop.iter and self._saved:
            self._epoch, self._step = self._saved['epoch'], self._saved['step']
            sampler.seed = self._saved['seed']
            if self._saved['steps'] != steps:
                self._step = self._step * steps // self._saved['steps']
                runner.logger.warning(
                    f'An epoch has {steps} steps now and had {self._saved["steps"]} when the '
                    'checkpoint was saved (batch size, number of processes or data have changed): '
                    f'the data goes on at step {self._step} of epoch {self._epoch + 1}.'
                )
        if isinstance(loop, IterBasedTrainLoop):
            # The loop has made an iterator already, whose workers load the run's first batches.
            loop.dataloader_iterator = loader._iterator = None
            loop.dataloader_iterator = _batches(loader, sampler, loop.iter, self._epoch, self._step)

    def before_train_epoch(self, runner: Runner) -> None:
        """Leave out the steps of this epoch that are done."""
        loader = runner.train_dataloader
        sampler = visit_sampler(loader)
        if sampler is not None:
            sampler.set_epoch(self._epoch, self._step * loader.batch_sampler.batch_size)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Count."""
        self._step += 1
        if self._step == len(runner.train_dataloader) and isinstance(
            runner.train_loop, IterBasedTrainLoop
        ):
            self._epoch, self._step = self._epoch + 1, 0

    def after_train_epoch(self, runner: Runner) -> None:
        """Go on to the next epoch; an iteration loop has one of these events, at its end."""
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            self._epoch, self._step = self._epoch + 1, 0


def visit_sampler(loader: DataLoader) -> VisitSampler | None:
    """The loader's :class:`VisitSampler`, alone or inside its batch sampler."""
    for sampler in (loader.sampler, getattr(loader.batch_sampler, 'sampler', None)):
        if isinstance(sampler, VisitSampler):
            return sampler
    return None


def _begin_stream(runner: Runner) -> None:
    """Begin the stream anew.

    That spares a resumed run the batches before, which mmengine's loop would load and throw away;
    and the loop has made an iterator already, whose workers know nothing of what hooks have set.
    """
    loop, loader = runner.train_loop, runner.train_dataloader
    if not isinstance(loop, IterBasedTrainLoop):
        raise ValueError(
            'A stream has no end, so its first epoch would last for ever: set '
            'train_cfg=dict(by_epoch=False, max_iters=...).'
        )
    if loop.iter:
        # With the same seed it would begin with the same shards at every resume.
        loader.dataset.seed = mix_seed(loader.dataset.seed, loop.iter)
        runner.logger.warning(
            'The order of a stream is not resumed: it begins anew, in another order, so samples of '
            'the last epoch may come again.'
        )
    loop.dataloader_iterator = loader._iterator = None
    loop.dataloader_iterator = chain(repeat(None, loop.iter), loader)


def _batches(
    loader: DataLoader, sampler: VisitSampler, past: int, epoch: int, step: int
) -> Iterator[dict | None]:
    """Batches of epoch after epoch, from a step on.

    mmengine's loop asks a resumed run's iterator for all ``past`` batches and throws them away:
    it gets nothing, at once.
    """
    for _ in range(past):
        yield None
    while True:
        sampler.set_epoch(epoch, step * loader.batch_sampler.batch_size)
        yield from loader
        epoch, step = epoch + 1, 0
