"""Depth of a parameter in its tower, for learning rates by layer and for freezing by layer."""

from torch import nn

__all__ = ['TOWERS', 'depth_in_layers', 'layers_above', 'number_of_groups']

TOWERS = ('backbone', 'text_backbone')


def depth_in_layers(name: str, blocks: int, norm: str) -> tuple[int, int]:
    """Depth of a parameter, and the number of depths, of a tower with its blocks in ``layers``.

    Args:
        name: Of the parameter within the tower.
        blocks: Number of blocks.
        norm: Name of the norm behind them; what else is no block are embeddings.
    """
    part, _, rest = name.partition('.')
    if part == 'layers':
        return int(rest.partition('.')[0]) + 1, blocks + 2
    return (blocks + 1 if part == norm else 0), blocks + 2


def layers_above(model: nn.Module, name: str) -> int:
    """Number of layers between a parameter and the end of its tower; 0 outside of the towers.

    Args:
        model: With towers as children, whose ``get_layer_depth`` tells depths as mmpretrain's
            backbones do: embeddings first, then the blocks, then what follows them.
        name: Of the parameter within the model.

    Raises:
        ValueError: The tower does not tell.
    """
    tower = name.partition('.')[0]
    if tower not in TOWERS:
        return 0
    module = getattr(model, tower)
    if not hasattr(module, 'get_layer_depth'):
        raise ValueError(
            f'The depth of each layer, which layer_decay_rate and unlocked_groups need, is not '
            f'told by {tower} ({type(module).__name__}): it has no get_layer_depth.'
        )
    depth, number = module.get_layer_depth(name, f'{tower}.')
    return number - 1 - depth


def number_of_groups(model: nn.Module, tower: str) -> int:
    """Groups of a tower: each block, the last one with the norm behind it, and the embeddings."""
    names = (f'{tower}.{name}' for name, _ in getattr(model, tower).named_parameters())
    return max(layers_above(model, name) for name in names)
