"""Tests of the parameter groups and of bfloat16 training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import Tensor, nn

from mmslip.engine import BF16OptimWrapper, NoDecay1dOptimWrapperConstructor
from mmslip.models import SLIP
from mmslip.weights import FORMATS

OPTIMIZER = dict(type='AdamW', lr=1e-3, weight_decay=0.1)


def groups_by_name(model: nn.Module) -> list[tuple[float, list[str]]]:
    """Weight decay and parameter names of each group."""
    cfg = dict(constructor='mmslip.NoDecay1dOptimWrapperConstructor', optimizer=OPTIMIZER)
    wrapper = build_optim_wrapper(model, cfg)
    names = {id(param): name for name, param in model.named_parameters()}
    return [
        (group['weight_decay'], [names[id(param)] for param in group['params']])
        for group in wrapper.optimizer.param_groups
    ]


def official_names(vision_layers: int, text_layers: int) -> list[str]:
    """All parameter names of the official SLIP, written down here."""
    pair = ['weight', 'bias']
    names = ['image_projection', 'text_projection', 'logit_scale', 'positional_embedding']
    names += ['token_embedding.weight', 'visual.cls_token', 'visual.pos_embed']
    modules = ['visual.patch_embed.proj', 'visual.norm', 'ln_final']
    modules += [f'image_mlp.{name}' for name in ('layer1', 'bn1', 'layer2', 'bn2', 'layer3')]
    for layer in range(vision_layers):
        parts = ('norm1', 'attn.qkv', 'attn.proj', 'norm2', 'mlp.fc1', 'mlp.fc2')
        modules += [f'visual.blocks.{layer}.{part}' for part in parts]
    for layer in range(text_layers):
        block = f'transformer.resblocks.{layer}'
        names += [f'{block}.attn.in_proj_{kind}' for kind in pair]
        parts = ('attn.out_proj', 'ln_1', 'ln_2', 'mlp.c_fc', 'mlp.c_proj')
        modules += [f'{block}.{part}' for part in parts]
    return names + [f'{module}.{kind}' for module in modules for kind in pair]


def test_two_groups_by_the_official_rule(make_slip: Callable[..., SLIP]) -> None:
    model = make_slip()
    (decay, decayed), (no_decay, kept) = groups_by_name(model)
    assert (decay, no_decay) == (0.1, 0.0)
    params = dict(model.named_parameters())
    assert sorted(decayed + kept) == sorted(params)

    expected = {True: set(), False: set()}
    for official in official_names(2, 2):
        (ours,), _ = FORMATS['official_slip'].to_mmslip({official: torch.zeros(1)})
        spared = params[ours].ndim < 2 or any(part in official for part in ('bias', 'ln', 'bn'))
        expected[not spared].add(ours)
    assert set(decayed) == expected[True]
    assert set(kept) == expected[False]

    named = {'backbone.cls_token', 'backbone.pos_embed', 'neck.weight', 'text_neck.weight'}
    named |= {'text_backbone.pos_embed', 'text_backbone.token_embedding.weight'}
    assert named <= set(decayed)
    assert {'head.logit_scale', 'ssl.neck.bn0.weight', 'backbone.ln1.weight'} <= set(kept)


def test_learning_rates_by_depth(make_slip: Callable[..., SLIP]) -> None:
    """Two towers of two blocks each, and half the rate for each layer further down."""
    model = make_slip()
    cfg = dict(
        constructor='mmslip.NoDecay1dOptimWrapperConstructor',
        optimizer=OPTIMIZER,
        paramwise_cfg=dict(layer_decay_rate=0.5),
    )
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    params = {id(param): name for name, param in model.named_parameters()}
    found = {
        params[id(param)]: (group['lr'], group['weight_decay'])
        for group in groups
        for param in group['params']
    }
    expected = {
        'backbone.cls_token': 1.25e-4,
        'backbone.pos_embed': 1.25e-4,
        'backbone.patch_embed.': 1.25e-4,
        'backbone.layers.0.': 2.5e-4,
        'backbone.layers.1.': 5e-4,
        'backbone.ln1.': 1e-3,
        'text_backbone.token_embedding.': 1.25e-4,
        'text_backbone.pos_embed': 1.25e-4,
        'text_backbone.layers.0.': 2.5e-4,
        'text_backbone.layers.1.': 5e-4,
        'text_backbone.ln_final.': 1e-3,
        'neck.': 1e-3,
        'text_neck.': 1e-3,
        'head.': 1e-3,
        'ssl.': 1e-3,
    }
    assert found.keys() == set(params.values())
    for name, (lr, decay) in found.items():
        (rate,) = [rate for start, rate in expected.items() if name.startswith(start)]
        assert lr == pytest.approx(rate), name
        assert decay == (0.1 if model.get_parameter(name).ndim >= 2 else 0.0), name
    assert len(groups) == 8  # four rates, with and without decay


def test_learning_rates_of_parts(make_slip: Callable[..., SLIP]) -> None:
    cfg = dict(constructor='mmslip.NoDecay1dOptimWrapperConstructor', optimizer=OPTIMIZER)
    model = make_slip()
    cfg['paramwise_cfg'] = dict(layer_decay_rate=0.5, lr_mult=dict(ssl=40.0, backbone=2.0))
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    rates = {id(param): group['lr'] for group in groups for param in group['params']}
    found = {name: rates[id(param)] for name, param in model.named_parameters()}
    assert found['ssl.neck.fc0.weight'] == pytest.approx(40 * 1e-3)
    assert found['neck.weight'] == pytest.approx(1e-3)
    assert found['backbone.ln1.weight'] == pytest.approx(2 * 1e-3)
    assert found['backbone.cls_token'] == pytest.approx(2 * 1.25e-4)
    cfg['paramwise_cfg'] = dict(lr_mult=dict(sll=40.0))
    with pytest.raises(ValueError, match=r'lr_mult names sll, which is no part .* backbone, neck'):
        build_optim_wrapper(model, cfg)


def test_depth_has_to_be_known() -> None:
    model = nn.ModuleDict(dict(backbone=nn.Linear(3, 3)))
    cfg = dict(
        constructor='mmslip.NoDecay1dOptimWrapperConstructor',
        optimizer=OPTIMIZER,
        paramwise_cfg=dict(layer_decay_rate=0.5),
    )
    with pytest.raises(ValueError, match=r'backbone \(Linear\).*has no get_layer_depth'):
        build_optim_wrapper(model, cfg)


def test_frozen_parameters_are_left_out(make_slip: Callable[..., SLIP]) -> None:
    model = make_slip()
    model.text_backbone.requires_grad_(False)
    model.head.logit_scale.requires_grad = False
    (_, decayed), (_, kept) = groups_by_name(model)
    trained = {name for name, param in model.named_parameters() if param.requires_grad}
    assert {*decayed, *kept} == trained
    assert len(decayed) + len(kept) == len(trained) == len(dict(model.named_parameters())) - 29


def test_shared_parameter_stands_once() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    (_, decayed), (_, kept) = groups_by_name(nn.Sequential(first, second))
    assert decayed == ['0.weight']
    assert kept == ['0.bias', '1.bias']


def test_decay_acts_on_the_first_group_only(make_slip: Callable[..., SLIP]) -> None:
    model = make_slip()
    cfg = dict(
        constructor='mmslip.NoDecay1dOptimWrapperConstructor',
        optimizer=dict(type='SGD', lr=0.5, weight_decay=0.2),
    )
    wrapper = build_optim_wrapper(model, cfg)
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    wrapper.step()
    for name, param in model.named_parameters():
        factor = 0.9 if param.ndim >= 2 else 1.0
        torch.testing.assert_close(param.detach(), factor * before[name], msg=name)


def test_paramwise_cfg_is_refused() -> None:
    cfg = dict(
        constructor='mmslip.NoDecay1dOptimWrapperConstructor',
        optimizer=OPTIMIZER,
        paramwise_cfg=dict(norm_decay_mult=0.0),
    )
    with pytest.raises(
        ValueError,
        match=r"paramwise_cfg but layer_decay_rate and lr_mult \(got .*norm_decay_mult.*mmengine's",
    ):
        build_optim_wrapper(nn.Linear(2, 2), cfg)
    rest = dict(type='OptimWrapper', optimizer=OPTIMIZER)
    assert NoDecay1dOptimWrapperConstructor(rest, {})(nn.Linear(2, 2)).optimizer.param_groups


def make_batch(size: int = 8) -> dict:
    """One batch of noise images and different captions."""
    generator = torch.Generator().manual_seed(0)

    def images() -> Tensor:
        return torch.randint(0, 256, (size, 3, 32, 32), generator=generator, dtype=torch.uint8)

    text = torch.zeros(size, 16, dtype=torch.int64)
    text[:, 0], text[:, 6] = 49406, 49407
    text[:, 1:6] = torch.randint(1, 49000, (size, 5), generator=generator)
    view = images()
    # Two views of an image have something in common.
    views = [view, (view.int() // 2 + images().int() // 2).to(torch.uint8)]
    return dict(inputs=dict(image=images(), views=views, text=text))


def test_context_computes_in_bfloat16() -> None:
    layer = nn.Linear(4, 4)
    wrapper = BF16OptimWrapper(torch.optim.SGD(layer.parameters(), lr=0.1))
    x = torch.rand(2, 4)
    with wrapper.optim_context(layer):
        inside = layer(x)
    assert inside.dtype == torch.bfloat16
    torch.testing.assert_close(inside.float(), layer(x), rtol=0.02, atol=0.02)
    assert layer(x).dtype == torch.float32
    inside.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_accumulation_skips_gradient_synchronisation() -> None:
    done, skipped = [], []

    class Wrapped(nn.Linear):
        @contextmanager
        def no_sync(self) -> Iterator[None]:
            skipped.append(len(done))
            yield

    model = Wrapped(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = BF16OptimWrapper(optimizer, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    for step in range(4):
        with wrapper.optim_context(model):
            loss = model(torch.ones(1, 2)).float().sum()
        wrapper.update_params(loss)
        done.append(step)
    assert skipped == [0, 2]


def test_losses_are_float32_and_near_full_precision(make_slip: Callable[..., SLIP]) -> None:
    model = make_slip()
    data = model.data_preprocessor(make_batch(), True)
    full = model(**data, mode='loss')
    wrapper = BF16OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    with wrapper.optim_context(model):
        mixed = model(**data, mode='loss')
        assert model.encode_image(data['inputs']['image']).dtype == torch.bfloat16
    for name in ('loss_clip', 'loss_ssl', 'logit_scale'):
        assert mixed[name].dtype == torch.float32
        torch.testing.assert_close(mixed[name], full[name], rtol=0.05, atol=0.02)
    assert mixed['loss_clip'] != full['loss_clip']


def test_training_with_accumulation_lowers_the_loss(make_slip: Callable[..., SLIP]) -> None:
    model = make_slip()
    cfg = dict(
        type='mmslip.BF16OptimWrapper',
        constructor='mmslip.NoDecay1dOptimWrapperConstructor',
        optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.1),
        accumulative_counts=2,
    )
    wrapper = build_optim_wrapper(model, cfg)
    assert type(wrapper) is BF16OptimWrapper
    wrapper.initialize_count_status(model, 0, 16)
    batch = make_batch()
    logs = []
    for step in range(16):
        before = model.neck.weight.detach().clone()
        logs.append(model.train_step(batch, wrapper))
        # Every second step updates.
        assert model.neck.weight.equal(before) is (step % 2 == 0)
    assert all(torch.isfinite(log['loss']) for log in logs)
    assert logs[0]['loss_clip'].item() == pytest.approx(2.08, abs=1.5)  # ln 8, at a scale of 14
    assert logs[-1]['loss_clip'] < logs[0]['loss_clip'] - 0.8
    assert logs[-1]['loss_ssl'] < logs[0]['loss_ssl'] - 0.2
    total = logs[-1]['loss_clip'] + logs[-1]['loss_ssl']
    torch.testing.assert_close(logs[-1]['loss'], total)


def test_fused_adamw_is_adamw(make_slip: Callable[..., SLIP]) -> None:
    """Both groups, over some steps; and a step that ``found_inf`` forbids changes nothing."""
    models, wrappers = [], []
    for fused in (True, False):
        models.append(make_slip())
        optimizer = dict(type='AdamW', lr=1e-2, weight_decay=0.1, betas=(0.9, 0.98), fused=fused)
        cfg = dict(constructor='mmslip.NoDecay1dOptimWrapperConstructor', optimizer=optimizer)
        wrappers.append(build_optim_wrapper(models[-1], cfg))
    for step in range(4):
        torch.manual_seed(step)
        for params in zip(*(model.parameters() for model in models), strict=True):
            grad = torch.randn_like(params[0])
            for param in params:
                param.grad = grad.clone()
        for wrapper in wrappers:
            wrapper.step()
    before = make_slip().state_dict()
    for name, param in models[0].named_parameters():
        torch.testing.assert_close(param, models[1].get_parameter(name), rtol=1e-5, atol=1e-6)
        assert not torch.equal(param, before[name])

    kept = {name: param.clone() for name, param in models[0].named_parameters()}
    wrappers[0].optimizer.found_inf = torch.ones(())
    wrappers[0].step()
    assert all(torch.equal(param, kept[name]) for name, param in models[0].named_parameters())
