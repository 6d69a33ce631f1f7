"""mmpretrain's projection MLP behind any backbone."""

from mmpretrain.models import NonLinearNeck
from torch import Tensor

from mmslip.models.necks.linear_projection import pool
from mmslip.registry import MODELS

__all__ = ['MLPProjection']


@MODELS.register_module()
class MLPProjection(NonLinearNeck):
    """:class:`mmpretrain.models.NonLinearNeck` on the feature that :func:`pool` finds.

    So a self-supervised algorithm reads vectors, feature maps and token sequences by one setting,
    where ``NonLinearNeck`` has to be told (``with_avg_pool``) and takes no tokens. It sees the same
    feature of an image as :class:`LinearProjection` of the language half.

    Args:
        *args: As for ``NonLinearNeck``.
        **kwargs: As for ``NonLinearNeck``; ``with_avg_pool`` has no effect.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **{**kwargs, 'with_avg_pool': False})

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Map a backbone's output tuple to a one-tuple of embeddings ``(B, D)``."""
        return super().forward((pool(feats),))
