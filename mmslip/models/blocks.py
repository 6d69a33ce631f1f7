"""The blocks of a model: what is recomputed, sharded or compiled one at a time."""

from collections.abc import Sequence

from torch import nn

__all__ = ['BLOCK_TYPES', 'find_blocks']

# mmpretrain's VisionTransformer and mmslip's TextTransformer.
BLOCK_TYPES = ('TransformerEncoderLayer', 'CausalBlock')


def find_blocks(model: nn.Module, types: Sequence[str] = BLOCK_TYPES) -> dict[str, nn.Module]:
    """Blocks by their names within ``model``, in the order of the model.

    Args:
        model: Any model.
        types: Names of their classes, such as ``'Bottleneck'`` for a ResNet.

    Raises:
        ValueError: The model has none.
    """
    # FSDP gives sharded modules a class of its own, below the original.
    found = {
        name: module
        for name, module in model.named_modules()
        if any(cls.__name__ in types for cls in type(module).__mro__)
    }
    if not found:
        lists = (
            part for part in model.modules() if isinstance(part, nn.ModuleList | nn.Sequential)
        )
        there = sorted({type(child).__name__ for part in lists for child in part})
        raise ValueError(
            f'{type(model).__name__} has no block of type {" or ".join(types)}: set block_types to '
            f'classes of its blocks. Its lists of modules hold {", ".join(there) or "nothing"}.'
        )
    return found
