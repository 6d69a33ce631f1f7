"""Where the bad samples of a run are listed."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmslip.datasets.io.faults import BadSamples
from mmslip.registry import HOOKS

__all__ = ['BadSampleHook']


@HOOKS.register_module()
class BadSampleHook(Hook):
    """Have the training data list unreadable samples in ``bad_samples.jsonl`` of the work folder.

    Each line is ``{"index": ..., "error": ...}``, once for each sample, whatever process met it and
    however often the run was resumed; samples of a stream have no index. The data sets
    (:class:`mmslip.datasets.CaptionedDataset`, :class:`mmslip.datasets.StreamDataset`) say what
    becomes of such samples.
    """

    # Before ResumeDataHook, with which an iteration loop's workers start.
    priority = 'NORMAL'

    def before_train(self, runner: Runner) -> None:
        """Tell the data sets, of which every worker will have a copy."""
        self._path = Path(runner.work_dir, 'bad_samples.jsonl').absolute()
        for bad_samples in _find(runner.train_dataloader.dataset):
            bad_samples.path = self._path

    def after_train(self, runner: Runner) -> None:
        """Say how many there are."""
        if self._path.is_file():
            number = sum(map(bool, self._path.read_bytes().split(b'\n')))
            runner.logger.warning(f'{number} bad samples were replaced; they are in {self._path}.')


def _find(dataset: Dataset) -> Iterator[BadSamples]:
    """The counters of a data set, and of those inside mmengine's wrappers."""
    bad_samples = getattr(dataset, 'bad_samples', None)
    if isinstance(bad_samples, BadSamples):
        yield bad_samples
    for part in getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]:
        if part is not None:
            yield from _find(part)
