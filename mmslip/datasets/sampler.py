"""Order of the samples, and the random numbers of each visit to one."""

from collections.abc import Iterator
from itertools import islice

from mmengine.dataset import DefaultSampler

from mmslip.registry import DATA_SAMPLERS
from mmslip.utils import mix_seed

__all__ = ['Visit', 'VisitSampler']


class Visit(int):
    """The index of a sample, with the seed of everything drawn for it at this visit, and the epoch.

    Differences and remainders keep both, so that the indices which mmengine's ``ConcatDataset``
    and ``RepeatDataset`` compute for the data sets inside them are visits, too.
    """

    seed: int
    epoch: int

    def __new__(cls, index: int, seed: int, epoch: int = 0) -> 'Visit':
        visit = super().__new__(cls, index)
        visit.seed, visit.epoch = seed, epoch
        return visit

    def __getnewargs__(self) -> tuple[int, int, int]:
        return int(self), self.seed, self.epoch  # for pickling, on the way to a worker

    def __sub__(self, other: int) -> 'Visit':
        return Visit(int(self) - other, self.seed, self.epoch)

    def __mod__(self, other: int) -> 'Visit':
        return Visit(int(self) % other, self.seed, self.epoch)


@DATA_SAMPLERS.register_module()
class VisitSampler(DefaultSampler):
    """mmengine's ``DefaultSampler`` that also hands out a seed and the epoch with every index.

    The seed depends on ``(seed, epoch, index)`` only. So the caption drawn and the views cut are
    the same whatever the number of workers or processes, in a resumed run as in an uninterrupted
    one, and differ from epoch to epoch (mmengine seeds its workers alike in every epoch).
    """

    start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch, and where in it to begin.

        Args:
            epoch: Number of the epoch.
            start: How many samples of this process are left out at the beginning of its part,
                because a run that is being resumed has visited them. ``len`` stays that of the
                whole epoch.
        """
        super().set_epoch(epoch)
        self.start = start

    def __iter__(self) -> Iterator[Visit]:
        for index in islice(super().__iter__(), self.start, None):
            yield Visit(index, mix_seed(self.seed, self.epoch, index), self.epoch)
