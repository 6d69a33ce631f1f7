"""Parameter groups: with and without weight decay, and a learning rate for each depth."""

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmslip.models.depth import layers_above
from mmslip.registry import OPTIM_WRAPPER_CONSTRUCTORS

__all__ = ['NoDecay1dOptimWrapperConstructor']


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NoDecay1dOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """No weight decay on parameters with fewer than two dimensions, the official SLIP rule.

    That is biases, norm weights and ``logit_scale``; class token, position embeddings and
    projections *are* decayed. (The official code also tests names for ``bias``, ``ln`` and ``bn``,
    which catches nothing more.) Two groups, where mmengine's default makes one for every tensor,
    let fused optimisers update many tensors at once. Frozen parameters are left out.

    Args:
        optim_wrapper_cfg: Config of the optimiser wrapper.
        paramwise_cfg: Nothing, or a dict of ``layer_decay_rate``, ``lr_mult`` or both. With the
            first, what follows the blocks of a tower (its final norm, projections, heads) has the
            optimiser's learning rate, and every layer ``layer_decay_rate`` times that of the next,
            down to the embeddings (BEiT, arXiv 2106.08254). The second has factors for parts of
            the model, such as ``dict(ssl=50.0)`` for one that starts from random weights.

    Raises:
        ValueError: ``paramwise_cfg`` has another key, ``lr_mult`` names no part of the model, or
            a tower does not tell the depth of its layers.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        paramwise_cfg = paramwise_cfg or {}
        if paramwise_cfg.keys() - {'layer_decay_rate', 'lr_mult'}:
            raise ValueError(
                f'{type(self).__name__} takes no paramwise_cfg but layer_decay_rate and lr_mult '
                f"(got {paramwise_cfg}): use mmengine's DefaultOptimWrapperConstructor for other "
                'rules.'
            )
        # mmengine sends models to `add_params` only if there is something in this dict.
        defaults = dict(layer_decay_rate=1.0, lr_mult={})
        super().__init__(optim_wrapper_cfg, {**defaults, **paramwise_cfg})

    def add_params(self, params: list[dict], module: nn.Module, **kwargs: object) -> None:
        """Append the groups of ``module`` to ``params``: two, or two for each learning rate."""
        rate, factors = (self.paramwise_cfg[key] for key in ('layer_decay_rate', 'lr_mult'))
        parts = [name for name, _ in module.named_children()]
        if unknown := factors.keys() - {*parts}:
            raise ValueError(
                f'lr_mult names {", ".join(sorted(unknown))}, which is no part of the model: '
                f'it has {", ".join(parts)}.'
            )
        groups: dict[float, list] = {}
        for name, param in module.named_parameters():
            if param.requires_grad:
                scale = rate ** layers_above(module, name) if rate != 1 else 1.0
                scale *= factors.get(name.partition('.')[0], 1.0)
                groups.setdefault(scale, []).append(param)
        for scale, members in sorted(groups.items(), reverse=True):
            lr = {} if scale == 1 else dict(lr=self.base_lr * scale)
            params.append(dict(params=[param for param in members if param.ndim >= 2], **lr))
            flat = [param for param in members if param.ndim < 2]
            params.append(dict(params=flat, weight_decay=0.0, **lr))
