"""Several sources in stated proportions."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from mmengine.dataset import BaseDataset
from torch.utils.data import Dataset

from mmslip.datasets.sampler import Visit
from mmslip.registry import DATASETS
from mmslip.utils import mix_seed

__all__ = ['MixedDataset', 'permute']

_BLOCK = 1024  # positions
_ROUNDS = 8  # with four, permutations of a few elements are visibly uneven

# RandomState, whose numbers never change between versions of NumPy. Seeded before every use; to
# make one takes ten times as long.
_random = np.random.RandomState()


@DATASETS.register_module()
class MixedDataset(Dataset):
    """Several data sets, each drawn from in proportion to its weight.

    Each source is walked in random order without repetition, over the ends of epochs, until all of
    its samples have been visited, and then again in another order. What is visited is a function of
    the seed and the position ``p`` in training alone: in epoch ``e`` of a data set of length ``L``,
    index ``i`` has position ``e * L + i``. No state is kept. So it is the same for any number of
    workers and processes, and in a resumed run. :class:`VisitSampler` hands out index and epoch; a
    sampler of indices alone would visit the samples of epoch 0 again and again.

    *Which source.* Positions come in blocks of ``B = 1024``. Of the first ``n`` positions, whole
    blocks, source ``s`` has ``K_s(n)``: the first source its share of ``n`` rounded down, the next
    one its share among the others of what is left, and so on, the last one the rest. These numbers
    add up to ``n``, never fall as ``n`` grows, and follow the weights to within the number of
    sources however long training is. So block ``b`` has ``K_s((b + 1) * B) - K_s(b * B)`` places
    for source ``s``, in an order drawn with a seed made of the data set's and ``b``.

    *Which sample.* ``k``, which is ``K_s(b * B)`` plus the places of ``s`` before ``p`` in the
    block, numbers the visits to source ``s`` 0, 1, 2, ... in the order of their positions. With
    ``n`` samples, ``k // n`` is the pass over the source, and the sample is where a permutation
    keyed by seed, source and pass sends ``k % n``. A pass therefore visits every sample once. The
    permutation is a Feistel network (:func:`permute`), which gives one value in constant time and
    memory.

    Args:
        datasets: The sources, data sets or their configs, each with a pipeline of its own.
        weights: How often each is drawn from, relative to the others.
        length: Samples in an epoch.
        seed: Seed of the order; not that of the run, so that a run resumed without a fixed seed
            goes on in the same order.

    Raises:
        ValueError: Weights, length or sources are not usable.

    Example:
        >>> train_dataloader = dict(
        ...     sampler=dict(type='mmslip.VisitSampler', shuffle=False),  # in random order already
        ...     dataset=dict(
        ...         type='mmslip.MixedDataset',
        ...         datasets=[cc3m, cc12m],
        ...         weights=[1, 3],
        ...         length=12_000_000))
    """

    def __init__(
        self,
        datasets: Sequence[BaseDataset | dict],
        weights: Sequence[float],
        length: int,
        seed: int = 0,
    ) -> None:
        if length < 1 or length != int(length):
            raise ValueError(f'length must be the number of samples in an epoch, not {length}.')
        if not datasets or len(datasets) != len(weights):
            raise ValueError(f'{len(datasets)} datasets need as many weights, not {len(weights)}.')
        if not all(math.isfinite(weight) and weight > 0 for weight in weights):
            raise ValueError(f'weights must be finite and above zero, not {list(weights)}.')
        # As whole numbers, whose products and quotients below are exact.
        fractions = [Fraction(weight) for weight in weights]
        unit = math.lcm(*(fraction.denominator for fraction in fractions))
        self.weights = [int(fraction * unit) for fraction in fractions]
        self.datasets = [
            DATASETS.build(source) if isinstance(source, dict) else source for source in datasets
        ]
        self.sizes = [len(source) for source in self.datasets]
        if 0 in self.sizes:
            raise ValueError(f'datasets[{self.sizes.index(0)}] is empty: leave it out.')
        self.length = int(length)
        self.seed = seed

    @property
    def metainfo(self) -> dict:
        """That of the first source."""
        return self.datasets[0].metainfo

    def __len__(self) -> int:
        return self.length

    def locate(self, position: int) -> tuple[int, int]:
        """Source and index within it of a position, counted from the start of training."""
        block, offset = divmod(position, _BLOCK)
        before, after = self._totals(block * _BLOCK), self._totals((block + 1) * _BLOCK)
        sources = np.repeat(np.arange(len(before)), np.subtract(after, before))  # (B,)
        _random.seed(mix_seed(self.seed, 0, block) % 2**32)
        _random.shuffle(sources)
        source = int(sources[offset])
        visit = before[source] + int(np.count_nonzero(sources[:offset] == source))
        turn, number = divmod(visit, self.sizes[source])
        key = mix_seed(self.seed, 1, source, turn)
        return source, permute(number, self.sizes[source], key)

    def _totals(self, positions: int) -> list[int]:
        """How many of the first positions fall to each source."""
        totals, weight_left = [], sum(self.weights)
        for weight in self.weights:
            totals.append(positions * weight // weight_left)
            positions, weight_left = positions - totals[-1], weight_left - weight
        return totals

    def __getitem__(self, index: int) -> dict:
        """Run the pipeline of the source that the visit falls to; an index alone is of epoch 0."""
        if not isinstance(index, Visit):
            source, inner = self.locate(index)
            return self.datasets[source][inner]
        source, inner = self.locate(index.epoch * self.length + int(index))
        return self.datasets[source][Visit(inner, index.seed, index.epoch)]

    def get_data_info(self, index: int) -> dict:
        """Annotation of the sample at a position."""
        source, inner = self.locate(index)
        return self.datasets[source].get_data_info(inner)


def permute(index: int, size: int, key: int) -> int:
    """Where a keyed random permutation of ``range(size)`` sends an index, in constant time.

    A Feistel network permutes ``range(4**h)``, the smallest such range (of 16 or more) that holds
    ``size``: with an index split into halves of ``h`` bits, a round makes ``(left, right)`` into
    ``(right, left ^ hash(right))``, which can be undone whatever the hash. A value outside
    ``range(size)`` goes through the network again; since the network is one-to-one, this ends
    inside, and is one-to-one itself (cycle walking; Black and Rogaway 2002). Fewer than four turns
    are expected, as the range is less than four times the size (for sizes above 4).
    """
    half = max(2, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for number in range(_ROUNDS):
            left, right = right, left ^ (mix_seed(key, number, right) & mask)
        index = left << half | right
        if index < size:
            return index
