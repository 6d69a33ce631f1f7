"""Records in memory as one block of bytes."""

import pickle
from array import array
from collections.abc import Iterable, Sequence

import numpy as np

__all__ = ['RecordTable']


class RecordTable(Sequence):
    """Records as one block of bytes, filled from a stream.

    Fifteen million dicts would take many gigabytes while they are collected, and would be copied
    into every worker as their reference counts change. Here only the packed form ever exists. A
    data set that returns a table from ``load_data_list`` sets ``serialize_data=False``.

    Args:
        records: What to hold; consumed one by one.
    """

    def __init__(self, records: Iterable[dict]) -> None:
        content, ends = bytearray(), array('q')
        for record in records:
            content += pickle.dumps(record, protocol=4)
            ends.append(len(content))
        self._content = np.frombuffer(content, np.uint8)
        self._ends = np.frombuffer(ends, np.int64) if ends else np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int | slice) -> dict | list[dict]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        start = int(self._ends[number - 1]) if number else 0
        return pickle.loads(self._content[start : int(self._ends[number])])
