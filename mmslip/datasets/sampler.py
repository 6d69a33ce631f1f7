"""Order of the samples, and the random numbers of each visit to one."""

from collections.abc import Iterator
from typing import NamedTuple

from mmengine.dataset import DefaultSampler

from mmslip.registry import DATA_SAMPLERS
from mmslip.utils import mix_seed

__all__ = ['Visit', 'VisitSampler']


class Visit(NamedTuple):
    """One visit to a sample: which one, and the seed of everything drawn for it."""

    index: int
    seed: int


@DATA_SAMPLERS.register_module()
class VisitSampler(DefaultSampler):
    """mmengine's ``DefaultSampler`` that also hands out a seed with every index.

    The seed depends on ``(seed, epoch, index)`` only. So the caption drawn and the views cut are
    the same whatever the number of workers or processes, in a resumed run as in an uninterrupted
    one, and differ from epoch to epoch (mmengine seeds its workers alike in every epoch).
    """

    def __iter__(self) -> Iterator[Visit]:
        for index in super().__iter__():
            yield Visit(index, mix_seed(self.seed, self.epoch, index))
