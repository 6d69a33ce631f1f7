"""Tests of the hook that prepares zero-shot evaluation."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample
from torch import nn

from mmslip.datasets import CLIPTokenizer
from mmslip.engine import ZeroShotHook
from mmslip.engine.hooks.zero_shot import tasks_of
from mmslip.evaluation import ClassEmbedder

CLASSES = ['cat', 'a very old green tree', 'dog', 'house', 'red car']
TEMPLATES = ['{}', 'a photo of a {}.', 'it is {}!']


def part(**metainfo: object) -> SimpleNamespace:
    return SimpleNamespace(metainfo=metainfo)


def runner_of(model: nn.Module, dataset: object) -> SimpleNamespace:
    loader = SimpleNamespace(dataset=dataset)
    return SimpleNamespace(model=model, val_dataloader=loader, test_dataloader=loader, cfg={})


@pytest.mark.parametrize('stage', ['val', 'test'])
def test_every_judged_task_is_prepared(make_slip, stage) -> None:
    model = make_slip().eval()
    parts = [
        part(task='all', classes=CLASSES),
        part(task='few', classes=CLASSES[:2], templates=TEMPLATES, role='query'),
        part(task='few', classes=CLASSES[:3], templates=TEMPLATES, role='reference'),
        part(task='captions'),
    ]
    # The tokeniser follows from the text tower, which reads 16 tokens.
    hook = ZeroShotHook(templates=['a drawing of {}'], batch_size=3)
    runner = runner_of(model, SimpleNamespace(datasets=parts))
    getattr(hook, f'before_{stage}_epoch')(runner)
    expected = ClassEmbedder(CLIPTokenizer(16))(
        model, dict(all=(CLASSES, ['a drawing of {}']), few=(CLASSES[:2], TEMPLATES))
    )
    assert set(hook.class_embeddings) == {'all', 'few'}
    for task, value in expected.items():
        np.testing.assert_allclose(hook.class_embeddings[task], value, atol=2e-6)

    # A single data set, behind a model wrapper; what was there before is gone.
    runner.model = torch.nn.parallel.DataParallel(model)
    runner.val_dataloader = runner.test_dataloader = SimpleNamespace(dataset=parts[1])
    getattr(hook, f'before_{stage}_epoch')(runner)
    assert set(hook.class_embeddings) == {'few'}


def test_embeddings_are_made_in_eval_mode(make_slip) -> None:
    model = make_slip()
    block = model.text_backbone.layers[0]
    block.act = nn.Sequential(block.act, nn.Dropout(0.5))
    embed = ClassEmbedder(CLIPTokenizer(16))
    expected = embed(model.eval(), dict(all=(CLASSES, ['{}'])))['all']
    model.train()  # as a training loop leaves it when its validation starts
    hook = ZeroShotHook(templates=['{}'])
    hook.before_val_epoch(runner_of(model, part(task='all', classes=CLASSES)))
    torch.testing.assert_close(hook.class_embeddings['all'], expected)


def test_only_tests_keep_embeddings(make_slip, tmp_path) -> None:
    hook = ZeroShotHook(cache_dir=tmp_path / 'cache')
    runner = runner_of(make_slip(), part(task='all', classes=CLASSES))
    hook.before_val_epoch(runner)
    assert not (tmp_path / 'cache').exists()
    hook.before_test_epoch(runner)
    assert len(list((tmp_path / 'cache').iterdir())) == 1


def test_a_model_without_text_tower_has_no_embeddings(make_slip) -> None:
    model = make_slip(neck=None, text_backbone=None, text_neck=None, head=None)
    hook = ZeroShotHook()
    hook.before_test_epoch(runner_of(model, part(task='all', classes=CLASSES)))
    assert hook.class_embeddings == {}


def test_what_is_judged_is_scored_until_the_epoch_ends(make_slip) -> None:
    model = make_slip().eval()
    hook = ZeroShotHook(templates=['{}'])
    parts = [part(task='a', classes=CLASSES), part(task='b', classes=CLASSES[:2])]
    runner = runner_of(model, SimpleNamespace(datasets=parts))
    metas = [dict(task='a'), dict(task='b', role='query'), dict(task='a', role='reference'), {}]
    images = torch.randn(4, 3, 32, 32)

    def predict() -> list[DataSample]:
        samples = [DataSample(metainfo=meta) for meta in metas]
        with torch.no_grad():
            return model(dict(image=images), samples, mode='predict')

    hook.before_val_epoch(runner)
    out, classes = predict(), hook.class_embeddings
    for sample, task in zip(out[:2], 'ab', strict=True):
        torch.testing.assert_close(sample.pred_score, classes[task] @ sample.image_feat)
    assert ['pred_score' in sample for sample in out] == [True, True, False, False]
    hook.after_val_epoch(runner)
    assert not any('pred_score' in sample for sample in predict())
    assert all(sample.image_feat.shape == (16,) for sample in out)


def test_a_set_without_a_task_is_named() -> None:
    with pytest.raises(ValueError, match=r'metainfo of SimpleNamespace has no task: .* Wrap'):
        tasks_of(SimpleNamespace(datasets=[part(task='a', classes=['x']), part(classes=['x'])]))
