"""Run a function in several processes on one machine."""

import faulthandler
import multiprocessing
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

# Seconds after which processes that have not ended say where they are, and fail.
LIMIT = 300
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

    Raises:
        AssertionError: The first rank that failed, with its traceback; or the stacks of all ranks
            that had not ended after ``LIMIT`` seconds.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes = [
            context_for(device).Process(
                target=_worker,
                args=(folder, function, rank, world_size, args, backend),
                daemon=True,
            )
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        try:
            _wait(processes, folder)
        finally:
            for process in processes:
                process.kill()  # those that wait for one that has failed
                process.join()
        return [
            pickle.loads((folder / f'{rank}.outcome').read_bytes()) for rank in range(world_size)
        ]


def _wait(processes: list[BaseProcess], folder: Path) -> None:
    """Until all have ended well."""
    deadline = time.monotonic() + LIMIT
    running = {process.sentinel: rank for rank, process in enumerate(processes)}
    while running:
        ended = wait(running, max(0.0, deadline - time.monotonic()))
        if not ended:
            time.sleep(5)  # they are writing
            stacks = [
                f'rank {r}:\n{(folder / f"{r}.stacks").read_text()}' for r in running.values()
            ]
            raise AssertionError(f'not ended after {LIMIT} s:\n' + '\n'.join(stacks))
        for rank in map(running.pop, ended):
            if not (folder / f'{rank}.outcome').exists():
                failure = folder / f'{rank}.failure'
                status = processes[rank].exitcode
                text = failure.read_text() if failure.exists() else f'ended with status {status}'
                raise AssertionError(f'rank {rank}:\n{text}')


def _worker(folder, function, rank, world_size, args, backend) -> None:
    torch.set_num_threads(1)
    with (folder / f'{rank}.stacks').open('w') as stacks:
        faulthandler.dump_traceback_later(LIMIT, file=stacks)
        try:
            store = f'file://{folder / "store"}'
            dist.init_process_group(backend, init_method=store, rank=rank, world_size=world_size)
            outcome = _to_numpy(function(rank, world_size, *args))
        except Exception:
            (folder / f'{rank}.failure').write_text(traceback.format_exc())
        else:
            (folder / f'{rank}.outcome').write_bytes(pickle.dumps(outcome))
            with suppress(RuntimeError):  # others have gone
                dist.barrier()
        # Not by way of gloo's threads, which now and then abort a process that ends.
        os._exit(0)


def _to_numpy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, dict):
        return {key: _to_numpy(item) for key, item in value.items()}
    return value
