from mmslip.models.necks.linear_projection import LinearProjection, pool

__all__ = ['LinearProjection', 'pool']
