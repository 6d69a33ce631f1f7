"""Time and memory, measured on the present device."""

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmslip.analysis.finding import Finding

__all__ = [
    'Cost',
    'check_loader_speed',
    'check_memory',
    'measure_loader',
    'measure_training',
]

_GB = 1e9
# The first steps are timed on this many samples; the whole batch follows if that is affordable.
_FEW = 8


class Cost(NamedTuple):
    """What training takes."""

    samples_per_s: float
    static: int  # bytes of parameters, buffers, gradients and optimiser state
    step: int  # bytes that one step of the whole batch holds on top of them


def measure_loader(batches: Iterable[dict], seconds: float = 10.0) -> tuple[float, dict]:
    """Samples a second after the first batch (which starts the workers), and a batch."""
    iterator = iter(batches)
    batch = next(iterator)
    begin, count = time.perf_counter(), 0
    for batch in iterator:
        count += _length(batch['inputs'])
        if time.perf_counter() - begin > seconds:
            break
    else:
        if not count:  # an epoch of one batch: time that one
            begin, count = time.perf_counter(), _length(next(iter(batches))['inputs'])
    return count / (time.perf_counter() - begin), batch


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
    size = _length(batch['inputs'])
    live = min(size, chunk_size or size)  # samples that have activations at the same time
    part = _cut(batch, min(_FEW, live))
    _step(model, optim_wrapper, part)  # allocates optimiser state, chooses kernels
    took, held = _step(model, optim_wrapper, part)
    length = _length(part['inputs'])
    if length < live and 2 * took * live / length < seconds:
        part = _cut(batch, live)
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


def check_loader_speed(loader: float, training: float, device: str) -> Finding:
    """Whether the loader keeps up; both in samples a second."""
    text = f'the loader gives {loader:.0f} samples/s, {device} takes {training:.0f}'
    if loader >= training:
        return Finding('speed', text)
    remedy = 'more num_workers, smaller images on disk, or LoadImage(defer=True)'
    return Finding('speed', text, 'warn', remedy)


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


def _length(value: Any) -> int:
    while isinstance(value, dict | list | tuple):
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return len(value)


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    return sum(map(_bytes, value.values() if isinstance(value, dict) else value))


def _cut(value: Any, number: int) -> Any:
    """The first samples of a collated batch."""
    if isinstance(value, dict):
        return {key: _cut(item, number) for key, item in value.items()}
    if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
        return [_cut(item, number) for item in value]
    return value[:number]
