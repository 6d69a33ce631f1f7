"""Several sources in stated proportions."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from torch.utils.data import Dataset, IterableDataset

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

    With ``stratified``, a block is a ``cycle`` of as many positions as the weights add up to, each
    source having as many places as its weight. :class:`VisitSampler` hands out whole cycles, so
    that *every batch of every process* has exactly its share of each source, if its size is a
    multiple of the cycle. This is how images without captions join in: the losses of several
    processes need as many captions on each, and :func:`mmslip.datasets.collate` puts the captioned
    rows first.

    *Which sample.* ``k``, which is ``K_s(b * B)`` plus the places of ``s`` before ``p`` in the
    block, numbers the visits to source ``s`` 0, 1, 2, ... in the order of their positions. With
    ``n`` samples, ``k // n`` is the pass over the source, and the sample is where a permutation
    keyed by seed, source and pass sends ``k % n``. A pass therefore visits every sample once. The
    permutation is a Feistel network (:func:`permute`), which gives one value in constant time and
    memory.

    Args:
        datasets: The sources, data sets or their configs, each with a pipeline of its own.
        weights: How often each is drawn from, relative to the others.
        length: Samples in an epoch, of all sources together; the log says how often each source is
            passed over in it.
        seed: Seed of the order; not that of the run, so that a run resumed without a fixed seed
            goes on in the same order.
        stratified: Whether every batch has exactly its share of each source, rather than on
            average. ``weights`` are then whole numbers, ``[1, 7]`` for 16 and 112 of 128, and
            ``length`` a multiple of their sum.

    Raises:
        ValueError: Weights, length or sources are not usable.
        TypeError: A source is a stream, whose samples have no numbers to be drawn by.

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
        stratified: bool = False,
    ) -> None:
        if length < 1 or length != int(length):
            raise ValueError(f'length must be the number of samples in an epoch, not {length}.')
        if not datasets or len(datasets) != len(weights):
            raise ValueError(f'{len(datasets)} datasets need as many weights, not {len(weights)}.')
        if not all(math.isfinite(weight) and weight > 0 for weight in weights):
            raise ValueError(f'weights must be finite and above zero, not {list(weights)}.')
        if stratified and any(weight != int(weight) for weight in weights):
            raise ValueError(
                f'weights={list(weights)} must be whole numbers with stratified=True: [1, 7] gives '
                'one row of eight to the first source.'
            )
        # As whole numbers in lowest terms, whose products and quotients below are exact.
        fractions = [Fraction(weight) for weight in weights]
        unit = math.lcm(*(fraction.denominator for fraction in fractions))
        whole = [int(fraction * unit) for fraction in fractions]
        self.weights = [weight // math.gcd(*whole) for weight in whole]
        self.stratified = stratified
        self.cycle = sum(self.weights) if stratified else 1
        if length % self.cycle:
            raise ValueError(
                f'length={length} must be a multiple of {self.cycle}, in which weights='
                f'{list(weights)} give every source its share, such as '
                f'{-(-length // self.cycle) * self.cycle}.'
            )
        self.datasets = [
            DATASETS.build(source) if isinstance(source, dict) else source for source in datasets
        ]
        for number, source in enumerate(self.datasets):
            if isinstance(source, IterableDataset):
                raise TypeError(
                    f'datasets[{number}], a {type(source).__name__}, is a stream, and samples are '
                    'drawn by their numbers: copy its shards to a disk, for mmslip.ShardDataset.'
                )
        self.sizes = [len(source) for source in self.datasets]
        if 0 in self.sizes:
            raise ValueError(f'datasets[{self.sizes.index(0)}] is empty: leave it out.')
        self.length = int(length)
        self.seed = seed
        print_log(self._passes(), logger='current')

    @property
    def metainfo(self) -> dict:
        """That of the first source."""
        return self.datasets[0].metainfo

    def __len__(self) -> int:
        return self.length

    @property
    def _block(self) -> int:
        return self.cycle if self.stratified else _BLOCK

    def _passes(self) -> str:
        """A line on how often each source is visited in an epoch."""
        parts = []
        for number, (source, size) in enumerate(zip(self.datasets, self.sizes, strict=True)):
            visits = self.length * self.weights[number] / sum(self.weights)
            parts.append(
                f'datasets[{number}] ({type(source).__name__}) {visits:,.0f}, {visits / size:.2f} '
                f'passes over {size:,}'
            )
        shares = f', {" : ".join(map(str, self.weights))} in every batch' * self.stratified
        return f'Of {self.length:,} samples in an epoch{shares}: ' + '; '.join(parts)

    def locate(self, position: int) -> tuple[int, int]:
        """Source and index within it of a position, counted from the start of training."""
        block, offset = divmod(position, self._block)
        before, after = (self._totals(number * self._block) for number in (block, block + 1))
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
