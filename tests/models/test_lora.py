"""LoRA beside the layers of a tower: what trains, and that merging changes no embedding."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from mmslip.apis import init_model
from mmslip.models import SLIP
from mmslip.models.blocks import find_blocks
from mmslip.registry import MODELS
from mmslip.weights import fit_weights, import_weights
from mmslip.weights.interpolate import read_pair
from mmslip.weights.lora import merge_lora
from tests.test_training import small_config
from tests.weights.foreign_models import CLIP, shake

pytest.importorskip('peft')
BOTH = dict(backbone=dict(r=2, lora_alpha=6), text_backbone=dict(r=3))


def inputs() -> dict[str, torch.Tensor]:
    image = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return dict(image=image, text=torch.tensor([[5, 6, 9, 0], [4, 9, 0, 0], [1, 2, 3, 9]]))


def test_merged_equals_unmerged(make_slip: Callable[..., SLIP]) -> None:
    """Of all tokens and of the one that the last blocks compute alone."""
    model = shake(make_slip(lora=BOTH, ssl=None))
    plain = make_slip(ssl=None).eval()
    plain.load_state_dict(merge_lora(model.state_dict()))
    with torch.no_grad():
        adapted, merged = model.embed(inputs()), plain.embed(inputs())
        for name, value in adapted.items():
            torch.testing.assert_close(merged[name], value, rtol=1e-4, atol=1e-5)
        # Each layer of each tower has a part in it.
        for name, layer in model.named_modules():
            if hasattr(layer, 'lora_scale'):
                up = layer.lora_B['default'].weight
                kept = up.clone()
                up.zero_()
                feat = 'text_feat' if name.startswith('text') else 'image_feat'
                assert not torch.allclose(model.embed(inputs())[feat], adapted[feat]), name
                up.copy_(kept)


def test_nothing_else_of_the_tower_trains(make_slip: Callable[..., SLIP]) -> None:
    model, before = make_slip(lora=dict(backbone=dict(r=2))), make_slip()
    trains = {name for name, param in model.backbone.named_parameters() if param.requires_grad}
    assert trains
    assert all('.lora_' in name for name in trains)
    layers = {name.partition('.lora_')[0] for name in trains}
    linear = {name for name, part in before.backbone.named_modules() if isinstance(part, nn.Linear)}
    assert layers == linear
    others = {name for name, param in model.named_parameters() if not param.requires_grad}
    assert all(name.startswith('backbone.') for name in others)
    # It begins without effect, whatever initialises the tower.
    ups = [part for name, part in model.state_dict().items() if '.lora_B.' in name]
    assert len(ups) == len(layers)
    assert not any(up.any() for up in ups)
    assert find_blocks(model).keys() == find_blocks(before).keys()


def test_layers_may_be_named(make_slip: Callable[..., SLIP]) -> None:
    model = make_slip(lora=dict(text_backbone=dict(target_modules=['qkv'])))
    layers = [name for name, part in model.named_modules() if hasattr(part, 'lora_scale')]
    assert layers == ['text_backbone.layers.0.qkv', 'text_backbone.layers.1.qkv']


@pytest.mark.parametrize(
    ('lora', 'frozen', 'message'),
    [
        (dict(neck={}), [], "lora names 'neck', which is no tower"),
        (dict(backbone={}), ['backbone'], "lora names 'backbone', .* one that is frozen"),
        (dict(backbone=dict(target_modules=['none'])), [], 'none'),
    ],
)
def test_what_cannot_be_meant(
    make_slip: Callable[..., SLIP], lora: dict, frozen: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_slip(lora=lora, frozen=frozen)


def config_of(folder: Path) -> Config:
    cfg = small_config(folder)
    cfg.model.lora = dict(backbone=dict(r=2), text_backbone=dict(r=2))
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint.pop('save_best')
    return cfg


def test_training_goes_on_and_is_merged(tmp_path: Path) -> None:
    """Resumed, it ends where an unbroken run ends; what reads its checkpoint merges it."""
    whole = Runner.from_cfg(config_of(tmp_path / 'whole'))
    whole.train()
    cfg = config_of(tmp_path / 'resumed')
    cfg.update(resume=True, load_from=str(tmp_path / 'whole' / 'epoch_1.pth'))
    resumed = Runner.from_cfg(cfg)
    resumed.train()
    expected = whole.model.state_dict()
    for name, value in resumed.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
    assert expected['backbone.layers.0.attn.qkv.lora_B.default.weight'].abs().max() > 0

    path = tmp_path / 'whole' / 'epoch_2.pth'
    model = init_model(cfg, path, 'cpu')
    assert not any('lora' in name for name in model.state_dict())
    assert model.state_dict().keys() == read_pair(path, path)[0].keys()
    batch = dict(inputs(), image=torch.randn(3, 3, *whole.model.image_size))
    with torch.no_grad():
        for name, value in whole.model.eval().embed(batch).items():
            torch.testing.assert_close(model.embed(batch)[name], value, rtol=1e-4, atol=1e-5)


def test_published_weights_are_adapted_and_exported(tmp_path: Path) -> None:
    adapted = dict(CLIP.model(), lora=BOTH)
    model = shake(MODELS.build(adapted))
    plain = MODELS.build(CLIP.model())
    fit = fit_weights(plain.state_dict(), model)
    assert fit.exact
    assert len(fit.loaded) == len(plain.state_dict())
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'epoch_1.pth')
    cfg = dict(model=adapted, test_pipeline=CLIP.config()['test_pipeline'])
    Config(cfg).dump(tmp_path / 'own.py')
    imported = import_weights(tmp_path / 'epoch_1.pth', config=tmp_path / 'own.py')
    assert imported.spec == CLIP
    assert imported.weights.keys() == plain.state_dict().keys()
