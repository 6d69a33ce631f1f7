from mmslip.utils.digest import digest_of, digest_of_texts, spread
from mmslip.utils.files import whole_file
from mmslip.utils.lock import FileLock
from mmslip.utils.seed import mix_seed, seeded

__all__ = [
    'FileLock',
    'digest_of',
    'digest_of_texts',
    'mix_seed',
    'seeded',
    'spread',
    'whole_file',
]
