"""Additions of mmslip to the image tower: dropped patches, smaller views."""

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.models import VisionTransformer as MMPretrainVisionTransformer
from torch import Tensor, nn

from mmslip.models.backbones import PatchConv2d, PatchDropout, VisionTransformer

ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)


def vit(**changes: object) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(**{**dict(arch=ARCH, img_size=32, patch_size=8), **changes})
    model.init_weights()
    model.train()
    return model


def images(size: int = 32, number: int = 3) -> Tensor:
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(('prob', 'kept'), [(0.5, 8), (0.75, 4), (0.3, 11), (0.99, 1)])
def test_each_image_keeps_its_own_patches_in_place(prob, kept):
    """Tokens that tell image and place, so that the output says what was kept."""
    torch.manual_seed(0)
    number, length = 50, 2 + 16
    x = (torch.arange(number)[:, None] * 100 + torch.arange(length)).float()  # (B, 2 + N)
    x = x[..., None].expand(-1, -1, 3)
    out = PatchDropout(prob, num_extra_tokens=2)(x)
    assert out.shape == (number, 2 + kept, 3)
    assert (out == out[..., :1]).all()
    row, place = out[..., 0] // 100, out[..., 0] % 100
    assert (row == torch.arange(number)[:, None]).all()
    assert (place[:, :2] == torch.arange(2)).all()
    chosen = [frozenset(places.tolist()) for places in place[:, 2:].long()]
    assert all(len(places) == kept and min(places) >= 2 for places in chosen)
    assert len(set(chosen)) > 10


def test_every_patch_is_kept_equally_often():
    torch.manual_seed(0)
    number, patches, prob = 20000, 8, 0.25
    place = torch.arange(1 + patches).float()[None, :, None].expand(number, -1, 1)
    out = PatchDropout(prob)(place)
    share = torch.bincount(out.flatten().long(), minlength=1 + patches) / number
    assert share[0] == 1
    # Four standard errors of a share of 0.75 among 20,000.
    torch.testing.assert_close(share[1:], torch.full((patches,), 0.75), rtol=0, atol=0.0125)


def test_patch_dropout_is_for_training_and_has_no_weights():
    plain, dropping = vit(), vit(patch_dropout=0.5)
    assert plain.state_dict().keys() == dropping.state_dict().keys()
    dropping.load_state_dict(plain.state_dict())
    lengths = []
    hook = lambda block, inputs: lengths.append(inputs[0].shape[1])  # noqa: E731
    dropping.layers[0].register_forward_pre_hook(hook)
    first, second = dropping(images())[-1], dropping(images())[-1]
    assert not torch.allclose(first, second)
    dropping.eval()
    # The plain tower is in training mode: 0 drops nothing.
    torch.testing.assert_close(dropping(images()), plain(images()))
    assert lengths == [9, 9, 17]


def test_positions_are_those_of_the_kept_patches():
    model = vit(patch_dropout=0.9)  # 2 of 16 remain
    torch.manual_seed(3)
    out = model(images(number=1))[-1]
    torch.manual_seed(3)
    kept = torch.rand(1, 16).topk(2).indices[0] + 1
    tokens = model.patch_embed(images(number=1))[0]
    tokens = torch.cat([model.cls_token, tokens], dim=1) + model.pos_embed
    tokens = tokens[:, [0, *kept.tolist()]]
    for layer in model.layers:
        tokens = layer(tokens)
    torch.testing.assert_close(out, model.ln1(tokens)[:, 0])


def test_gradients_reach_the_kept_patches_only():
    module = PatchDropout(0.5)
    x = torch.randn(4, 9, 3, requires_grad=True)
    module(x).sum().backward()
    per_token = x.grad.amax(2)
    assert set(per_token.flatten().tolist()) == {0.0, 1.0}
    assert (per_token.sum(1) == 1 + 4).all()


@pytest.mark.parametrize('prob', [-0.1, 1.0])
def test_impossible_shares_are_refused(prob):
    with pytest.raises(ValueError, match=r'must be in \[0, 1\), not'):
        vit(patch_dropout=prob)


def test_a_feature_map_has_no_place_for_dropped_patches():
    with pytest.raises(ValueError, match='leaves no feature map'):
        vit(patch_dropout=0.5, out_type='featmap')
    assert vit(patch_dropout=0.5, out_type='avg_featmap')(images())[-1].shape == (3, 16)


def test_smaller_views_get_resized_positions():
    model = vit()
    grid = model.pos_embed[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=(2, 2), mode='bicubic').flatten(2).transpose(1, 2)
    small = vit(img_size=16)
    state = {**model.state_dict(), 'pos_embed': torch.cat([model.pos_embed[:, :1], resized], 1)}
    small.load_state_dict(state)
    torch.testing.assert_close(model(images(16)), small(images(16)))


@pytest.mark.parametrize(
    'changes',
    [
        dict(),
        dict(drop_path_rate=0.5, layer_scale_init_value=0.3),
        dict(qkv_bias=False, layer_cfgs=dict(ffn_type='swiglu_fused')),
    ],
)
def test_the_last_block_gives_the_class_token_of_a_whole_block(changes):
    """Values, gradients and drop path of mmpretrain's block, which transforms all tokens."""
    last, whole = vit(**changes).double(), vit(**changes).double()
    whole.layers[-1].__class__ = type(whole.layers[0])
    assert type(last.layers[-1]) is not type(whole.layers[-1])
    shapes, outputs = [], []
    for model in (last, whole):
        hook = lambda block, inputs, out: shapes.append(out.shape)  # noqa: E731
        model.layers[-1].register_forward_hook(hook)
        torch.manual_seed(1)
        out = model(images().double())[-1]
        (out * torch.arange(out.numel()).view_as(out)).sum().backward()
        outputs.append((out, [param.grad for param in model.parameters()]))
    assert shapes == [(3, 1, 16), (3, 17, 16)]
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    'changes', [dict(out_type='raw'), dict(out_type='avg_featmap'), dict(out_indices=[0, 1])]
)
def test_other_outputs_get_all_tokens(changes):
    model = vit(**changes)
    lengths = []
    model.layers[-1].register_forward_hook(lambda block, x, out: lengths.append(out.shape[1]))
    assert model(images())[-1].shape[-1] == 16
    assert lengths == [17]


def count_fused_attention(model: nn.Module, run, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Arguments of every call of PyTorch's fused attention."""
    calls = []
    original = F.scaled_dot_product_attention

    def record(q: Tensor, k: Tensor, v: Tensor, **options: object) -> Tensor:
        calls.append(options)
        return original(q, k, v, **options)

    monkeypatch.setattr(F, 'scaled_dot_product_attention', record)
    for module in model.modules():
        # mmpretrain keeps the function in each layer.
        if getattr(module, 'scaled_dot_product_attention', None) is original:
            module.scaled_dot_product_attention = record
    run()
    return calls


def test_all_attention_is_fused(make_slip, monkeypatch):
    model = make_slip()
    text = torch.tensor([[48, 5, 49407], [48, 49407, 0]])
    calls = count_fused_attention(model, lambda: model.encode_text(text), monkeypatch)
    first, last = calls
    assert first == dict(is_causal=True)
    # One query a caption, its end-of-text token, which sees what is before it.
    assert last['attn_mask'].flatten(1).tolist() == [[True, True, True], [True, True, False]]
    calls = count_fused_attention(model, lambda: model.encode_image(images()), monkeypatch)
    assert calls == 2 * [dict(dropout_p=0.0)]


@pytest.mark.parametrize('changes', [{}, dict(out_type='avg_featmap', layer_scale_init_value=0.3)])
def test_values_and_gradients_of_mmpretrain(changes):
    model = vit(**changes).double()
    other = MMPretrainVisionTransformer(ARCH, img_size=32, patch_size=8, **changes).double()
    other.load_state_dict(model.state_dict())
    inputs, found = images().double(), []
    for tower in (model, other):
        output = tower(inputs)[-1]
        output.square().sum().backward()
        found.append([output, *(param.grad for param in tower.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('size', [(24, 40), (31, 26)])  # the second has edges that are no patch
@pytest.mark.parametrize('bias', [True, False])
def test_patches_as_a_matrix_product(size, bias):
    torch.manual_seed(0)
    ours = PatchConv2d(3, 5, kernel_size=(8, 4), stride=(8, 4), bias=bias).double()
    plain = nn.Conv2d(3, 5, kernel_size=(8, 4), stride=(8, 4), bias=bias).double()
    plain.load_state_dict(ours.state_dict())
    found = []
    for layer in (ours, plain):
        x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1)).double()
        output = layer(x.requires_grad_())
        output.square().sum().backward()
        found.append([output, x.grad, *(param.grad for param in layer.parameters())])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_patches_that_overlap_need_a_convolution():
    with pytest.raises(ValueError, match="need conv_type='Conv2d' in patch_cfg"):
        vit(patch_cfg=dict(stride=4))
    assert type(vit(patch_cfg=dict(conv_type='Conv2d')).patch_embed.projection) is nn.Conv2d
