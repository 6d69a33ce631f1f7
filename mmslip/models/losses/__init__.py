from mmslip.models.losses.clip_loss import clip_loss
from mmslip.models.losses.gather import gather
from mmslip.models.losses.simclr_loss import simclr_loss

__all__ = ['clip_loss', 'gather', 'simclr_loss']
