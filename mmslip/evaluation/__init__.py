from mmslip.evaluation.class_embeddings import embed_classes
from mmslip.evaluation.zero_shot_accuracy import ZeroShotAccuracy

__all__ = ['ZeroShotAccuracy', 'embed_classes']
