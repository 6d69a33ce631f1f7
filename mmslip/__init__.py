"""mmslip: SLIP, CLIP and SimCLR pre-training on mmengine and mmpretrain."""

from mmslip.version import __version__

__all__ = ['__version__']
