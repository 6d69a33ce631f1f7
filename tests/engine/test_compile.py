"""Compiled blocks: the same values, one graph, and no compilation after the warm-up."""

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch._dynamo.utils import counters

from mmslip.cli import train
from mmslip.engine import SpeedHook

ROOT = Path(__file__).parents[2]
# Traces as the default does, backward pass included, and runs PyTorch's own kernels.
BACKEND = 'aot_eager'


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.config.recompile_limit = limit
    torch._dynamo.reset()


def batch(length: int, size: int = 4) -> dict:
    generator = torch.Generator().manual_seed(length)
    text = torch.randint(1, 49000, (size, length), generator=generator)
    text[:, -1] = 49407
    image, *views = torch.randn(3, size, 3, 32, 32, generator=generator)
    return dict(image=image, views=views, text=text)


def speed_up(model: nn.Module, backend: str = BACKEND, **options: object) -> None:
    SpeedHook(backend=backend, **options).before_train(SimpleNamespace(model=model))


def step(model: nn.Module, inputs: dict) -> tuple[Tensor, list[Tensor]]:
    """Loss of a step, and the gradients."""
    model.zero_grad()
    losses = model.loss(inputs)
    loss = losses['loss_clip'] + losses['loss_ssl']
    loss.backward()
    return loss.detach(), [param.grad for param in model.parameters()]


def graphs() -> int:
    """Graphs compiled since the last call; there must be no break in any."""
    assert not counters['graph_break'], list(counters['graph_break'])
    number = counters['stats']['unique_graphs']
    counters.clear()
    return number


def backbone(**changes: object) -> dict:
    arch = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)
    return dict(type='mmslip.VisionTransformer', arch=arch, img_size=32, patch_size=16, **changes)


def test_values_and_number_of_compilations(make_slip):
    model, plain = make_slip(backbone=backbone()), make_slip(backbone=backbone())
    speed_up(model, compile=True)
    assert model.state_dict().keys() == plain.state_dict().keys()
    compiled = []
    for length in (9, 7, 12, 16, 5, 3):
        loss, grads = step(model, batch(length))
        compiled.append(graphs())
        expected, expected_grads = step(plain, batch(length))
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(grads, expected_grads, rtol=1e-4, atol=1e-6)
    # Two graphs for each tower, of its last block and of the others, whatever their number and the
    # length of the captions.
    assert compiled == [4, 0, 0, 0, 0, 0]


@pytest.mark.parametrize('recompute', ['chunks', 'blocks'])
def test_smaller_views_and_recomputation(make_slip, recompute):
    """Each pass is run again for its gradient, after other sizes have been compiled."""
    changes = dict(backbone=backbone(patch_dropout=0.5))
    models = []
    for compiled in (True, False):
        model = make_slip(**changes, chunk_size=2 if recompute == 'chunks' else None)
        speed_up(model, compile=compiled, recompute=recompute == 'blocks')
        models.append(model)
    compiled = []
    for length in (9, 7, 12):
        inputs = batch(length)
        inputs['views'] = [view[..., :16, :] for view in inputs['views']]
        results = []
        for model in models:
            torch.manual_seed(length)
            results.append(step(model, inputs))
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)
        compiled.append(graphs())
    assert compiled[0] > 0
    assert compiled[1:] == [0, 0]


def test_drop_path_does_not_break_the_graph(make_slip):
    model = make_slip(backbone=backbone(drop_path_rate=0.2), ssl=None)
    speed_up(model, compile=True, backend='eager')
    inputs = batch(7)
    model.embed(inputs)
    assert graphs() == 5  # image blocks: one without drop path, two with it; text blocks
    model.embed(inputs)
    assert graphs() == 0


def test_a_copy_has_its_own_weights(make_slip):
    model = make_slip(ssl=None)
    speed_up(model, compile=True, backend='eager')
    inputs = batch(7)
    before = model.eval().embed(inputs)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for param in model.parameters():
            param.mul_(1.5)
        torch.testing.assert_close(copied.embed(inputs), before)
        assert not torch.allclose(model.embed(inputs)['image_feat'], before['image_feat'])


def test_the_hook_reaches_into_a_wrapped_model(make_slip):
    model = make_slip()
    wrapped = nn.parallel.DataParallel(model)  # of the kind that mmengine knows as a wrapper
    speed_up(wrapped, compile=True, backend='eager')
    model.embed(batch(7))
    assert graphs() == 4
    with pytest.raises(ValueError, match='no block of type Bottleneck'):
        speed_up(model, compile=True, block_types=['Bottleneck'])


def test_the_command_line_sets_the_hook():
    config = ROOT / 'configs' / 'slip' / 'slip_vit-tiny_emoji.py'
    for options, compiled in (([], None), (['--compile'], True)):
        cfg = Config.fromfile(config)
        train.apply_args(cfg, train.parse_args([str(config), *options]))
        assert cfg.default_hooks.speed.get('compile') is compiled
    # One that does not stand on the default runtime.
    cfg = Config.fromfile(config)
    del cfg.default_hooks['speed']
    train.apply_args(cfg, train.parse_args([str(config), '--compile']))
    assert cfg.default_hooks.speed == dict(type='mmslip.SpeedHook', compile=True)
