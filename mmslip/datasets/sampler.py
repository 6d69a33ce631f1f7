"""Order of the samples, and the random numbers of each visit to one."""

from collections.abc import Iterator, Sized

import torch
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

    Position ``p`` of an epoch's order belongs to process ``p % world_size``, so that what all
    processes have visited after a step is the beginning of that order, and any number of processes
    can go on behind it. No sample is repeated to make the parts equal, which would be a false
    negative of itself: the last ones, fewer than there are processes, are left out of the epoch.

    A data set with a ``cycle`` of more than one, such as a stratified
    :class:`mmslip.datasets.MixedDataset`, is handed out in runs of that many positions, which stay
    together: every process gets whole cycles, in turn; the last cycles, fewer than there are
    processes, are left out.

    Args:
        dataset: The data set.
        shuffle: Draw a new order in every epoch.
        seed: Seed of the order and of the visits, equal on all processes; drawn if it is None.

    Raises:
        ValueError: A data set with a cycle is to be shuffled.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:
        super().__init__(dataset, shuffle=shuffle, seed=seed, round_up=False)
        self.start = 0
        self.cycle = getattr(dataset, 'cycle', 1)
        if shuffle and self.cycle > 1:
            raise ValueError(
                f'{type(dataset).__name__} with stratified=True is in random order already, and '
                'another order would break its batches: set shuffle=False of the sampler.'
            )

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch, and where in it to begin.

        Args:
            epoch: Number of the epoch.
            start: Samples at the beginning of the epoch's order that are left out, because the
                processes of a run that is being resumed have visited them. ``len`` stays that of
                the whole epoch.
        """
        super().set_epoch(epoch)
        self.start = start

    def __len__(self) -> int:
        """Samples of this process in a whole epoch, as many as of any other."""
        return self.left(0)

    def left(self, start: int) -> int:
        """Samples of this process behind the first ``start`` ones of the epoch's order."""
        span = self.cycle * self.world_size
        return max(len(self.dataset) - start, 0) // span * self.cycle

    def __iter__(self) -> Iterator[Visit]:
        order = range(len(self.dataset))
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed + self.epoch)
            order = torch.randperm(len(order), generator=generator).tolist()
        end = self.start + self.left(self.start) * self.world_size
        first, span = self.start + self.rank * self.cycle, self.cycle * self.world_size
        for place in range(first, end, span):
            for index in order[place : place + self.cycle]:
                yield Visit(index, mix_seed(self.seed, self.epoch, index), self.epoch)
