"""The blocks of a model: what is recomputed, compiled or sharded one at a time."""

from collections.abc import Iterator, Sequence

from torch import nn

__all__ = ['find_blocks']

_LISTS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)


def find_blocks(model: nn.Module, types: Sequence[str] = ()) -> dict[str, nn.Module]:
    """Blocks of each tower by their names within ``model``, in the order of the model.

    Towers are ``backbone`` and ``text_backbone``; a model with neither is one itself. A tower's
    blocks are, in this order,

    1. its modules of the classes ``types``, if it has such;
    2. what its method ``get_blocks() -> Iterable[nn.Module]`` returns, if it has one;
    3. the members of its lists of modules, but for single layers (at most one weight matrix) and
       for stages, more than half of whose parameters are in blocks of their own.

    Modules of these blocks' classes in a self-supervised method's own parts (MAE's decoder, the
    momentum encoder of MoCo v3) are blocks as well.

    Args:
        model: Any model.
        types: Class names, such as ``['Bottleneck']``, where the blocks found are not those wanted.

    Raises:
        ValueError: A tower has no blocks, or nothing is of one of the ``types``.
    """
    modules = list(model.modules())
    for type_ in types:
        if not any(_is_of(module, [type_]) for module in modules):
            raise ValueError(f'There is no block of type {type_}. {_classes_in(model)}')
    towers = {
        name: tower
        for name in ('backbone', 'text_backbone')
        if isinstance(tower := getattr(model, name, None), nn.Module)
    }
    found = {}
    for name, tower in (towers or {'': model}).items():
        blocks = _blocks_of(tower, types)
        if not blocks:
            place = name or type(model).__name__
            raise ValueError(
                f'No blocks are found in {place}: set block_types of mmslip.SpeedHook to the '
                f'classes of its blocks. {_classes_in(tower)}'
            )
        found.update({id(block): block for block in blocks})
    classes = [*types, *(type(block).__name__ for block in found.values())]
    if isinstance(ssl := getattr(model, 'ssl', None), nn.Module):
        found.update({id(part): part for part in ssl.modules() if _is_of(part, classes)})
    return {name: module for name, module in model.named_modules() if id(module) in found}


def _blocks_of(tower: nn.Module, types: Sequence[str]) -> list[nn.Module]:
    named = [module for module in tower.modules() if _is_of(module, types)]
    if named:
        return named
    return list(tower.get_blocks() if hasattr(tower, 'get_blocks') else _listed_blocks(tower))


def _listed_blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        inner = list(_listed_blocks(child))
        is_listed = isinstance(module, _LISTS) and not isinstance(child, _LISTS)
        is_layer = sum(param.dim() > 1 for param in child.parameters()) < 2
        is_stage = 2 * sum(map(_size, inner)) > _size(child)
        if is_listed and not is_layer and not is_stage:
            yield child
        else:
            yield from inner


def _size(module: nn.Module) -> int:
    return sum(param.numel() for param in module.parameters())


def _is_of(module: nn.Module, types: Sequence[str]) -> bool:
    # FSDP gives sharded modules a class of its own, below the original.
    return any(cls.__name__ in types for cls in type(module).__mro__)


def _classes_in(model: nn.Module) -> str:
    parts = (part for part in model.modules() if any(part.children()) and part is not model)
    names = sorted({type(part).__name__ for part in parts if not isinstance(part, _LISTS)})
    return f'{type(model).__name__} holds {", ".join(names) or "single layers only"}.'
