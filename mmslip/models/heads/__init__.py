from mmslip.models.heads.clip_head import CLIPHead
from mmslip.models.heads.siglip_head import SigLIPHead
from mmslip.models.heads.simclr_head import SimCLRHead

__all__ = ['CLIPHead', 'SigLIPHead', 'SimCLRHead']
