from mmslip.evaluation.class_embeddings import (
    ClassEmbedder,
    default_tokenizer,
    embed_texts,
    score_classes,
    stated_tokenizer,
)
from mmslip.evaluation.intervals import bootstrap_interval, wilson_interval
from mmslip.evaluation.knn_accuracy import KNNAccuracy, knn_predict
from mmslip.evaluation.linear_probe import LinearProbe
from mmslip.evaluation.logistic_regression import fit_logistic_regression
from mmslip.evaluation.pixel_neighbours import pixel_accuracy
from mmslip.evaluation.predictions import PredictionKeeper, Predictions
from mmslip.evaluation.published import load_published
from mmslip.evaluation.reference_metric import ReferenceMetric
from mmslip.evaluation.retrieval_recall import RetrievalRecall, retrieval_ranks
from mmslip.evaluation.showcase import save_showcase
from mmslip.evaluation.zero_shot_accuracy import ZeroShotAccuracy

__all__ = [
    'ClassEmbedder',
    'KNNAccuracy',
    'LinearProbe',
    'PredictionKeeper',
    'Predictions',
    'ReferenceMetric',
    'RetrievalRecall',
    'ZeroShotAccuracy',
    'bootstrap_interval',
    'default_tokenizer',
    'embed_texts',
    'fit_logistic_regression',
    'knn_predict',
    'load_published',
    'pixel_accuracy',
    'retrieval_ranks',
    'save_showcase',
    'score_classes',
    'stated_tokenizer',
    'wilson_interval',
]
