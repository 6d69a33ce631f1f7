"""Tests of the hook that prepares zero-shot evaluation."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
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
    return SimpleNamespace(model=model, val_dataloader=loader, test_dataloader=loader)


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
    assert set(model.class_embeddings) == {'all', 'few'}
    for task, value in expected.items():
        np.testing.assert_allclose(model.class_embeddings[task], value, atol=2e-6)

    # A single data set, behind a model wrapper; what was there before is gone.
    runner.model = torch.nn.parallel.DataParallel(model)
    runner.val_dataloader = runner.test_dataloader = SimpleNamespace(dataset=parts[1])
    getattr(hook, f'before_{stage}_epoch')(runner)
    assert set(model.class_embeddings) == {'few'}


def test_embeddings_are_made_in_eval_mode(make_slip) -> None:
    model = make_slip()
    block = model.text_backbone.layers[0]
    block.act = nn.Sequential(block.act, nn.Dropout(0.5))
    embed = ClassEmbedder(CLIPTokenizer(16))
    expected = embed(model.eval(), dict(all=(CLASSES, ['{}'])))['all']
    model.train()  # as a training loop leaves it when its validation starts
    ZeroShotHook(templates=['{}']).before_val_epoch(
        runner_of(model, part(task='all', classes=CLASSES))
    )
    torch.testing.assert_close(model.class_embeddings['all'], expected)


def test_only_tests_keep_embeddings(make_slip, tmp_path) -> None:
    hook = ZeroShotHook(cache_dir=tmp_path / 'cache')
    runner = runner_of(make_slip(), part(task='all', classes=CLASSES))
    hook.before_val_epoch(runner)
    assert not (tmp_path / 'cache').exists()
    hook.before_test_epoch(runner)
    assert len(list((tmp_path / 'cache').iterdir())) == 1


def test_a_model_without_text_tower_has_no_embeddings(make_slip) -> None:
    model = make_slip(neck=None, text_backbone=None, text_neck=None, head=None)
    ZeroShotHook().before_test_epoch(runner_of(model, part(task='all', classes=CLASSES)))
    assert model.class_embeddings == {}


def test_a_set_without_a_task_is_named() -> None:
    with pytest.raises(ValueError, match=r'metainfo of SimpleNamespace has no task: .* Wrap'):
        tasks_of(SimpleNamespace(datasets=[part(task='a', classes=['x']), part(classes=['x'])]))
