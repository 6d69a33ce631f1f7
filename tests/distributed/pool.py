"""Run a function in several processes on one machine."""

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

_PREPARED = ['torch', 'mmslip.engine', 'mmslip.models']


def context_for(device: str) -> BaseContext:
    """How processes start: prepared where they can be, which takes a GPU from them."""
    if device == 'cuda':
        return multiprocessing.get_context('spawn')
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(_PREPARED)
    return context


def run(
    function: Callable, world_size: int, *args: Any, device: str = 'cpu', backend: str = 'gloo'
) -> list:
    """Call ``function(rank, world_size, *args)`` in ``world_size`` processes.

    Args:
        function: Importable.
        world_size: Number of processes.
        *args: Further arguments of the function.
        device: What the processes may use; on ``'cuda'`` all share the first one.
        backend: Of the process group.

    Returns:
        What each rank returned, in rank order.
    """
    context = context_for(device)
    results = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(
                target=_worker,
                args=(results, folder, function, rank, world_size, args, backend),
                daemon=True,
            )
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        found = dict(results.get() for _ in processes)
        for process in processes:
            process.join()
    errors = [result for result in found.values() if isinstance(result, _Failure)]
    if errors:
        raise AssertionError(errors[0].text)
    return [found[rank] for rank in range(world_size)]


class _Failure:
    def __init__(self, text: str) -> None:
        self.text = text


def _worker(results, folder, function, rank, world_size, args, backend) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            backend, init_method=f'file://{Path(folder, "store")}', rank=rank, world_size=world_size
        )
        outcome = function(rank, world_size, *args)
        dist.barrier()
        dist.destroy_process_group()
    except Exception:
        outcome = _Failure(f'rank {rank}:\n{traceback.format_exc()}')
    # As NumPy, whose pickles need no shared memory of a process that is about to end.
    results.put((rank, _to_numpy(outcome)))


def _to_numpy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, dict):
        return {key: _to_numpy(item) for key, item in value.items()}
    return value
