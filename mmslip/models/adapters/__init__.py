from mmslip.models.adapters.official_slip import convert_official_slip

__all__ = ['convert_official_slip']
