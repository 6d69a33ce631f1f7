"""Recomputed blocks: the same gradients from fewer kept activations."""

import copy
from types import SimpleNamespace

import pytest
import torch

from mmslip.engine import GradientCheckpointHook
from mmslip.models import SLIP


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
    GradientCheckpointHook().before_train(SimpleNamespace(model=recomputed))
    grads, kept = step(plain)
    same, fewer = step(recomputed)
    for name, grad in grads.items():
        torch.testing.assert_close(same[name], grad, rtol=1e-10, atol=1e-14, msg=name)
    assert fewer < 0.6 * kept
    assert recomputed.state_dict().keys() == plain.state_dict().keys()


def test_a_copy_recomputes_with_its_own_weights(make_slip):
    model = make_slip()
    GradientCheckpointHook().before_train(SimpleNamespace(model=model))
    other = copy.deepcopy(model)
    with torch.no_grad():
        for param in other.backbone.layers.parameters():
            param.zero_()
    x = torch.randn(2, 5, 32)
    torch.testing.assert_close(other.backbone.layers[0](x), x)  # the residual path alone
    assert not torch.allclose(model.backbone.layers[0](x), x)


def test_other_blocks_by_name(make_slip):
    model = make_slip(
        backbone=dict(type='ResNet', depth=18),
        neck=dict(type='mmslip.LinearProjection', in_channels=512, out_channels=16),
        ssl=None,
    )
    with pytest.raises(ValueError, match=r'no block of type Bottle:.* hold BasicBlock'):
        GradientCheckpointHook(['Bottle']).before_train(SimpleNamespace(model=model))
    GradientCheckpointHook(['BasicBlock']).before_train(SimpleNamespace(model=model))
    changed = [name for name, part in model.named_modules() if 'forward' in vars(part)]
    blocks = [f'layer{stage}.{block}' for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert changed == [f'backbone.{block}' for block in blocks]
