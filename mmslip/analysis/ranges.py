"""Ranges of the numbers in a config, by the names of the settings."""

import math
from typing import NamedTuple

__all__ = ['RANGES', 'fault_of']


class _Range(NamedTuple):
    """Least and greatest sensible value of a number.

    Attributes:
        low: The least.
        high: The greatest.
        whole: Whether it must be an integer.
        excluded: Whichever of the two is too little or too much itself.
    """

    low: float
    high: float
    whole: bool = False
    excluded: float | None = None

    def fault(self, value: float) -> str | None:
        """Requirement that a number does not meet."""
        if not math.isfinite(value):
            return 'must be a finite number'
        if not self.low <= value <= self.high or value == self.excluded:
            end = '' if self.excluded is None else f', {self.excluded:g} excluded'
            return f'must lie between {self.low:g} and {self.high:g}{end}'
        if self.whole and value != int(value):
            return 'must be a whole number'
        return None


_COUNT, _SIZE, _FEW = _Range(1, 10**9, True), _Range(1, 10**6, True), _Range(1, 1000, True)
_SHARE, _FACTOR = _Range(0, 1), _Range(0, 1000)
_RATE, _POSITIVE = _Range(0, 1, excluded=1), _Range(0, 10**6, excluded=0)
# By the names of settings.
RANGES = {
    name: limits
    for limits, names in {
        _COUNT: 'interval val_interval max_iters base_batch_size end T_max samples',
        _SIZE: 'batch_size chunk_size max_epochs num_classes topk k vocab_size in_channels '
        'out_channels hid_channels embed_dims embed_dim decoder_embed_dim feedforward_channels '
        'width context_length img_size image_size patch_size crop_size ssl_size num_patches',
        _FEW: 'num_layers num_heads depth decoder_depth decoder_num_heads accumulative_counts '
        'prefetch_factor number',
        _SHARE: 'prob p share erase_prob momentum base_momentum start_factor end_factor eps '
        'crop_ratio_range image_crop ssl_crop mask_ratio label_smooth_val layer_decay_rate '
        'min_area_ratio max_area_ratio jitter_prob gray_prob blur_prob flip_prob',
        _RATE: 'betas',  # and whatever drops
        _POSITIVE: 'max_norm clip_value',
        _FACTOR: 'lr eta_min weight_decay ssl_weight loss_weight alpha brightness contrast '
        'saturation sigma blur_sigma jitter std',
        _Range(1e-4, 1000): 'temperature init_temperature init_scale',
        _Range(-0.5, 0.5): 'hue',
        _Range(0, 1000, True): 'num_views image_views ssl_views',
        _Range(-1000, 1000): 'mean init_bias',
        _Range(1, 10**6): 'max_scale',
        _Range(0, 10**6): 'timeout',
        _Range(-1, 1000, True): 'frozen_stages',
        _Range(0, 10**9, True): 'begin',
        _Range(0, 1024, True): 'num_workers opencv_num_threads',
        _Range(0, 2**32 - 1, True): 'seed',
    }.items()
    for name in names.split()
}
# Infinity is a norm; nothing else is without bounds, and no setting has a value beyond these.
_UNBOUNDED, _ANY = ('norm_type',), _Range(-1e15, 1e15)


def fault_of(name: str, value: float) -> str | None:
    """Requirement that the number of a setting does not meet; None if it meets all."""
    if name in _UNBOUNDED and not math.isnan(value):
        return None
    return RANGES.get(name, _RATE if 'drop' in name else _ANY).fault(value)
