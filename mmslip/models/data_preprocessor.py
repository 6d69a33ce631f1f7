"""From a collated batch of bytes to what the towers read."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn

from mmslip.models.backbones import trim_text
from mmslip.registry import MODELS

__all__ = ['SLIPDataPreprocessor']


@MODELS.register_module()
class SLIPDataPreprocessor(BaseDataPreprocessor):
    """Move a batch to the device, normalise its views, trim its text.

    Args:
        mean: Per-channel mean in RGB order, on the 0-255 scale.
        std: Per-channel standard deviation in RGB order, on the 0-255 scale.
        to_rgb: Whether the views come as BGR (OpenMMLab's loaders give BGR) and are flipped here.
        non_blocking: Copy to the device without waiting; needs pinned memory.
        view_augment: Config of a module that changes float RGB ``(B, 3, h, w)`` in [0, 255], such
            as :class:`DeviceAugment`; it meets ``views``, one after another, in training only.
    """

    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        to_rgb: bool = True,
        non_blocking: bool = True,
        view_augment: dict | None = None,
    ) -> None:
        super().__init__(non_blocking=non_blocking)
        self.to_rgb = to_rgb
        self.view_augment = MODELS.build(view_augment) if view_augment else nn.Identity()
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepare one batch.

        Args:
            data: ``inputs`` with any of ``image`` uint8 ``(B, 3, H, W)``, ``views`` a list of
                uint8 ``(B, 3, h, w)``, ``text`` int64 ``(B, L)``; and, for evaluation,
                ``data_samples``. A plain tensor as ``inputs`` (mmpretrain's ``PackInputs``) is
                taken as ``image``.
            training: Whether ``view_augment`` applies.

        Returns:
            The same structure on the device: views as normalised float RGB, text cut to the longest
            caption of the batch (exact under the text tower's causal mask).
        """
        inputs = data['inputs']
        inputs = dict(image=inputs) if isinstance(inputs, Tensor) else dict(inputs)
        if 'text' in inputs:
            inputs['text'] = trim_text(inputs['text'])  # (B, L) -> (B, longest)
        data = self.cast_data(dict(inputs=inputs, data_samples=data.get('data_samples')))
        inputs = data['inputs']
        if 'image' in inputs:
            inputs['image'] = self._normalise(self._to_float(inputs['image']))
        if 'views' in inputs:
            views = [self._to_float(view) for view in inputs['views']]
            if training:
                views = [self.view_augment(view) for view in views]
            inputs['views'] = [self._normalise(view) for view in views]
        return data

    def _to_float(self, view: Tensor) -> Tensor:
        return (view.flip(1) if self.to_rgb else view).float()  # (B, 3, H, W)

    def _normalise(self, view: Tensor) -> Tensor:
        return (view - self.mean) / self.std
