from mmslip.apis.embed import EmbeddingInferencer
from mmslip.apis.model import get_model, init_model, list_models
from mmslip.apis.retrieve import ImageRetrievalInferencer
from mmslip.apis.zero_shot import ZeroShotClassificationInferencer

__all__ = [
    'EmbeddingInferencer',
    'ImageRetrievalInferencer',
    'ZeroShotClassificationInferencer',
    'get_model',
    'init_model',
    'list_models',
]
