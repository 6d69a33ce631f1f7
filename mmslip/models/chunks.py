"""A tower over slices of the batch, in the memory of one slice."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

__all__ = ['run_in_chunks']


def run_in_chunks(module: nn.Module, chunk_size: int) -> None:
    """Let ``module`` take its batch in slices from now on, with the outputs of one pass.

    Activations of a slice are dropped after its pass and computed again when its gradient is due,
    under the same random numbers, so that memory holds the activations of one slice and the outputs
    of all. Outputs are concatenated before anything compares them: losses and batch norm behind the
    module see the whole batch, and the gradient is that of a single pass. The price is a second
    forward pass, about a third of the step.

    The instance's ``forward`` is replaced, rather than the module wrapped: names in the state dict
    stay, whoever holds the module (a self-supervised algorithm, its momentum copy, a sharded
    wrapper) runs it in slices too, and a deep copy runs with its own parameters.

    Args:
        module: A tower that treats each sample on its own. Every tensor argument as long as the
            batch is sliced with it; outputs are tensors ``(B, ...)``, or tuples or lists of them.
        chunk_size: Samples in a slice; a smaller batch runs as it is.

    Raises:
        ValueError: ``chunk_size`` is no positive integer; or, when run, the module has batch norm
            in training mode, whose statistics would be those of a slice.
    """
    if not isinstance(chunk_size, int) or chunk_size < 1:
        raise ValueError(f'chunk_size must be a whole number from 1 on, not {chunk_size!r}.')
    module.forward = _ChunkedForward(module.forward, chunk_size)


class _ChunkedForward:
    """Replaces a bound ``forward``; an object, since a closure would not be deep-copied."""

    def __init__(self, forward: Callable, chunk_size: int) -> None:
        self.forward = forward
        self.chunk_size = chunk_size

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        batch = len(args[0])
        if batch <= self.chunk_size:
            return self.forward(*args, **kwargs)
        self._check_batch_norm()
        run = self.forward
        if torch.is_grad_enabled():
            run = partial(checkpoint, self.forward, use_reentrant=False)
        parts = []
        for start in range(0, batch, self.chunk_size):
            rows = slice(start, start + self.chunk_size)
            sliced = {name: _take(value, rows, batch) for name, value in kwargs.items()}
            parts.append(run(*(_take(value, rows, batch) for value in args), **sliced))
        return _concatenate(parts)

    def _check_batch_norm(self) -> None:
        for name, module in self.forward.__self__.named_modules():
            if isinstance(module, _BatchNorm) and module.training:
                raise ValueError(
                    f'{name} of {type(self.forward.__self__).__name__} is batch norm in training '
                    f'mode, which would see {self.chunk_size} samples at a time: leave out '
                    '`chunk_size`, freeze its statistics (`norm_eval=True`), or take a backbone '
                    'with another norm.'
                )


def _take(value: Any, rows: slice, batch: int) -> Any:
    """Rows of what belongs to the samples; anything else as it is."""
    is_per_sample = isinstance(value, Tensor) and value.dim() > 0 and len(value) == batch
    return value[rows] if is_per_sample else value


def _concatenate(parts: list) -> Any:
    """Join the outputs of slices, entry by entry."""
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return type(parts[0])(_concatenate(list(part)) for part in zip(*parts, strict=True))
