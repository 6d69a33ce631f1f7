"""Parameter groups: with and without weight decay, and a learning rate for each depth."""

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

    Args:
        optim_wrapper_cfg: Config of the optimiser wrapper.
        paramwise_cfg: Nothing, or ``dict(layer_decay_rate=RATE)``: what follows the blocks of a
            tower (its final norm, projections, heads) has the optimiser's learning rate, and every
            layer ``RATE`` times that of the next, down to the embeddings (BEiT, arXiv 2106.08254).
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        paramwise_cfg = paramwise_cfg or {}
        if paramwise_cfg.keys() - {'layer_decay_rate'}:
            raise ValueError(
                f'{type(self).__name__} takes no paramwise_cfg but layer_decay_rate (got '
                f"{paramwise_cfg}): use mmengine's DefaultOptimWrapperConstructor for other rules."
            )
        # mmengine sends models to `add_params` only if there is something in this dict.
        super().__init__(optim_wrapper_cfg, {'layer_decay_rate': 1.0, **paramwise_cfg})

    def add_params(self, params: list[dict], module: nn.Module, **kwargs: object) -> None:
        """Append the groups of ``module`` to ``params``: two, or two for each learning rate."""
        rate = self.paramwise_cfg['layer_decay_rate']
        groups: dict[float, list] = {}
        for name, param in module.named_parameters():
            if param.requires_grad:
                scale = rate ** _layers_above(module, name) if rate != 1 else 1.0
                groups.setdefault(scale, []).append(param)
        for scale, members in sorted(groups.items(), reverse=True):
            lr = {} if scale == 1 else dict(lr=self.base_lr * scale)
            params.append(dict(params=[param for param in members if param.ndim >= 2], **lr))
            flat = [param for param in members if param.ndim < 2]
            params.append(dict(params=flat, weight_decay=0.0, **lr))


def _layers_above(model: nn.Module, name: str) -> int:
    """Number of layers between a parameter and the end of its tower; 0 outside of the towers."""
    tower = name.partition('.')[0]
    if tower not in ('backbone', 'text_backbone'):
        return 0
    module = getattr(model, tower)
    if not hasattr(module, 'get_layer_depth'):
        raise ValueError(
            f'layer_decay_rate needs the depth of each layer, which {tower} '
            f'({type(module).__name__}) does not tell: it has no get_layer_depth.'
        )
    depth, number = module.get_layer_depth(name, f'{tower}.')
    return number - 1 - depth
