from mmslip.models.losses.clip_loss import clip_loss
from mmslip.models.losses.gather import gather
from mmslip.models.losses.info_nce import info_nce
from mmslip.models.losses.precision import at_least_float32
from mmslip.models.losses.siglip_loss import siglip_loss
from mmslip.models.losses.simclr_loss import simclr_loss

__all__ = ['at_least_float32', 'clip_loss', 'gather', 'info_nce', 'siglip_loss', 'simclr_loss']
