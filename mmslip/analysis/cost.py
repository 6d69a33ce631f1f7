"""Time and memory, measured on the present device."""

import math
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from fractions import Fraction
from itertools import chain, repeat
from typing import Any, NamedTuple

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from mmslip.analysis.finding import Finding
from mmslip.datasets import count_rows
from mmslip.models.chunks import ByteImages

__all__ = [
    'Cost',
    'LoaderSpeed',
    'check_loader_speed',
    'check_memory',
    'check_time',
    'cut_batch',
    'measure_loader',
    'measure_training',
]

_GB = 1e9
# The first steps are timed on this many samples; the whole batch follows if that is affordable.
_FEW = 8


class Cost(NamedTuple):
    """Speed and memory of training."""

    samples_per_s: float
    static: int  # bytes of parameters, buffers, gradients and optimiser state
    step: int  # bytes that one step of the whole batch holds on top of them


class LoaderSpeed(NamedTuple):
    """What a loader delivers.

    Attributes:
        samples_per_s: Its speed.
        samples: Samples that were counted.
        seconds: Time that they took.
        ahead: Batches that came before, which the workers had read ahead; 0 if these took so long
            that all were counted, with the start of the workers.
    """

    samples_per_s: float
    samples: int
    seconds: float
    ahead: int


def measure_loader(loader: DataLoader, seconds: float = 10.0) -> tuple[LoaderSpeed, dict]:
    """Speed of a loader in the long run, and a batch.

    Workers read ahead: what lies ready when the first batch arrives would count as delivered in no
    time. So as many batches as can lie ready are taken first, and then whole rounds of the workers
    are counted, over the ends of epochs.

    Raises:
        ValueError: The loader gives no batch.
    """
    workers = loader.num_workers
    ahead = workers * (loader.prefetch_factor or 0) or 1  # one alone warms the caches
    begin = start = time.perf_counter()
    count = before = 0
    batch = None
    for number, batch in enumerate(_endless(loader), start=1):
        now, rows = time.perf_counter(), count_rows(batch['inputs'])[1]
        if number <= ahead:
            start, before = now, before + rows
            if now - begin > 3 * seconds:
                return LoaderSpeed(before / (now - begin), before, now - begin, 0), batch
            continue
        count += rows
        if now - start > seconds and (number - ahead) % max(workers, 1) == 0:
            break
    if batch is None:
        raise ValueError('train_dataloader gives no batch.')
    return LoaderSpeed(count / (now - start), count, now - start, ahead), batch


def _endless(loader: DataLoader) -> Iterable[dict]:
    """Batches of a loader, whose workers go on over the ends of epochs.

    A stream ends, and is begun anew, as in training.
    """
    if isinstance(loader.dataset, IterableDataset):
        return chain.from_iterable(repeat(loader))
    return DataLoader(
        loader.dataset,
        batch_sampler=_Endless(loader.batch_sampler),
        num_workers=loader.num_workers,
        prefetch_factor=loader.prefetch_factor,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        pin_memory=loader.pin_memory and torch.cuda.is_available(),
    )


class _Endless:
    """Batches of indices, over and over.

    Args:
        batches: Those of an epoch.
    """

    def __init__(self, batches: Iterable[list[int]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        while epoch := list(self.batches):
            yield from epoch


def measure_training(
    model: nn.Module,
    optim_wrapper: OptimWrapper,
    batch: dict,
    seconds: float = 15.0,
    chunk_size: int | None = None,
) -> Cost:
    """Run training steps and measure them; ``model`` is changed by that.

    Memory and time are measured on the whole batch where it takes ``seconds`` at most, otherwise on
    a few samples and scaled up. With ``chunk_size`` (of SLIP) they are those of a slice; the views
    of the other samples come on top, and a second forward pass, a third of the time.
    """
    size = count_rows(batch['inputs'])[1]
    live = min(size, chunk_size or size)  # samples that have activations at the same time
    part = cut_batch(batch, min(_FEW, live))
    _step(model, optim_wrapper, part)  # allocates optimiser state, chooses kernels
    took, held = _step(model, optim_wrapper, part)
    length = count_rows(part['inputs'])[1]
    if length < live and 2 * took * live / length < seconds:
        part = cut_batch(batch, live)
        _step(model, optim_wrapper, part)
        took, held = _step(model, optim_wrapper, part)
        length = live
    held = held * live / length
    if live < size:
        views = _bytes(model.data_preprocessor(part, training=True)['inputs'])
        held += views * (size - live) / length
        took *= 4 / 3
    # Gradients are freed after each step, and are needed in every one.
    tensors = [*model.parameters(), *model.buffers(), *_trained(model)]
    for state in optim_wrapper.optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, Tensor)]
    static = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return Cost(length / took, static, round(held))


def _step(model: nn.Module, optim_wrapper: OptimWrapper, batch: dict) -> tuple[float, int]:
    """Seconds and bytes of one step: of what autograd keeps, or on a GPU of the true peak."""
    kept: dict[int, int] = {}
    own = {value.untyped_storage().data_ptr() for value in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    gpu = next(model.parameters()).is_cuda
    grads = sum(value.numel() * value.element_size() for value in _trained(model))
    if gpu:
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    model.train()
    begin = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.train_step(batch, optim_wrapper=optim_wrapper)
    if gpu:
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before - grads
        return time.perf_counter() - begin, max(peak, 0)
    return time.perf_counter() - begin, sum(kept.values())


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [value for value in model.parameters() if value.requires_grad]


def check_loader_speed(loader: LoaderSpeed, training: float | None, device: str) -> Finding:
    """Whether the loader keeps up.

    Args:
        loader: Its speed.
        training: Samples a second of the device, None if that is not known.
        device: Its name.
    """
    after = f'after {loader.ahead} read ahead' if loader.ahead else 'start of the workers included'
    text = (
        f'the loader gives {loader.samples_per_s:.0f} samples/s (counted: {loader.samples:,} in '
        f'{loader.seconds:.0f} s, {after})'
    )
    if training is None:
        return Finding('speed', text)
    text += f', {device} takes {training:.0f}'
    if loader.samples_per_s >= training:
        return Finding('speed', text)
    remedy = 'more num_workers, smaller images on disk, or LoadImage(defer=True)'
    return Finding('speed', text, 'warn', remedy)


def check_time(loader: float, training: float, samples: int, shared: bool) -> Finding:
    """An estimate of the time that the training takes, without validation.

    Args:
        loader: Samples a second that the loader gives.
        training: Samples a second that the device takes.
        samples: Samples of one process in the whole training.
        shared: Whether both compute on the same cores, so that their times add up.
    """
    slowness = 1 / loader + 1 / training if shared else 1 / min(loader, training)
    total = timedelta(seconds=round(samples * slowness))
    return Finding(
        'time to finish',
        f'about {total} (h:mm:ss) without validation: an estimate from a few steps on this machine',
    )


def check_memory(cost: Cost, available: int) -> Finding:
    """Whether weights, optimiser and one step fit into ``available`` bytes."""
    total = cost.static + cost.step
    text = (
        f'{total / _GB:.2f} GB of {available / _GB:.1f}: weights, gradients and optimiser '
        f'{cost.static / _GB:.2f}, one step {cost.step / _GB:.2f}'
    )
    if total <= 0.9 * available:
        return Finding('memory', text)
    verdict = 'fail' if total > available else 'warn'
    return Finding(
        'memory', text, verdict, 'model.chunk_size, a smaller batch, --amp: docs/scaling.md'
    )


def _bytes(value: Any) -> int:
    if isinstance(value, ByteImages):
        value = value.pixels
    if isinstance(value, Tensor):
        return value.nbytes
    return sum(map(_bytes, value.values() if isinstance(value, dict) else value))


def cut_batch(batch: dict, number: int) -> dict:
    """The first samples of a collated batch, of those with a caption as large a part."""
    return _first(batch, Fraction(number, count_rows(batch['inputs'])[1]))


def _first(value: Any, share: Fraction) -> Any:
    if isinstance(value, dict):
        return {key: _first(item, share) for key, item in value.items()}
    if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
        return [_first(item, share) for item in value]
    return value[: math.ceil(len(value) * share)]
