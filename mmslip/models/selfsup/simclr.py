"""SimCLR whose gradients are those of one process with the whole batch."""

from typing import ClassVar

from mmpretrain.models import BaseSelfSupervisor
from torch import Tensor

from mmslip.models.selfsup.shared import MethodNeeds
from mmslip.registry import MODELS

__all__ = ['SimCLR']


@MODELS.register_module()
class SimCLR(BaseSelfSupervisor):
    """SimCLR (Chen et al., arXiv 2002.05709) on mmpretrain's self-supervised base class.

    mmpretrain's own SimCLR returns gradients divided by the number of processes and recomputes the
    full similarity matrix on each of them; this one does neither. Use
    :class:`mmslip.models.SimCLRHead` as its head.
    """

    needs: ClassVar[MethodNeeds] = MethodNeeds(reads_pixels=False)

    def loss(self, inputs: list[Tensor], data_samples: list | None = None) -> dict[str, Tensor]:
        """Loss of two views.

        Args:
            inputs: Two views of the same images, ``2 x (B, 3, H, W)``.
            data_samples: Not used.

        Returns:
            Scalars ``loss`` and ``acc``.
        """
        view1, view2 = inputs
        # One pass for each view, so that batch norm in the neck sees one view at a time, as in the
        # official code.
        z1 = self.neck(self.backbone(view1))[-1]  # (B, D)
        z2 = self.neck(self.backbone(view2))[-1]  # (B, D)
        return self.head.loss(z1, z2)
