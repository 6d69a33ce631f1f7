from mmslip.models.selfsup.simclr import SimCLR

__all__ = ['SimCLR']
