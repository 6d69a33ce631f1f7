"""Whether the batches of a training can be learned from, before its first step."""

from collections.abc import Iterator
from fractions import Fraction

from mmengine.dataset import default_collate
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from mmslip.datasets import VisitSampler
from mmslip.engine.unwrap import unwrap
from mmslip.models import SLIP
from mmslip.registry import HOOKS
from mmslip.utils import seeded

__all__ = ['BatchCheckHook', 'captioned_rows', 'check_batches']


@HOOKS.register_module()
class BatchCheckHook(Hook):
    """Refuse batches that a training cannot learn from; see :func:`check_batches`."""

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Check the loader."""
        check_batches(runner.model, runner.train_dataloader, runner.world_size)


def check_batches(model: nn.Module, loader: DataLoader, processes: int = 1) -> None:
    """Refuse batches that a training cannot learn from.

    mmengine builds its schedules before it calls a hook, and fails there if an epoch has no step:
    call this before ``runner.train()`` for a clear word on that as well.

    Args:
        model: The model, wrapped or not.
        loader: Of the training data.
        processes: Number of processes of the training, which need not have begun.

    Raises:
        ValueError: An epoch has no step; processes have different numbers of steps, or batches of
            different sizes; a stratified mix cannot give every batch its shares; or, for
            :class:`mmslip.models.SLIP`, whose losses compare the samples of a batch, a batch holds
            a sample twice or one sample only, or images without captions are mixed in so that the
            number of captions varies, or for no self-supervised half; or a queue of MoCo is not
            filled by whole batches.
    """
    model = unwrap(model)
    compares = isinstance(model, SLIP)
    _check(loader, processes, compares)
    _check_shares(loader, processes)
    _check_queue(loader, processes, getattr(model, 'ssl', None))
    if compares and model.with_text and len(_parts(loader.dataset)) > 1:
        _check_bare(loader, processes, model.ssl is not None)


def _check(loader: DataLoader, processes: int, compares: bool) -> None:
    size = getattr(loader.batch_sampler, 'batch_size', None)
    if isinstance(loader.dataset, IterableDataset) or size is None:
        return
    number, mine = len(loader.dataset), _share(loader.sampler, processes)
    drop_last = loader.batch_sampler.drop_last
    step = f'{size} a process x {processes} processes' if processes > 1 else f'{size}'
    where = f'train_dataloader: {number} samples in batches of {step}'
    steps, rest = divmod(mine, size)
    if not steps + (rest > 0 and not drop_last):
        raise ValueError(
            f'{where} give no step: an epoch drops its last, incomplete batch. Set '
            f'train_dataloader.batch_size to at most {mine}, or give more samples.'
        )
    # VisitSampler leaves the last samples out instead of filling up with some a second time.
    uneven = 0 if isinstance(loader.sampler, VisitSampler) else number % processes
    if uneven and not getattr(loader.sampler, 'round_up', True):
        least, most = number // processes, -(-number // processes)
        if not drop_last or least // size != most // size:
            raise ValueError(
                f'{where} give the processes different batches, for which they would wait for ever:'
                ' set round_up=True of the sampler.'
            )
    elif uneven and compares and ((rest and not drop_last) or (not rest and steps == 1)):
        raise ValueError(
            f'{where} are filled up with {processes - uneven} samples a second time, which would '
            'be told from themselves: set drop_last=True, and a batch_size that leaves some over.'
        )
    if compares and rest == 1 and not drop_last:
        raise ValueError(
            f'{where} leave a last batch of one sample, which has nothing to be compared with: set '
            'drop_last=True or another batch_size.'
        )
    if compares and size * processes == 1:
        raise ValueError(
            f'{where}: a sample alone has nothing to be compared with; set '
            'train_dataloader.batch_size to 2 at least.'
        )


def _share(sampler: Sampler, processes: int) -> int:
    """Samples of the first process in an epoch, also of a sampler that was built without others."""
    if getattr(sampler, 'world_size', processes) == processes:
        return len(sampler)
    even = isinstance(sampler, VisitSampler)  # which leaves the last samples out
    return len(sampler) // processes if even else -(-len(sampler) // processes)


def _check_shares(loader: DataLoader, processes: int) -> None:
    """Refuse batches that do not hold their share of every source of a stratified mix."""
    mix, size = loader.dataset, loader.batch_size
    if any(_is_stratified(part) for part in _inner(mix)):
        raise ValueError(
            'train_dataloader: a stratified mix inside another data set does not reach the '
            'batches: make it the data set of the loader. It repeats its sources by itself.'
        )
    if not _is_stratified(mix):
        return
    if not isinstance(loader.sampler, VisitSampler) or size is None:
        raise ValueError(
            "train_dataloader: a stratified mix needs sampler=dict(type='mmslip.VisitSampler', "
            'shuffle=False), which keeps its shares together, and no batch_sampler.'
        )
    if size % mix.cycle:
        raise ValueError(
            f'train_dataloader.batch_size = {size} cannot be parted by the weights {mix.weights} '
            f'of the mix: take a multiple of {mix.cycle}, or other weights.'
        )
    for number, (weight, held) in enumerate(zip(mix.weights, mix.sizes, strict=True)):
        rows = size // mix.cycle * weight * processes
        if rows > held:
            raise ValueError(
                f'train_dataloader: a step takes {rows} samples of datasets[{number}], which has '
                f'{held}, so that some would come twice: give it a smaller weight, or lower '
                'batch_size.'
            )


def _check_queue(loader: DataLoader, processes: int, method: nn.Module | None) -> None:
    """Refuse batches that do not fill the queue of mmpretrain's MoCo, which fails at its end."""
    length = getattr(method, 'queue_len', None)
    size = getattr(loader.batch_sampler, 'batch_size', None)
    if length is None or size is None:
        return
    step, mine = size * processes, _share(loader.sampler, processes)
    if length % step:
        raise ValueError(
            f'model.ssl.queue_len = {length} is no multiple of the {step} samples of a step '
            f'({size} a process x {processes}): change it, or train_dataloader.batch_size.'
        )
    if mine % size and not loader.batch_sampler.drop_last:
        raise ValueError(
            f'train_dataloader leaves a last batch of {mine % size} samples, which does not fit '
            'into the queue of model.ssl: set drop_last=True.'
        )


def captioned_rows(loader: DataLoader) -> Fraction:
    """Rows with a caption in a batch of one process: on average, and in a stratified mix always.

    A source has captions if its first sample has.
    """
    parts = _parts(loader.dataset)
    weights = getattr(loader.dataset, 'weights', [len(part) for part in parts])
    captioned = sum(
        weight for part, weight in zip(parts, weights, strict=True) if _has_caption(part)
    )
    return Fraction(loader.batch_size * captioned, sum(weights))


def _check_bare(loader: DataLoader, processes: int, with_ssl: bool) -> None:
    """Refuse images without captions where the losses would not be exact, or nothing uses them."""
    captioned = [_has_caption(part) for part in _parts(loader.dataset)]
    if all(captioned) or not any(captioned):
        return  # what is missing altogether is told at the first step
    bare = f'datasets[{captioned.index(False)}] of the training data has no captions'
    if not with_ssl:
        raise ValueError(
            f'{bare}, and the model has no `ssl` half that could learn from it: leave this data '
            'set out, or add a self-supervised half (configs/_base_/ssl/).'
        )
    if not _is_stratified(loader.dataset):
        raise ValueError(
            f'{bare}, so that the number of captions would vary from batch to batch and from '
            'process to process: mix by mmslip.MixedDataset with stratified=True.'
        )
    if getattr(loader.collate_fn, 'func', loader.collate_fn) is default_collate:
        raise ValueError(
            f"{bare}, which default_collate cannot stack: set collate_fn=dict(type='mmslip.collate'"
            ') in train_dataloader.'
        )
    if captioned_rows(loader) * processes == 1:
        raise ValueError(
            f'{bare}, and a step has one caption from the others, which has nothing to be compared '
            'with: raise their weights or batch_size.'
        )


def _is_stratified(dataset: Dataset) -> bool:
    return getattr(dataset, 'stratified', False)


def _inner(dataset: Dataset) -> Iterator[Dataset]:
    """Data sets within another, at any depth."""
    for part in getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]:
        if part is not None:
            yield part
            yield from _inner(part)


def _parts(dataset: Dataset) -> list[Dataset]:
    return getattr(dataset, 'datasets', [dataset])


def _has_caption(dataset: Dataset) -> bool:
    with seeded(0):
        inputs = dataset[0]['inputs']
    return isinstance(inputs, dict) and 'text' in inputs
