from mmslip.utils.seed import mix_seed, seeded

__all__ = ['mix_seed', 'seeded']
