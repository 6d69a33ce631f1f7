from mmslip.models.selfsup.shared import METHODS, MethodNeeds
from mmslip.models.selfsup.simclr import SimCLR

__all__ = ['METHODS', 'MethodNeeds', 'SimCLR']
