from mmslip.models.necks.linear_projection import LinearProjection

__all__ = ['LinearProjection']
