"""Two parameter groups: with and without weight decay."""

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmslip.registry import OPTIM_WRAPPER_CONSTRUCTORS

__all__ = ['NoDecay1dOptimWrapperConstructor']


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NoDecay1dOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """No weight decay on parameters with fewer than two dimensions, the official SLIP rule.

    That is biases, norm weights and ``logit_scale``; class token, position embeddings and
    projections *are* decayed. (The official code also tests names for ``bias``, ``ln`` and ``bn``,
    which catches nothing more.) Two groups, where mmengine's default makes one for every tensor,
    let fused optimisers update many tensors at once. Frozen parameters are left out.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        if paramwise_cfg:
            raise ValueError(
                f'{type(self).__name__} takes no paramwise_cfg (got {paramwise_cfg}): use '
                "mmengine's DefaultOptimWrapperConstructor for other rules."
            )
        # mmengine sends models to `add_params` only if there is something in this dict.
        super().__init__(optim_wrapper_cfg, dict(rule='no decay below two dimensions'))

    def add_params(self, params: list[dict], module: nn.Module, **kwargs: object) -> None:
        """Append the two groups of ``module`` to ``params``."""
        trained = [param for param in module.parameters() if param.requires_grad]
        params.append(dict(params=[param for param in trained if param.ndim >= 2]))
        params.append(dict(params=[param for param in trained if param.ndim < 2], weight_decay=0.0))
