from mmslip.evaluation.class_embeddings import ClassEmbedder, embed_texts
from mmslip.evaluation.intervals import bootstrap_interval, wilson_interval
from mmslip.evaluation.knn_accuracy import KNNAccuracy, knn_predict
from mmslip.evaluation.linear_probe import LinearProbe
from mmslip.evaluation.logistic_regression import fit_logistic_regression
from mmslip.evaluation.predictions import PredictionKeeper, Predictions
from mmslip.evaluation.published import load_published
from mmslip.evaluation.reference_metric import ReferenceMetric
from mmslip.evaluation.retrieval_recall import RetrievalRecall, retrieval_ranks
from mmslip.evaluation.showcase import save_showcase
from mmslip.evaluation.tasks import Task, list_tasks, load_task
from mmslip.evaluation.zero_shot_accuracy import ZeroShotAccuracy

__all__ = [
    'ClassEmbedder',
    'KNNAccuracy',
    'LinearProbe',
    'PredictionKeeper',
    'Predictions',
    'ReferenceMetric',
    'RetrievalRecall',
    'Task',
    'ZeroShotAccuracy',
    'bootstrap_interval',
    'embed_texts',
    'fit_logistic_regression',
    'knn_predict',
    'list_tasks',
    'load_published',
    'load_task',
    'retrieval_ranks',
    'save_showcase',
    'wilson_interval',
]
