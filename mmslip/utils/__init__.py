from mmslip.utils.digest import digest_of
from mmslip.utils.files import whole_file
from mmslip.utils.lock import FileLock
from mmslip.utils.seed import mix_seed, seeded

__all__ = ['FileLock', 'digest_of', 'mix_seed', 'seeded', 'whole_file']
