"""The machine that a training will run on."""

import os
from dataclasses import dataclass

import torch

__all__ = ['Machine', 'look_at_machine']


@dataclass(frozen=True)
class Machine:
    """What sizes depend on.

    Attributes:
        cores: Cores that this process may use.
        memory: Of the computer, in bytes.
        gpu: Name of the first GPU; empty without one.
        gpu_memory: Its memory in bytes.
        bf16: Whether it computes in bfloat16.
    """

    cores: int
    memory: int
    gpu: str = ''
    gpu_memory: int = 0
    bf16: bool = False

    def __str__(self) -> str:
        told = f'{self.cores} cores, {self.memory / 2**30:.0f} GiB of memory'
        if self.gpu:
            return f'{self.gpu} with {self.gpu_memory / 2**30:.0f} GiB, {told}'
        return f'{told}, no GPU'


def look_at_machine() -> Machine:
    """This machine."""
    affinity = getattr(os, 'sched_getaffinity', None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    if not torch.cuda.is_available():
        return Machine(cores, memory)
    gpu = torch.cuda.get_device_properties(0)
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Machine(cores, memory, gpu.name, gpu.total_memory, bf16)
