from mmslip.evaluation.class_embeddings import embed_classes
from mmslip.evaluation.intervals import bootstrap_interval, wilson_interval
from mmslip.evaluation.zero_shot_accuracy import ZeroShotAccuracy

__all__ = ['ZeroShotAccuracy', 'bootstrap_interval', 'embed_classes', 'wilson_interval']
