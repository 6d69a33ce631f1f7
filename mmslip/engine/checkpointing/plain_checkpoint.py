"""Checkpoints that hold tensors and plain values only."""

import time
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmslip.registry import HOOKS

__all__ = ['PlainCheckpointHook', 'plain']


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Keep checkpoints loadable with ``weights_only=True``, and free of code when resuming.

    On saving, mmengine's log buffers (a smoothing window of the log, nothing training depends on)
    are left out, NumPy values become Python's, and ``meta.saved_at`` notes the time, in seconds
    since 1970. On loading, ``meta.config`` is dropped, because mmengine would *execute* that text
    to compare numbers of GPUs.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Reduce ``meta`` and ``message_hub`` to plain values."""
        checkpoint['meta'] = dict(plain(checkpoint['meta']), saved_at=time.time())
        hub = checkpoint['message_hub']
        info = plain(hub['runtime_info'])
        checkpoint['message_hub'] = dict(
            log_scalars={},
            runtime_info=info,
            resumed_keys={key: keep for key, keep in hub['resumed_keys'].items() if key in info},
        )
        if isinstance(schedules := checkpoint.get('param_schedulers'), list):
            # OneCycleLR saves the function that it anneals with; the one that is resumed has it.
            checkpoint['param_schedulers'] = [
                {key: value for key, value in state.items() if not callable(value)}
                for state in schedules
            ]

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Drop what mmengine would execute and what it could not restore."""
        checkpoint.get('meta', {}).pop('config', None)
        if 'message_hub' in checkpoint:
            hub = checkpoint['message_hub']
            hub['log_scalars'] = {}
            hub['resumed_keys'] = {
                key: keep for key, keep in hub['resumed_keys'].items() if key in hub['runtime_info']
            }


def plain(value: Any) -> Any:
    """``value`` in Python's own types; tensors stay, anything else becomes its text."""
    if value is None or isinstance(value, bool | int | float | str | torch.Tensor):
        # Subclasses (numpy.float64 is a float, numpy.str_ a str) would be pickled as themselves.
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    return str(value)
