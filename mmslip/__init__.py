"""mmslip: SLIP, CLIP and SimCLR pre-training on mmengine and mmpretrain."""

from importlib import import_module, metadata
from typing import Any

from mmslip.version import __version__

__all__ = ['__version__', 'get_model', 'init_model', 'list_models']


def _keep_mmpretrain_importable() -> None:
    """Switch off mmpretrain's multimodal models where they would fail to import.

    Where transformers and pycocotools are both installed, mmpretrain 1.2 imports these models; they
    need what transformers 4.56 has dropped, so that ``import mmpretrain.models`` ends with
    ``TypeError: NoneType takes no arguments``. mmslip has no use for them. Here, since this runs
    before any part of mmslip imports mmpretrain.
    """
    try:
        metadata.version('pycocotools')
        major, minor = map(int, metadata.version('transformers').split('.')[:2])
    except metadata.PackageNotFoundError:
        return
    if (major, minor) >= (4, 56):
        from mmpretrain.utils import dependency  # which imports no model yet

        dependency.WITH_MULTIMODAL = False


_keep_mmpretrain_importable()


def __getattr__(name: str) -> Any:
    """Import the functions of :mod:`mmslip.apis` when they are asked for: it needs PyTorch."""
    if name in ('get_model', 'init_model', 'list_models'):
        return getattr(import_module('mmslip.apis'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
