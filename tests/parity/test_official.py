"""Our numbers against those of the official code, on its own tiny random checkpoints."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import Tensor

from mmslip.models import SLIP
from mmslip.registry import MODELS
from mmslip.weights import FORMATS, recognise
from mmslip.weights.files import state_dict_of
from mmslip.weights.safe import load_checkpoint_file

KINDS = ('slip', 'clip', 'simclr')
DATA = Path(__file__).parents[1] / 'data'
SHARED = Path(__file__).parents[2].parent / 'shared' / 'parity'

VISION = dict(
    type='mmslip.VisionTransformer',
    arch=dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=192),
    img_size=32,
    patch_size=8,
)
LANGUAGE = dict(
    neck=dict(type='mmslip.LinearProjection', in_channels=48, out_channels=24),
    text_backbone=dict(
        type='mmslip.TextTransformer', vocab_size=512, width=32, num_layers=2, num_heads=4
    ),
    text_neck=dict(type='mmslip.LinearProjection', in_channels=32, out_channels=24),
    head=dict(type='mmslip.CLIPHead'),
)
SSL = dict(
    type='mmslip.SimCLR',
    neck=dict(
        type='NonLinearNeck',
        in_channels=48,
        hid_channels=64,
        out_channels=16,
        num_layers=3,
        with_bias=True,
        with_last_bias=True,
        with_last_bn=False,
        with_avg_pool=False,
        norm_cfg=dict(type='BN1d'),
    ),
    head=dict(type='mmslip.SimCLRHead'),
)


ZERO_GRADIENTS = dict(
    slip={'ssl.neck.fc0.bias', 'ssl.neck.fc1.bias'},
    clip=set(),
    simclr={'backbone.ln1.bias', 'ssl.neck.fc0.bias', 'ssl.neck.fc1.bias'},
)


def find(name: str) -> Path:
    """A reference file: SLIP's is part of the repository, the others are not."""
    for folder in (DATA, SHARED):
        if (folder / name).is_file():
            return folder / name
    pytest.skip(f'{name} is only in the shared folder beside the checkout, which is absent')


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def expected(kind: str) -> Callable[[str], Tensor]:
    arrays = np.load(find(f'{kind}_vit-tiny_expected.npz'))
    return lambda name: torch.from_numpy(arrays[name])


@pytest.fixture
def model(kind: str, device: str) -> SLIP:
    cfg = dict(type='mmslip.SLIP', backbone=VISION)
    if kind != 'simclr':
        cfg.update(LANGUAGE)
    if kind != 'clip':
        cfg.update(ssl=SSL)
    model = MODELS.build(cfg)
    checkpoint = load_checkpoint_file(find(f'{kind}_vit-tiny_official.pt'))
    official, weights, _ = recognise(state_dict_of(checkpoint))
    state_dict, left_out = official.to_mmslip(weights)
    assert left_out == []
    model.load_state_dict(state_dict, strict=True)
    return model.to(device)


def batch(kind: str, step: int, device: str = 'cpu') -> dict:
    """The inputs of a step, drawn as the reference drew them."""
    generator = torch.Generator().manual_seed(1 + step)
    image, *views = (torch.randn(8, 3, 32, 32, generator=generator) for _ in range(3))
    text = torch.zeros(8, 77, dtype=torch.int64)
    for row in text:
        length = int(torch.randint(3, 20, (1,), generator=generator))
        row[0], row[length + 1] = 510, 511
        row[1 : length + 1] = torch.randint(1, 510, (length,), generator=generator)
    image, text, *views = (part.to(device) for part in (image, text, *views))
    language = {} if kind == 'simclr' else dict(image=image, text=text)
    return language | ({} if kind == 'clip' else dict(views=views))


def total(losses: dict[str, Tensor]) -> Tensor:
    return sum(value for name, value in losses.items() if 'loss' in name)


def test_inputs_are_the_references(kind, expected):
    inputs = batch(kind, step=0)
    if kind != 'simclr':
        torch.testing.assert_close(inputs['image'], expected('in/image'), rtol=0, atol=1e-5)
        assert torch.equal(inputs['text'], expected('in/text'))
    if kind != 'clip':
        torch.testing.assert_close(inputs['views'][0], expected('in/aug1'), rtol=0, atol=1e-5)
        torch.testing.assert_close(inputs['views'][1], expected('in/aug2'), rtol=0, atol=1e-5)


def assert_close(found: Tensor, reference: Tensor, atol: float) -> None:
    torch.testing.assert_close(found.cpu(), reference, rtol=0, atol=atol)


@torch.no_grad()
def test_eval_embeddings(kind, model, device, expected):
    model.eval()
    inputs = batch(kind, 0, device)
    if kind != 'simclr':
        image_embed, text_embed = model.embed(inputs).values()
        assert_close(image_embed, expected('eval/image_embed'), 1e-5)
        assert_close(text_embed, expected('eval/text_embed'), 1e-5)
    if kind != 'clip':
        image = inputs['image'] if kind == 'slip' else inputs['views'][0]
        feats = model.backbone(image)[-1]
        assert_close(feats, expected('eval/features'), 1e-5)


@torch.no_grad()
def test_trimming_the_text_changes_no_feature(kind, model, device):
    if kind == 'simclr':
        pytest.skip('no text tower')
    model.eval()
    text = batch(kind, 0, device)['text']
    longest = int(text.argmax(-1).max()) + 1
    assert longest < 77
    torch.testing.assert_close(
        model.encode_text(text[:, :longest]), model.encode_text(text), rtol=0, atol=5e-6
    )


def test_losses_accuracies_and_gradients(kind, model, device, expected):
    losses = model.loss(batch(kind, 0, device))
    names = dict(loss_clip='clip_loss', acc_clip='clip_acc', loss_ssl='ssl_loss', acc_ssl='ssl_acc')
    compared = 0
    for ours, official in names.items():
        if ours in losses:
            reference = expected(f'train/{official}')[0].float()
            assert_close(losses[ours], reference, 1e-5)
            compared += 1
    assert compared == (4 if kind == 'slip' else 2)
    assert_close(total(losses), expected('train/loss')[0].float(), 2e-5)

    parameters = gradients(model, kind)
    exact = gradients(model.double(), kind)
    largest = max(grad.norm() for grad in exact.values())
    arrays = np.load(find(f'{kind}_vit-tiny_expected.npz'))
    norms = {name: arrays[name] for name in arrays.files if name.startswith('train/grad_norm/')}
    assert len(norms) == len(parameters)
    zero = set()
    for name, norm in norms.items():
        official = name.removeprefix('train/grad_norm/')
        (ours,), _ = FORMATS['official_slip'].to_mmslip({official: torch.zeros(1)})
        # A bias whose effect batch norm takes out again has no gradient: double precision shows a
        # zero, and float32 rounding noise that differs between processors.
        if exact[ours].norm() < 1e-12 * largest:
            zero.add(ours)
            assert max(float(norm), parameters[ours].norm()) < 1e-5 * largest, name
        else:
            assert float(parameters[ours].norm()) == pytest.approx(float(norm), rel=1e-4), name
    assert zero == ZERO_GRADIENTS[kind]


def gradients(model: SLIP, kind: str) -> dict[str, Tensor]:
    """The gradient of the first step for every parameter, in the precision of the model."""
    model.zero_grad()
    param = next(model.parameters())
    dtype, inputs = param.dtype, batch(kind, 0, param.device)
    for name in inputs.keys() - {'text'}:
        value = inputs[name]
        inputs[name] = value.to(dtype) if name == 'image' else [view.to(dtype) for view in value]
    total(model.loss(inputs)).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_five_steps(kind, model, device, expected):
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='mmslip.NoDecay1dOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1, betas=(0.9, 0.98), eps=1e-8),
        ),
    )
    rates, reference = expected('train/lr'), expected('train/loss')
    for step, rate in enumerate(rates):
        for group in wrapper.param_groups:
            group['lr'] = float(rate)
        loss = total(model.loss(batch(kind, step, device)))
        assert loss.item() == pytest.approx(reference[step].item(), rel=0, abs=1e-3), step
        wrapper.update_params(loss)
