"""mmslip: SLIP, CLIP and SimCLR pre-training on mmengine and mmpretrain."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmslip.plugin import adapt_others
from mmslip.version import __version__

if TYPE_CHECKING:
    from mmslip.apis import get_model, init_model, list_models
    from mmslip.utils.config import load_config

__all__ = ['__version__', 'get_model', 'init_model', 'list_models', 'load_config']

adapt_others()


def __getattr__(name: str) -> Any:
    """Import the functions when they are asked for: they need PyTorch."""
    if name in ('get_model', 'init_model', 'list_models'):
        return getattr(import_module('mmslip.apis'), name)
    if name == 'load_config':
        return import_module('mmslip.utils.config').load_config
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
