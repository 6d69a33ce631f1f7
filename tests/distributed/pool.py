"""Run a function in several gloo processes on one machine."""

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

_CONTEXT = multiprocessing.get_context('forkserver')
_CONTEXT.set_forkserver_preload(['torch', 'mmslip.engine', 'mmslip.models'])


def run(function: Callable, world_size: int, *args: Any) -> list:
    """Call ``function(rank, world_size, *args)`` in ``world_size`` processes.

    Returns:
        What each rank returned, in rank order.
    """
    results = _CONTEXT.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            _CONTEXT.Process(
                target=_worker,
                args=(results, folder, function, rank, world_size, args),
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


def _worker(results, folder, function, rank, world_size, args) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            'gloo', init_method=f'file://{Path(folder, "store")}', rank=rank, world_size=world_size
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
        return value.detach().numpy()
    if isinstance(value, dict):
        return {key: _to_numpy(item) for key, item in value.items()}
    return value
