"""From a collated batch of bytes to what the towers read."""

from collections.abc import Callable, Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn

from mmslip.models.chunks import ByteImages
from mmslip.registry import MODELS

__all__ = ['SLIPDataPreprocessor']


@MODELS.register_module()
class SLIPDataPreprocessor(BaseDataPreprocessor):
    """Move a batch to the device, normalise its views, trim its text.

    The attribute ``trim_text`` cuts token ids ``(B, L)`` before they are copied: SLIP sets its own,
    which asks the text tower at every batch. By default nothing is cut. ``in_slices`` names those
    of ``image`` and ``views`` that only a tower in slices reads: SLIP sets it, and they stay bytes
    until their slice, unless they are augmented here.

    Args:
        mean: Per-channel mean in RGB order, on the 0-255 scale.
        std: Per-channel standard deviation in RGB order, on the 0-255 scale.
        to_rgb: Whether the views come as BGR (OpenMMLab's loaders give BGR) and are flipped here.
        non_blocking: Copy to the device without waiting; needs pinned memory.
        view_augment: Config of a module that changes float RGB ``(B, 3, h, w)`` in [0, 255], such
            as :class:`DeviceAugment`, or a list of them; it meets ``views``, one after another, in
            training only.
        image_augment: The same for ``image``.
        target_mean: Per-channel mean of the last view, where a method gives it to a target
            generator that expects another scale (BEiT, arXiv 2106.08254); else that of all.
        target_std: The standard deviation, likewise.
    """

    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        to_rgb: bool = True,
        non_blocking: bool = True,
        view_augment: dict | list[dict] | None = None,
        image_augment: dict | list[dict] | None = None,
        target_mean: Sequence[float] | None = None,
        target_std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(non_blocking=non_blocking)
        self.to_rgb = to_rgb
        self.trim_text: Callable[[Tensor], Tensor] = _whole_text
        self.in_slices: Sequence[str] = ()
        self.view_augment = MODELS.build(view_augment) if view_augment else nn.Identity()
        self.image_augment = MODELS.build(image_augment) if image_augment else nn.Identity()
        self.has_target = target_mean is not None
        scales = dict(mean=mean, std=std, target_mean=target_mean, target_std=target_std)
        for name, values in scales.items():
            if values is not None:
                value = torch.tensor(values).view(-1, 1, 1)
                self.register_buffer(name, value, persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepare one batch.

        Args:
            data: ``inputs`` with any of ``image`` uint8 ``(B, 3, H, W)`` or a list of them,
                ``views`` a list of uint8 ``(B, 3, h, w)``, ``text`` int64 ``(B, L)`` or
                ``(B, m, L)`` (with fewer rows than ``views``, like ``image`` and ``keys``, where
                samples have no caption) and ``keys`` int64 ``(B, 1 + m)``; and, for evaluation,
                ``data_samples``. A plain tensor as ``inputs`` (mmpretrain's ``PackInputs``) is
                taken as ``image``.
            training: Whether ``view_augment`` and ``image_augment`` apply.

        Returns:
            The same structure on the device: views as normalised float RGB, or as
            :class:`ByteImages` that become so; text cut by the rule of the text tower.
        """
        # mmengine calls this under autocast, whose eight bits are too few for places and colours.
        with torch.autocast(self.device.type, enabled=False):
            return self._prepare(data, training)

    def _prepare(self, data: dict, training: bool) -> dict:
        inputs = data['inputs']
        inputs = dict(image=inputs) if isinstance(inputs, Tensor) else dict(inputs)
        if 'text' in inputs:
            inputs['text'] = self.trim_text(inputs['text'])  # (..., L) -> (..., longest)
        data = self.cast_data(dict(inputs=inputs, data_samples=data.get('data_samples')))
        inputs = data['inputs']
        augment = self.image_augment if training else nn.Identity()
        if isinstance(image := inputs.get('image'), list):
            inputs['image'] = [self._finish('image', view, augment) for view in image]
        elif image is not None:
            inputs['image'] = self._finish('image', image, augment)
        if 'views' in inputs:
            augment = self.view_augment if training else nn.Identity()
            views = list(inputs['views'])
            targets = [views.pop()] if self.has_target else []
            inputs['views'] = [self._finish('views', view, augment) for view in views]
            inputs['views'] += [
                (augment(self._to_float(view)) - self.target_mean) / self.target_std
                for view in targets
            ]
        return data

    def _finish(self, kind: str, view: Tensor, augment: nn.Module) -> Tensor | ByteImages:
        as_it_is = isinstance(augment, nn.Identity)
        if as_it_is and kind in self.in_slices and view.dtype == torch.uint8:
            return ByteImages(view, self._to_normalised)
        return self._normalise(augment(self._to_float(view)))

    def _to_normalised(self, view: Tensor) -> Tensor:
        return self._normalise(self._to_float(view))

    def _to_float(self, view: Tensor) -> Tensor:
        return (view.flip(1) if self.to_rgb else view).float()  # (B, 3, H, W)

    def _normalise(self, view: Tensor) -> Tensor:
        return (view - self.mean).div_(self.std)  # one batch of floats less at a time


def _whole_text(text: Tensor) -> Tensor:
    return text
