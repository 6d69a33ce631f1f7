"""Registries of mmslip, children of mmengine's root registries.

Their parent is mmengine, not mmpretrain, so that a config that keeps
``default_scope = 'mmpretrain'`` finds ours as ``mmslip.NAME`` while every unprefixed default inside
mmpretrain keeps its meaning, and sibling libraries (mmdet, mmseg) resolve the same names.
"""

from typing import Any

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODEL_WRAPPERS as MMENGINE_MODEL_WRAPPERS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_PARAM_SCHEDULERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry
from mmpretrain.registry import TOKENIZER as MMPRETRAIN_TOKENIZERS

__all__ = [
    'DATASETS',
    'DATA_SAMPLERS',
    'FUNCTIONS',
    'HOOKS',
    'METRICS',
    'MODELS',
    'MODEL_WRAPPERS',
    'OPTIM_WRAPPERS',
    'OPTIM_WRAPPER_CONSTRUCTORS',
    'PARAM_SCHEDULERS',
    'TOKENIZERS',
    'TRANSFORMS',
    'model_class',
]


def _child(parent: Registry, *locations: str) -> Registry:
    """A registry below ``parent`` whose entries are found by importing ``locations`` on demand."""
    return Registry(parent.name, parent=parent, scope='mmslip', locations=list(locations))


# With the loader that reads weights as data, for `init_cfg`.
MODELS = _child(MMENGINE_MODELS, 'mmslip.models', 'mmslip.weights.load')
MODEL_WRAPPERS = _child(MMENGINE_MODEL_WRAPPERS, 'mmslip.engine')
DATASETS = _child(MMENGINE_DATASETS, 'mmslip.datasets')
DATA_SAMPLERS = _child(MMENGINE_DATA_SAMPLERS, 'mmslip.datasets')
FUNCTIONS = _child(MMENGINE_FUNCTIONS, 'mmslip.datasets')
TRANSFORMS = _child(MMENGINE_TRANSFORMS, 'mmslip.datasets.transforms')
HOOKS = _child(MMENGINE_HOOKS, 'mmslip.engine')
OPTIM_WRAPPERS = _child(MMENGINE_OPTIM_WRAPPERS, 'mmslip.engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS, 'mmslip.engine')
PARAM_SCHEDULERS = _child(MMENGINE_PARAM_SCHEDULERS, 'mmslip.engine')
METRICS = _child(MMENGINE_METRICS, 'mmslip.evaluation')
# mmengine has no registry of tokenisers, so this one hangs below mmpretrain's.
TOKENIZERS = _child(MMPRETRAIN_TOKENIZERS, 'mmslip.datasets')


def model_class(cfg: dict[str, Any]) -> type:
    """The class that ``MODELS.build`` makes of a config.

    Raises:
        KeyError: There is no such class.
    """
    cls = cfg['type']
    if isinstance(cls, str):
        with MODELS.switch_scope_and_registry(None) as registry:  # that of the default scope
            cls = registry.get(cls)
    if cls is None:
        raise KeyError(
            f'There is no model of type {cfg["type"]!r}. Classes of mmslip are written with their '
            'prefix, mmslip.NAME; a module with classes of your own stands in custom_imports.'
        )
    return cls
