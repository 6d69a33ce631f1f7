"""Metrics that a run watches are known before its first step."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmpretrain.evaluation import Accuracy, SingleLabelMetric

from mmslip.cli import train
from mmslip.datasets.transforms import TokenizeCaptions
from mmslip.engine import check_monitored
from mmslip.engine.hooks.monitor_check import known_metrics
from mmslip.evaluation import KNNAccuracy, LinearProbe, RetrievalRecall, ZeroShotAccuracy
from tests.evaluation.samples import evaluate


def part(captions: bool = False, **metainfo: object) -> SimpleNamespace:
    steps = [TokenizeCaptions()] if captions else []
    return SimpleNamespace(metainfo=metainfo, pipeline=SimpleNamespace(transforms=steps))


def suite(*parts: SimpleNamespace) -> SimpleNamespace:
    """As an EvaluationSuite tells of its parts."""
    judged = [
        one.metainfo for one in parts if {'role', 'classes'} & set(one.metainfo) == {'classes'}
    ]
    tasks = {meta['task']: meta for meta in judged}
    return SimpleNamespace(datasets=list(parts), metainfo=dict(tasks=tasks))


PAIR = ['cat', 'dog']
SETS = suite(
    part(task='all', classes=['a', 'b', 'c']),
    part(task='even', classes=['a', 'b', 'c'], metric='mean_per_class'),
    part(task='pair', classes=PAIR, metric='roc_auc'),
    part(task='pair', classes=PAIR, role='reference'),
    part(task='shop', captions=True),
)


def samples() -> list[dict]:
    """Twelve of each set, as a model predicts them."""
    rows = torch.rand(12, 3, generator=torch.Generator().manual_seed(0))
    found = []
    for index, row in enumerate(rows):
        label = torch.tensor([index % 2])
        labelled = dict(gt_label=label, backbone_feat=row)
        for task in ('all', 'even'):
            found.append(dict(labelled, task=task, pred_score=row))
        found.append(dict(labelled, task='pair', pred_score=row[:2]))
        found.append(dict(labelled, task='pair', role='reference'))
        found.append(dict(task='shop', image_feat=row, text_feat=row[None]))
    return found


@pytest.mark.parametrize(
    'metric',
    [
        ZeroShotAccuracy(topk=(1, 3)),
        ZeroShotAccuracy(topk=(3,)),
        KNNAccuracy(),
        LinearProbe(l2=[1e-2]),
        RetrievalRecall(topk=(1, 5)),
    ],
    ids=lambda metric: type(metric).__name__,
)
def test_the_names_are_those_of_the_evaluation(metric: BaseMetric) -> None:
    names = known_metrics(metric, SETS)
    assert len(names) >= 3
    assert sorted(names) == sorted(evaluate(metric, samples()))


def test_names_of_other_libraries() -> None:
    classified = [
        dict(pred_score=torch.eye(3)[index % 3], gt_label=torch.tensor([1])) for index in range(6)
    ]
    metric = Accuracy(topk=(1, 2), prefix='linear/imagenet')
    assert sorted(known_metrics(metric, SETS)) == sorted(evaluate(metric, classified))
    assert known_metrics(SingleLabelMetric(), SETS) is None


def hooks(*custom: dict, **checkpoint: object) -> Config:
    zero_shot = dict(type='mmslip.ZeroShotHook')
    checkpoint = dict(type='CheckpointHook', **checkpoint)
    return Config(
        dict(
            default_hooks=dict(checkpoint=checkpoint, logger=None),
            custom_hooks=[zero_shot, *custom],
        )
    )


def plateau(**options: object) -> Config:
    return Config(
        dict(
            hooks(),
            param_scheduler=[dict(type='LinearLR'), dict(type='ReduceOnPlateauLR', **options)],
        )
    )


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (
            hooks(save_best='all_top1'),
            r"default_hooks.checkpoint.save_best = 'all_top1': no evaluator gives this metric, and "
            r"training would stop at its first validation. Is 'zero_shot/all_top1' meant\? Given "
            r'are zero_shot/all_top1, zero_shot/all_top5, zero_shot/even_mean_per_class, .*'
            r'zero_shot/pair_roc_auc, .*, zero_shot/mean\.$',
        ),
        (hooks(save_best=['zero_shot/mean', 'knn/pair_top1']), "save_best = 'knn/pair_top1'"),
        (
            hooks(dict(type='EarlyStoppingHook', monitor='zero_shot/all_top2')),
            r"custom_hooks\[1\].monitor = 'zero_shot/all_top2'",
        ),
        (plateau(), r"param_scheduler\[1\].monitor = 'loss'"),
        (plateau(monitor='top1'), r"param_scheduler\[1\].monitor = 'top1'"),
        (
            hooks(dict(type='mmslip.RetrievalPictureHook', task='none')),
            r"custom_hooks\[1\].task = 'none': no such task in val_dataloader \(tasks: all, even",
        ),
        (Config(dict(custom_hooks=None)), 'needs dict.type=.mmslip.ZeroShotHook.. in custom_hooks'),
    ],
)
def test_wrong_names_are_refused(cfg: Config, message: str, make_slip) -> None:
    with pytest.raises(ValueError, match=message):
        check_monitored(cfg, SETS, [ZeroShotAccuracy()], make_slip())


def test_right_and_unknown_names_are_not(make_slip) -> None:
    model = make_slip()
    zero_shot, other = ZeroShotAccuracy(), SingleLabelMetric()
    plain = dict(type='EarlyStoppingHook', monitor='zero_shot/pair_roc_auc_low')
    picture = dict(type='mmslip.RetrievalPictureHook', task='shop')
    baseline = dict(type='mmslip.PixelBaselineHook')
    for cfg in (
        hooks(save_best='auto'),
        hooks(plain, picture, baseline, save_best='zero_shot/mean'),
        plateau(monitor='zero_shot/even_mean_per_class'),
    ):
        check_monitored(cfg, SETS, [zero_shot], model)
    check_monitored(hooks(save_best='single-label/f1-score'), SETS, [zero_shot, other], model)
    with pytest.raises(ValueError, match='single/f1'):
        check_monitored(hooks(save_best='single/f1'), SETS, [zero_shot, other], model)


def test_an_evaluator_without_anything_to_judge(make_slip) -> None:
    with pytest.raises(ValueError, match=r'RetrievalRecall finds nothing .*\(tasks: all\)'):
        check_monitored(
            hooks(), suite(part(task='all', classes=PAIR)), [RetrievalRecall()], make_slip()
        )
    alone = make_slip(neck=None, text_backbone=None, text_neck=None, head=None)
    with pytest.raises(ValueError, match='needs a text tower in model'):
        check_monitored(hooks(), SETS, [ZeroShotAccuracy()], alone)


def test_training_refuses_before_its_first_step(tmp_path) -> None:
    config = Path(__file__).parents[2] / 'configs' / 'slip' / 'slip_vit-tiny_emoji.py'
    options = ['train_dataloader.batch_size=32', 'train_dataloader.dataset.indices=64']
    options += ['default_hooks.checkpoint.save_best=val_top1', f'experiment_name={tmp_path.name}']
    with pytest.raises(SystemExit) as stopped:
        train.main([str(config), '--work-dir', str(tmp_path), '--cfg-options', *options])
    assert stopped.value.code.splitlines()[-1].startswith(
        "Error: default_hooks.checkpoint.save_best = 'val_top1': no evaluator gives this metric"
    )
