"""Every self-supervised half with every head and every kind of image tower, and what cannot be.

A cell of the grid is a config of a few lines over a shipped one; docs/composition.md has the same
lines and the same table.
"""

import math
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.runner import load_checkpoint, save_checkpoint
from torch import Tensor, nn

from mmslip.models.necks import pool
from mmslip.registry import MODELS

ROOT = Path(__file__).parents[2]
DOC = ROOT / 'docs' / 'composition.md'
BATCH, IMAGE, PATCH, SHRINK = 4, 32, 8, 16

# The shipped config of each self-supervised half.
HALVES = {
    'SimCLR': 'slip/slip_vit-b16_yfcc15m.py',
    'MoCoV3': 'slip/slip_mocov3_vit-b16_yfcc15m.py',
    'BYOL': 'slip/slip_byol_vit-b16_yfcc15m.py',
    'SimSiam': 'slip/slip_simsiam_vit-b16_yfcc15m.py',
    'BarlowTwins': 'slip/slip_barlowtwins_vit-b16_yfcc15m.py',
    'MAE': 'slip/slip_mae_vit-b16_yfcc15m.py',
    'none': 'clip/clip_vit-b16_yfcc15m.py',
}
HEADS = {
    'InfoNCE': [],
    'SigLIP': ["head=dict(_delete_=True, type='mmslip.SigLIPHead'),"],
}


def tower(arguments: str, width: int) -> tuple[list[str], list[str]]:
    """What another backbone changes in the model, and in a two-view self-supervised half."""
    return (
        [f'backbone=dict(_delete_=True, {arguments}),', f'neck=dict(in_channels={width}),'],
        [f"ssl=dict(neck=dict(type='mmslip.MLPProjection', in_channels={width})),"],
    )


TOWERS = {
    'ViT': ([], []),
    'ResNet': tower("type='ResNet', depth=50", 2048),
    'Swin': tower("type='SwinTransformer', arch='tiny'", 768),
    'ConvNeXt': tower("type='ConvNeXt', arch='tiny'", 768),
    'timm': tower("type='TIMMBackbone', model_name='coatnet_0_rw_224'", 768),
    'LiT': (
        [
            "frozen=['backbone'],",
            "backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=checkpoint, "
            "prefix='backbone.')),",
        ],
        [],
    ),
}
GRID = [(half, head, tower) for half in HALVES for head in HEADS for tower in TOWERS]
UNMASKED = ('ResNet', 'Swin', 'ConvNeXt', 'timm')  # backbones that cannot leave out patches
# Shipped configs that are cells.
SHIPPED = {
    ('SimCLR', 'SigLIP', 'ViT'): 'slip/slip_siglip_vit-b16_yfcc15m.py',
    ('SimCLR', 'InfoNCE', 'Swin'): 'slip/slip_swin-tiny_yfcc15m.py',
    ('SimCLR', 'InfoNCE', 'ConvNeXt'): 'slip/slip_convnext-tiny_yfcc15m.py',
    ('SimCLR', 'InfoNCE', 'timm'): 'slip/slip_timm-coatnet-0_yfcc15m.py',
    ('none', 'InfoNCE', 'LiT'): 'clip/clip_lit_vit-b16_yfcc15m.py',
}


def is_possible(half: str, tower: str) -> bool:
    return half != 'MAE' or tower not in UNMASKED


def text_of(half: str, head: str, tower: str, checkpoint: str = 'frozen.pth') -> str:
    """The config of a cell."""
    model, neck = TOWERS[tower]
    text = f"_base_ = ['{ROOT / 'configs' / HALVES[half]}']\n"
    if tower == 'LiT' and half == 'MAE':
        # MAEViT draws its patch embedding anew behind a `Pretrained` initialisation.
        model = model[:1]
        text += f"load_from = '{checkpoint}'\n"
    elif tower == 'LiT':
        text += f"checkpoint = '{checkpoint}'\n"
    lines = [*model, *HEADS[head], *(neck if half not in ('none', 'MAE') else [])]
    return text + 'model = dict(\n' + ''.join(f'    {line}\n' for line in lines) + ')\n'


def load(text: str, folder: Path) -> Config:
    path = folder / 'cell.py'
    path.write_text(text)
    return Config.fromfile(path)


def shrink(model: ConfigDict) -> ConfigDict:
    """The same model at a sixteenth of all widths, which must still fit each other."""
    names = ('in_channels', 'hid_channels', 'out_channels', 'embed_dim', 'decoder_embed_dim')

    def visit(part: ConfigDict) -> None:
        for name, value in part.items():
            if isinstance(value, ConfigDict):
                visit(value)
            elif name in names:
                part[name] = value // SHRINK

    visit(model)
    model.text_backbone.update(vocab_size=32, context_length=8, width=32, num_layers=1, num_heads=2)
    small = dict(
        ResNet=dict(stem_channels=4, base_channels=4),
        SwinTransformer=dict(
            arch=dict(embed_dims=6, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2]),
            img_size=IMAGE,
            pad_small_map=True,  # at the last stage one pixel is left
        ),
        ConvNeXt=dict(arch=dict(depths=[1, 1, 1, 1], channels=[6, 12, 24, 48])),
        TIMMBackbone=dict(
            img_size=IMAGE,
            depths=(1, 1, 1, 1),
            embed_dim=(6, 12, 24, 48),
            stem_width=(4, 6),
            transformer_dim_head=6,
        ),
    )
    vit = dict(
        arch=dict(embed_dims=48, num_layers=1, num_heads=2, feedforward_channels=64),
        img_size=IMAGE,
        patch_size=PATCH,
    )
    model.backbone.update(small.get(model.backbone.type, vit))
    if model.get('ssl', {}).get('type') == 'MAE':
        ssl = model.ssl
        ssl.neck.update(num_patches=(IMAGE // PATCH) ** 2, patch_size=PATCH)
        ssl.neck.update(decoder_depth=1, decoder_num_heads=2)
        ssl.head.update(patch_size=PATCH)
    return model


def batch_of(cfg: Config) -> dict:
    """Random pictures and captions, as many views as the config's pipeline packs."""
    generator = torch.Generator().manual_seed(1)

    def view() -> Tensor:
        shape = (BATCH, 3, IMAGE, IMAGE)
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    text = torch.randint(1, 31, (BATCH, 8), generator=generator)
    text[:, -1] = 31  # the end token has the highest id
    inputs = dict(image=view(), text=text)
    if 'ssl' in cfg.model:
        packing = cfg.train_dataloader.dataset.pipeline[-1]
        inputs['views'] = [view() for _ in range(packing.get('ssl_views', 2))]
    return dict(inputs=inputs)


def build(cfg: Config) -> nn.Module:
    """The config's model in small, ready to train."""
    torch.manual_seed(0)
    # Momentum encoders follow a cosine over the training, which a runner announces.
    MessageHub.get_current_instance().update_info('max_iters', 2)
    model = MODELS.build(shrink(cfg.model))
    model.init_weights()
    return model.train()


def reached(loss: Tensor, model: nn.Module) -> set[str]:
    """Parts of the model that a loss has a gradient for which is finite and not zero."""
    params = {name: param for name, param in model.named_parameters() if param.requires_grad}
    grads = torch.autograd.grad(
        loss, list(params.values()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    assert all(grad.isfinite().all() for grad in grads)
    return parts_of(name for name, grad in zip(params, grads, strict=True) if grad.any())


def write_frozen(path: Path, half: str, folder: Path) -> dict[str, Tensor]:
    """A checkpoint with the image tower of a cell."""
    donor = build(load(text_of(half, 'InfoNCE', 'ViT'), folder)).backbone
    for param in donor.parameters():
        nn.init.normal_(param, std=0.2)
    state = donor.state_dict()
    save_checkpoint(dict(state_dict={f'backbone.{name}': state[name] for name in state}), str(path))
    return state


def parts_of(names: Iterable[str]) -> set[str]:
    return {name.partition('.')[0] for name in names}


@pytest.mark.parametrize(('half', 'head', 'tower'), GRID, ids=['-'.join(cell) for cell in GRID])
def test_cell(half, head, tower, tmp_path):
    """A cell takes a step, and each half moves what it should and nothing else."""
    if tower == 'timm':
        pytest.importorskip('timm', reason='timm is not installed')
    text = text_of(half, head, tower, str(tmp_path / 'frozen.pth'))
    assert len(text.splitlines()) <= 15
    cfg = load(text, tmp_path)
    if half == 'MAE' and tower in UNMASKED:
        with pytest.raises(
            ValueError, match=f'MAE needs a backbone that masks .* {cfg.model.backbone.type}'
        ):
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
    assert len(shipped.read_text().splitlines()) <= 15
    ours, theirs = Config.fromfile(shipped), load(text_of(*cell), tmp_path)
    for cfg in (ours, theirs):
        if 'frozen' in cfg.model:
            cfg.model.backbone.init_cfg.checkpoint = None
    assert ours.model == theirs.model


@pytest.mark.parametrize('tower', UNMASKED)
def test_widths_are_those_of_the_backbones(tower, tmp_path):
    """At full size, which the cells shrink."""
    if tower == 'timm':
        pytest.importorskip('timm', reason='timm is not installed')
    model = load(text_of('SimCLR', 'InfoNCE', tower), tmp_path).model
    backbone = MODELS.build(model.backbone).to('meta')
    feature = pool(backbone(torch.empty(1, 3, 224, 224, device='meta')))
    assert feature.shape == (1, model.neck.in_channels) == (1, model.ssl.neck.in_channels)


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
    with pytest.raises(ValueError, match='MAE takes one view, not 2: set `num_views'):
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


def test_timm_vit(tmp_path):
    """Tokens in both halves, the class token's feature in each."""
    pytest.importorskip('timm', reason='timm is not installed')
    cfg = load(text_of('SimCLR', 'InfoNCE', 'timm'), tmp_path)
    model = shrink(cfg.model)
    model.backbone = dict(type='TIMMBackbone', model_name='test_vit', img_size=IMAGE)
    model.neck.in_channels = model.ssl.neck.in_channels = 64
    model = MODELS.build(model)
    model.init_weights()
    assert model.backbone(torch.zeros(2, 3, IMAGE, IMAGE))[-1].shape == (2, 5, 64)
    losses = model(**model.data_preprocessor(batch_of(cfg)), mode='loss')
    for name in ('loss_clip', 'loss_ssl'):
        assert 'backbone' in reached(losses[name], model)


def table() -> str:
    """The grid as docs/composition.md shows it, with either head."""
    rows = [['', *TOWERS], [':--', *[':-:'] * len(TOWERS)]]
    for half in HALVES:
        rows.append([half, *('yes' if is_possible(half, tower) else 'error' for tower in TOWERS)])
    return ''.join(f'| {" | ".join(row)} |\n' for row in rows).replace('|  |', '| |')


def test_document_agrees():
    text = DOC.read_text(encoding='utf-8')
    assert table() in text
    lines = {line.strip() for line in text.splitlines()}
    for half, path in HALVES.items():
        assert f'configs/{path}' in text, half
    pieces = [*HEADS.values(), *(part for tower in TOWERS.values() for part in tower)]
    for piece in pieces:
        assert set(piece) <= lines, piece


def test_configs_of_the_document(tmp_path, monkeypatch):
    """The whole configs it shows build, from the folder above `configs`."""
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r'```python\n(_base_ = .*?)```', DOC.read_text(encoding='utf-8'), re.DOTALL)
    assert len(blocks) >= 2
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    for block in blocks:
        assert len(block.splitlines()) <= 15
        MODELS.build(shrink(load(block, tmp_path).model))
