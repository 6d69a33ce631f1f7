"""The grid of self-supervised halves, heads and image towers, and its models in small.

A cell is a config of a few lines over a shipped one; docs/composition.md has the same lines.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from torch import Tensor, nn

from mmslip.registry import MODELS

ROOT = Path(__file__).parents[2]
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


def tower(arguments: str) -> tuple[list[str], list[str]]:
    """Changes that another backbone needs in the model, and in a two-view self-supervised half."""
    return (
        [f'backbone=dict(_delete_=True, {arguments}),'],
        ["ssl=dict(neck=dict(type='mmslip.MLPProjection')),"],
    )


TOWERS = {
    'ViT': ([], []),
    'ResNet': tower("type='ResNet', depth=50"),
    'Swin': tower("type='SwinTransformer', arch='tiny'"),
    'ConvNeXt': tower("type='ConvNeXt', arch='tiny'"),
    'timm': tower("type='TIMMBackbone', model_name='coatnet_0_rw_224'"),
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
    """Whether the half runs on the tower; it is refused otherwise."""
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
    """The same model at a sixteenth of all widths that are stated, which must still fit."""
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
        number = cfg.train_dataloader.dataset.pipeline[1].get('ssl_views', 2)
        inputs['views'] = [view() for _ in range(number)]
    return dict(inputs=inputs)


def build(cfg: Config) -> nn.Module:
    """The config's model in small, ready to train."""
    torch.manual_seed(0)
    # Momentum encoders follow a cosine over the training, which a runner announces.
    MessageHub.get_current_instance().update_info('max_iters', 2)
    model = MODELS.build(shrink(cfg.model))
    model.init_weights()
    return model.train()


def parts_of(names: Iterable[str]) -> set[str]:
    """The parts of the model that hold these parameters."""
    return {name.partition('.')[0] for name in names}


def reached(loss: Tensor, model: nn.Module) -> set[str]:
    """Parts of the model that a loss has a gradient for which is finite and not zero."""
    params = {name: param for name, param in model.named_parameters() if param.requires_grad}
    grads = torch.autograd.grad(
        loss, list(params.values()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    assert all(grad.isfinite().all() for grad in grads)
    return parts_of(name for name, grad in zip(params, grads, strict=True) if grad.any())
