from mmslip.models.necks.attention_pooling import AttentionPooling
from mmslip.models.necks.linear_projection import LinearProjection, pool
from mmslip.models.necks.mlp_projection import MLPProjection

__all__ = ['AttentionPooling', 'LinearProjection', 'MLPProjection', 'pool']
