"""Every self-supervised half with every head and every kind of image tower, and what cannot be."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.runner import load_checkpoint, save_checkpoint
from torch import Tensor, nn

from mmslip.models.necks import pool
from mmslip.registry import MODELS
from tests.configs.grid import (
    GRID,
    HALVES,
    IMAGE,
    ROOT,
    SHIPPED,
    batch_of,
    build,
    is_possible,
    load,
    parts_of,
    reached,
    shrink,
    text_of,
)


def write_frozen(path: Path, half: str, folder: Path) -> dict[str, Tensor]:
    """A checkpoint with the image tower of a cell."""
    donor = build(load(text_of(half, 'InfoNCE', 'ViT'), folder)).backbone
    for param in donor.parameters():
        nn.init.normal_(param, std=0.2)
    state = donor.state_dict()
    save_checkpoint(dict(state_dict={f'backbone.{name}': state[name] for name in state}), str(path))
    return state


@pytest.mark.parametrize(('half', 'head', 'tower'), GRID, ids=['-'.join(cell) for cell in GRID])
def test_cell(half, head, tower, tmp_path):
    """A cell takes a step, and each half moves what it should and nothing else."""
    if tower == 'timm':
        pytest.importorskip('timm', reason='timm is not installed')
    text = text_of(half, head, tower, str(tmp_path / 'frozen.pth'))
    assert len(text.splitlines()) <= 15
    cfg = load(text, tmp_path)
    if not is_possible(half, tower):
        message = f'MAE.* needs a backbone of type MAEViT .*; {cfg.model.backbone.type} does not'
        with pytest.raises(ValueError, match=message):
            build(cfg)
        return
    frozen = write_frozen(tmp_path / 'frozen.pth', half, tmp_path) if tower == 'LiT' else {}
    model = build(cfg)
    if cfg.get('load_from'):
        load_checkpoint(model, cfg.load_from)  # as the runner does

    batch = batch_of(cfg)
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    language = {'neck', 'text_backbone', 'text_neck', 'head'}
    image = set() if frozen else {'backbone'}
    selfsup = set() if half == 'none' else {'ssl'}
    assert reached(losses['loss_clip'], model) == language | image
    if selfsup:
        assert reached(losses['loss_ssl'], model) == selfsup | image

    before = {name: value.clone() for name, value in model.state_dict().items()}
    logs = model.train_step(batch, build_optim_wrapper(model, cfg.optim_wrapper))
    assert {name for name in logs if name.startswith('loss_')} == {'loss_clip'} | (
        {'loss_ssl'} if selfsup else set()
    )
    assert all(torch.as_tensor(value).isfinite() for value in logs.values())
    after = model.state_dict()
    moved = [name for name, value in after.items() if not torch.equal(value, before[name])]
    assert parts_of(moved) == language | image | selfsup
    for name, value in frozen.items():
        assert torch.equal(after[f'backbone.{name}'], value), name


@pytest.mark.parametrize(('cell', 'path'), SHIPPED.items(), ids=SHIPPED.values())
def test_shipped_configs_are_cells(cell, path, tmp_path):
    shipped = ROOT / 'configs' / path
    assert len(shipped.read_text().splitlines()) <= 20
    ours, theirs = Config.fromfile(shipped), load(text_of(*cell), tmp_path)
    for cfg in (ours, theirs):
        if 'frozen' in cfg.model:
            cfg.model.backbone.init_cfg.checkpoint = None
    assert ours.model == theirs.model


@pytest.mark.parametrize(
    ('tower', 'width'), [('ResNet', 2048), ('Swin', 768), ('ConvNeXt', 768), ('timm', 768)]
)
def test_widths_are_those_of_the_backbones(tower, width, tmp_path):
    """At full size, which the cells shrink."""
    if tower == 'timm':
        pytest.importorskip('timm', reason='timm is not installed')
    cfg = load(text_of('SimCLR', 'InfoNCE', tower), tmp_path).model
    cfg.text_backbone.update(width=64, num_layers=1)
    model = MODELS.build(cfg)
    assert model.neck.weight.shape == (width, 512)
    assert model.text_neck.weight.shape == (64, 512)
    assert model.ssl.neck.fc0.in_features == width
    feature = pool(model.backbone.to('meta')(torch.empty(1, 3, 224, 224, device='meta')))
    assert feature.shape == (1, width)


@pytest.mark.parametrize('chunk_size', [None, 3])
@pytest.mark.parametrize(('half', 'copy'), [('MoCoV3', 'momentum_encoder'), ('BYOL', 'target_net')])
def test_momentum_copies(half, copy, chunk_size, tmp_path):
    """They stand in the state dict under `ssl.`, and hold what the online tower was a step ago."""
    cfg = load(text_of(half, 'InfoNCE', 'ViT'), tmp_path)
    cfg.model.chunk_size = chunk_size
    model = build(cfg)
    MessageHub.get_current_instance().update_info('max_iters', 4)
    online = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    for momentum in (1.0, cfg.model.ssl.base_momentum * (1 + math.cos(math.pi / 4)) / 2):
        expected = online
        if momentum < 1:
            now = model.backbone.state_dict()
            expected = {name: value.lerp(now[name], momentum) for name, value in online.items()}
        model.train_step(batch_of(cfg), wrapper)
        state = model.state_dict()
        for name, value in expected.items():
            torch.testing.assert_close(state[f'ssl.{copy}.module.0.{name}'], value)
    assert not any(name.startswith('ssl.backbone') for name in state)
    assert not any(param.requires_grad for param in getattr(model.ssl, copy).parameters())


def test_mae_refuses_two_views(tmp_path):
    cfg = load(text_of('MAE', 'InfoNCE', 'ViT'), tmp_path)
    batch = batch_of(cfg)
    batch['inputs']['views'] *= 2
    model = build(cfg)
    with pytest.raises(ValueError, match=r"'MAE' takes 1 view .* the pipeline makes 2"):
        model(**model.data_preprocessor(batch, training=True), mode='loss')


def test_mlp_projection_reads_what_pool_finds():
    settings = dict(in_channels=6, hid_channels=8, out_channels=4, norm_cfg=dict(type='BN1d'))
    torch.manual_seed(0)
    ours = MODELS.build(dict(type='mmslip.MLPProjection', with_avg_pool=True, **settings))
    plain = MODELS.build(dict(type='NonLinearNeck', with_avg_pool=False, **settings))
    plain.load_state_dict(ours.state_dict())
    vector, maps, tokens = torch.randn(5, 6), torch.randn(5, 6, 3, 3), torch.randn(5, 7, 6)
    for feats, feature in ((vector, vector), (maps, maps.mean((2, 3))), (tokens, tokens[:, 0])):
        (out,) = ours((torch.zeros(5, 1), feats))
        torch.testing.assert_close(out, plain((feature,))[0])


@pytest.mark.parametrize('half', HALVES)
def test_pipelines_pack_what_the_halves_take(half, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (240, 300, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'a.jpg'), picture)
    cfg = Config.fromfile(ROOT / 'configs' / HALVES[half])
    pipeline = Compose(cfg.train_dataloader.dataset.pipeline)
    inputs = pipeline(dict(img_path=str(tmp_path / 'a.jpg'), text=['a dog']))['inputs']
    expected = {'none': 0, 'MAE': 1}.get(half, 2)
    views = inputs.get('views', [])
    assert [view.shape for view in views] == expected * [(3, 224, 224)]
    assert inputs['image'].shape == (3, 224, 224)
    # What `shrink` replaces.
    if half == 'MAE':
        backbone, ssl = cfg.model.backbone, cfg.model.ssl
        assert ssl.neck.num_patches == (224 // backbone.patch_size) ** 2
        assert ssl.neck.patch_size == ssl.head.patch_size == backbone.patch_size


def test_timm_vit(tmp_path):
    """Tokens in both halves, the class token's feature in each."""
    pytest.importorskip('timm', reason='timm is not installed')
    cfg = load(text_of('SimCLR', 'InfoNCE', 'timm'), tmp_path)
    model = shrink(cfg.model)
    model.backbone = dict(type='TIMMBackbone', model_name='test_vit', img_size=IMAGE)
    model = MODELS.build(model)
    model.init_weights()
    assert model.backbone(torch.zeros(2, 3, IMAGE, IMAGE))[-1].shape == (2, 5, 64)
    losses = model(**model.data_preprocessor(batch_of(cfg)), mode='loss')
    for name in ('loss_clip', 'loss_ssl'):
        assert 'backbone' in reached(losses[name], model)
