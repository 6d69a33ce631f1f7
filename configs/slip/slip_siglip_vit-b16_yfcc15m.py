"""SLIP with ViT-B/16 and SigLIP's sigmoid loss instead of InfoNCE, on YFCC15M, 25 epochs."""

_base_ = ['slip_vit-b16_yfcc15m.py']

# A starting point, not tuned: batch and learning rate are those of SLIP.
model = dict(head=dict(_delete_=True, type='mmslip.SigLIPHead'))
