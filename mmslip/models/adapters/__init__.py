from mmslip.models.adapters.convert import (
    FAMILIES,
    Imported,
    export_weights,
    import_weights,
    recognise,
)
from mmslip.models.adapters.facts import Facts
from mmslip.models.adapters.files import read_weights
from mmslip.models.adapters.load import adapt_checkpoint

__all__ = [
    'FAMILIES',
    'Facts',
    'Imported',
    'adapt_checkpoint',
    'export_weights',
    'import_weights',
    'read_weights',
    'recognise',
]
