"""Recomputed blocks: the same gradients from fewer kept activations."""

import copy
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch._dynamo.utils import counters

from mmslip.engine import SpeedHook
from mmslip.models import SLIP
from mmslip.models.blocks import find_blocks


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def recompute(model: SLIP, **options: object) -> None:
    SpeedHook(recompute=True, **options).before_train(SimpleNamespace(model=model))


def step(model: SLIP) -> tuple[dict, int]:
    """Gradients of a step, and the bytes that autograd keeps for it."""
    generator = torch.Generator().manual_seed(1)
    image, *views = torch.randn(3, 6, 3, 32, 32, generator=generator, dtype=torch.float64)
    text = torch.randint(1, 49406, (6, 16), generator=generator)
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = model(dict(image=image, views=views, text=text), mode='loss')
    (losses['loss_clip'] + losses['loss_ssl']).backward()
    return {name: param.grad for name, param in model.named_parameters()}, sum(kept.values())


def test_gradients_are_equal_and_memory_smaller(make_slip):
    """With dropout and drop path, whose random numbers are drawn again."""
    backbone = dict(
        type='mmslip.VisionTransformer',
        arch=dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64),
        img_size=32,
        patch_size=8,
        drop_rate=0.2,
        drop_path_rate=0.3,
    )
    plain = make_slip(backbone=backbone).double()
    recomputed = copy.deepcopy(plain)
    recompute(recomputed)
    grads, kept = step(plain)
    same, fewer = step(recomputed)
    for name, grad in grads.items():
        torch.testing.assert_close(same[name], grad, rtol=1e-10, atol=1e-14, msg=name)
    assert fewer < 0.6 * kept
    assert recomputed.state_dict().keys() == plain.state_dict().keys()


def test_a_copy_recomputes_with_its_own_weights(make_slip):
    model = make_slip()
    recompute(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for param in other.backbone.layers.parameters():
            param.zero_()
    x = torch.randn(2, 5, 32)
    torch.testing.assert_close(other.backbone.layers[0](x), x)  # the residual path alone
    assert not torch.allclose(model.backbone.layers[0](x), x)


IMAGE_TOWERS = {
    'ResNet': (dict(type='ResNet', depth=18, norm_cfg=dict(type='GN', num_groups=8)), 512),
    'Swin': (
        dict(
            type='SwinTransformer',
            arch=dict(embed_dims=16, depths=[2, 2], num_heads=[1, 2]),
            img_size=64,
            window_size=4,
            out_indices=(1,),
        ),
        32,
    ),
    'ConvNeXt': (dict(type='ConvNeXt', arch='atto', drop_path_rate=0.2), 320),
}


@pytest.mark.parametrize('options', [dict(recompute=True), dict(compile=True)], ids=str)
@pytest.mark.parametrize('tower', IMAGE_TOWERS)
def test_other_image_towers_are_reached(make_slip, tower, options):
    """Beside a text tower, whose blocks alone were found; gradients are equal."""
    backbone, width = IMAGE_TOWERS[tower]
    neck = dict(type='mmslip.LinearProjection', in_channels=width, out_channels=16)
    plain = make_slip(backbone=backbone, neck=neck, ssl=None).double()
    quick = copy.deepcopy(plain)
    SpeedHook(**options, backend='aot_eager').before_train(SimpleNamespace(model=quick))
    changed = [name for name, part in quick.named_modules() if 'forward' in vars(part)]
    assert changed == list(find_blocks(plain))
    assert {name.partition('.')[0] for name in changed} == {'backbone', 'text_backbone'}
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(4, 3, 64, 64, generator=generator, dtype=torch.float64)
    text = torch.randint(1, 49406, (4, 16), generator=generator)
    passes = Counter()
    for name in changed:
        # Within what is recomputed or compiled, the block's own parts run.
        layer = [part for part in quick.get_submodule(name).modules() if not any(part.children())]
        layer[0].register_forward_pre_hook(lambda *_, name=name: passes.update([name]))
    grads = []
    for model in (plain, quick):
        torch.manual_seed(2)
        model(dict(image=image, text=text), mode='loss')['loss_clip'].backward()
        grads.append({name: param.grad for name, param in model.named_parameters()})
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-8, atol=1e-12)
    if 'recompute' in options:
        assert passes == dict.fromkeys(changed, 2)
    else:
        assert not counters['graph_break']
        assert counters['stats']['unique_graphs'] > 2  # those of the text tower


def test_other_blocks_by_name(make_slip):
    """Those of one tower are named; those of the other are found as ever."""
    model = make_slip(
        backbone=dict(type='ResNet', depth=18),
        neck=dict(type='mmslip.LinearProjection', in_channels=512, out_channels=16),
        ssl=None,
    )
    with pytest.raises(ValueError, match=r'no block of type Bottle\..* BasicBlock'):
        recompute(model, block_types=['Bottle'])
    recompute(model, block_types=['ResLayer'])
    changed = [name for name, part in model.named_modules() if 'forward' in vars(part)]
    stages = [f'backbone.layer{stage}' for stage in (1, 2, 3, 4)]
    assert changed == [*stages, *(f'text_backbone.layers.{block}' for block in (0, 1))]


def test_batch_norm_counts_a_step_once(make_slip):
    """Though its forward pass runs twice: statistics are those without recomputation."""
    model = make_slip(backbone=dict(type='ResNet', depth=18)).double()
    again = copy.deepcopy(model)
    recompute(again)
    expected, _ = step(model)
    got, _ = step(again)
    for name, grad in expected.items():
        torch.testing.assert_close(got[name], grad)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert int(again.backbone.bn1.num_batches_tracked) > 0
