"""Converter: what it writes, what it asks for, what it refuses."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from safetensors.torch import load_file

from mmslip.cli import convert as tool
from mmslip.registry import MODELS
from mmslip.weights import FORMATS, ModelSpec, import_weights
from mmslip.weights.spec import TextSpec
from tests.weights.foreign_models import (
    CLIP,
    DATA,
    SIDE,
    Runs,
    assert_same,
    images,
    random_slip,
    save,
    tiny_config,
    vit,
    write_bare_open_clip,
    write_hugging_face,
    write_official,
    write_open_clip,
    write_openai_archive,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def convert() -> Callable[..., None]:
    """The converter's command line: ``convert('source', 'folder', '--to', 'timm')``."""
    return lambda *arguments: tool.main([str(argument) for argument in arguments])


@pytest.mark.parametrize('name', ['linear_probe/vit-s16_in1k', 'finetune/vit-s16_in1k'])
@pytest.mark.parametrize('source', ['model.safetensors', 'model.pth', '', 'slip_small_25ep.pt'])
def test_benchmark_configs_load_converted_weights(
    name: str, source: str, convert: Callable, tmp_path: Path
) -> None:
    official = write_official(tmp_path / 'slip_small_25ep.pt')
    if source != 'slip_small_25ep.pt':
        convert(tmp_path / 'slip_small_25ep.pt', tmp_path / 'w', '--pth')
        source = f'w/{source}'
    cfg = Config.fromfile(ROOT / 'configs' / 'benchmarks' / f'{name}.py').model
    arch = dict(embed_dims=384, num_layers=1, num_heads=12, feedforward_channels=1536)
    cfg.backbone.update(arch=arch, img_size=64, frozen_stages=-1)
    cfg.backbone.init_cfg.checkpoint = str(tmp_path / source)
    cfg.head.num_classes = 2
    model = MODELS.build(cfg)
    model.init_weights()
    assert_same(model.backbone.state_dict(), official.backbone.state_dict())


def test_report(convert: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / 'tiny.py').write_text(tiny_config('slip'))
    source = DATA / 'slip_vit-tiny_official.pt'
    convert(source, tmp_path / 'ours', '--config', tmp_path / 'tiny.py')
    out = capsys.readouterr().out
    assert 'official_slip -> mmslip, 121,859 numbers' in out
    assert '  backbone: 30 weights\n' in out
    assert '  ssl: 16 weights\n' in out
    assert 'Left out' not in out
    assert not (tmp_path / 'ours' / 'model.pth').exists()

    convert(tmp_path / 'ours', tmp_path / 'timm', '--to', 'timm')
    out = capsys.readouterr().out
    assert 'Left out, since timm has no place for it (47 weights):' in out
    weights = load_file(tmp_path / 'ours' / 'model.safetensors')
    listed = set(re.findall(r'^  (\S+)$', out, re.MULTILINE))
    assert listed == {name for name in weights if not name.startswith('backbone.')}


def test_image_size(convert: Callable, tmp_path: Path) -> None:
    ours = save(random_slip(CLIP), CLIP, tmp_path / 'ours')
    convert(ours, tmp_path / 'large', '--image-size', 2 * SIDE)
    before, after = (
        load_file(ours / 'model.safetensors'),
        load_file(tmp_path / 'large' / 'model.safetensors'),
    )
    cfg = Config.fromfile(tmp_path / 'large' / 'config.py').model
    assert cfg.backbone.img_size == 2 * SIDE
    old, new = before.pop('backbone.pos_embed'), after.pop('backbone.pos_embed')
    assert_same(after, before)
    assert torch.equal(new[:, 0], old[:, 0])
    grid = old[0, 1:].T.reshape(1, -1, 4, 4)
    expected = F.interpolate(grid, (8, 8), mode='bicubic', align_corners=False)
    torch.testing.assert_close(new[0, 1:].T.reshape(1, -1, 8, 8), expected)
    # What is read in the middle of the picture stays about the same.
    assert F.cosine_similarity(expected.mean((2, 3)), grid.mean((2, 3))).item() > 0.99

    model = MODELS.build(cfg)
    model.load_state_dict(load_file(tmp_path / 'large' / 'model.safetensors'))
    assert model.encode_image(images(2 * SIDE)).shape == (3, 24)
    # Both directions at once: the other library gets the larger model.
    convert(ours, tmp_path / 'hf', '--image-size', 2 * SIDE, '--to', 'hugging_face')
    sizes = json.loads((tmp_path / 'hf' / 'config.json').read_text())['vision_config']
    assert sizes['image_size'] == 2 * SIDE

    text = (tmp_path / 'large' / 'config.py').read_text()
    (tmp_path / 'other.py').write_text(text)
    with pytest.raises(SystemExit, match=r'for images of 32 pixels, .*other\.py for 64: give --im'):
        convert(ours, tmp_path / 'x', '--config', tmp_path / 'other.py')
    convert(ours, tmp_path / 'x', '--config', tmp_path / 'other.py', '--image-size', 64)
    assert torch.equal(load_file(tmp_path / 'x' / 'model.safetensors')['backbone.pos_embed'], new)
    with pytest.raises(SystemExit, match='An image of 60 pixels has no whole patches of 8'):
        convert(ours, tmp_path / 'y', '--image-size', 60)
    assert not (tmp_path / 'y').exists()


def change_json(path: Path, part: str, **changes: object) -> None:
    content = json.loads(path.read_text())
    content.get('model_cfg', content)[part].update(changes)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ('part', 'changes', 'message'),
    [
        ('vision_cfg', dict(pool_type='avg'), r"vision_cfg\.pool_type = 'avg' have no counterpart"),
        ('vision_cfg', dict(ls_init_value=1e-5), r'vision_cfg\.ls_init_value = 1e-05'),
        ('text_cfg', dict(norm_kwargs=dict(eps=1e-6)), r'norm_kwargs = .*1e-06'),
        ('vision_cfg', dict(norm_kwargs=dict(eps=1e-6)), None),
        ('vision_cfg', dict(timm_model_name='vit_x'), 'mean over patches have no counterpart'),
        ('text_cfg', dict(no_causal_mask=True), r'text_cfg\.no_causal_mask = True'),
        ('text_cfg', dict(hf_tokenizer_name='bert'), r"text_cfg\.hf_tokenizer_name = 'bert'"),
        ('text_cfg', dict(heads=3), 'not a multiple of num_heads 3'),
        ('vision_cfg', dict(patch_dropout=0.5, pool_type='tok'), None),
    ],
)
def test_settings_of_open_clip(
    part: str, changes: dict, message: str | None, convert: Callable, tmp_path: Path
) -> None:
    write_open_clip(tmp_path / 'peer')
    change_json(tmp_path / 'peer' / 'open_clip_config.json', part, **changes)
    if message is None:
        convert(tmp_path / 'peer', tmp_path / 'ours')
        return
    with pytest.raises(SystemExit, match=message):
        convert(tmp_path / 'peer', tmp_path / 'ours')
    assert not (tmp_path / 'ours').exists()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(eos_token_id=5), 'The end-of-text token is 5; mmslip reads .* has to be 599'),
        (dict(layer_norm_eps=1e-6), 'has 1e-5 for layer_norm_eps of the text tower alone'),
        (dict(num_attention_heads=3), 'not a multiple of num_heads 3'),
    ],
)
def test_settings_of_hugging_face(
    changes: dict, message: str, convert: Callable, tmp_path: Path
) -> None:
    write_hugging_face(tmp_path / 'peer')
    change_json(tmp_path / 'peer' / 'config.json', 'text_config', **changes)
    with pytest.raises(SystemExit, match=message):
        convert(tmp_path / 'peer', tmp_path / 'ours')
    assert not (tmp_path / 'ours').exists()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(global_pool='avg'), "with global_pool 'avg' has no counterpart"),
        (
            dict(architecture='deit_tiny_distilled_patch16_224', model_args={}),
            'is no ViT with GELU or QuickGELU that is read out at',
        ),
        (
            dict(architecture='resnet18', model_args={}),
            'is no ViT with GELU or QuickGELU that is read out at',
        ),
    ],
)
def test_settings_of_timm(changes: dict, message: str, convert: Callable, tmp_path: Path) -> None:
    pytest.importorskip('timm')
    slip = ModelSpec(vit(32, 2), TextSpec(600, 8, 16, 1, 2, 'quick_gelu'), 8)
    save(random_slip(slip), slip, tmp_path / 'ours')
    convert(tmp_path / 'ours', tmp_path / 'timm', '--to', 'timm')
    path = tmp_path / 'timm' / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(SystemExit, match=message):
        convert(tmp_path / 'timm', tmp_path / 'out')


def test_what_weights_do_not_hold_is_asked_for(convert: Callable, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    write_bare_open_clip(tmp_path / 'bare.pt')
    with pytest.raises(SystemExit, match='give --activation quick_gelu or gelu, or --config'):
        convert(tmp_path / 'bare.pt', out)
    small = random_slip(CLIP)
    torch.save(FORMATS['open_clip'].from_mmslip(small.state_dict(), CLIP)[0], tmp_path / 's.pt')
    with pytest.raises(SystemExit, match='towers are 128 and 64 wide, as no ViT-B or ViT-L is'):
        convert(tmp_path / 's.pt', out, '--activation', 'gelu')
    with pytest.raises(SystemExit, match=r'48 wide is none of the official.*give a mmslip config'):
        convert(DATA / 'slip_vit-tiny_official.pt', out)
    torch.save(FORMATS['timm'].from_mmslip(small.state_dict(), CLIP)[0], tmp_path / 't.pt')
    with pytest.raises(SystemExit, match=r"timm's weights hold neither .* give --config"):
        convert(tmp_path / 't.pt', out)
    torch.save(small.state_dict(), tmp_path / 'ours.pth')
    with pytest.raises(SystemExit, match='config that the model was trained with as --config'):
        convert(tmp_path / 'ours.pth', out)
    hugging_face, _ = FORMATS['hugging_face'].from_mmslip(small.state_dict(), CLIP)
    torch.save(hugging_face, tmp_path / 'hf.bin')
    with pytest.raises(SystemExit, match=r'stand in the config\.json .* give it with --config'):
        convert(tmp_path / 'hf.bin', out)
    torch.save({'layer.weight': torch.ones(2)}, tmp_path / 'unknown.pt')
    with pytest.raises(
        SystemExit, match=r'\(layer\.weight, \.\.\.\) are of no known format: .*--from'
    ):
        convert(tmp_path / 'unknown.pt', out)
    assert not out.exists()


def test_weights_that_do_not_fit(convert: Callable, tmp_path: Path) -> None:
    ours = save(random_slip(CLIP), CLIP, tmp_path / 'ours')
    whole = load_file(ours / 'model.safetensors')
    del whole['backbone.layers.1.ln2.bias']
    whole['text_neck.weight'] = whole['text_neck.weight'][:, 1:]
    torch.save(whole, tmp_path / 'less.pth')
    message = r'layers\.1\.ln2\.bias is missing; text_neck\.weight is \(64, 23\), not \(64, 24\)'
    with pytest.raises(SystemExit, match=message):
        convert(tmp_path / 'less.pth', tmp_path / 'out', '--config', ours / 'config.py')
    whole = load_file(ours / 'model.safetensors')
    whole['backbone.layers.2.extra.weight'] = torch.ones(1)
    torch.save(whole, tmp_path / 'more.pth')
    with pytest.raises(SystemExit, match=r'layers\.2\.extra\.weight is not part of the model'):
        convert(tmp_path / 'more.pth', tmp_path / 'out', '--config', ours / 'config.py')

    # A weight of another library that embeddings depend on.
    theirs, _ = FORMATS['openai'].from_mmslip(load_file(ours / 'model.safetensors'), CLIP)
    theirs['visual.transformer.resblocks.0.ls_1.gamma'] = torch.ones(2)
    torch.save(theirs, tmp_path / 'scale.pt')
    with pytest.raises(SystemExit, match=r'no place for: visual.*ls_1\.gamma\. Without them'):
        convert(tmp_path / 'scale.pt', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('to', 'message'),
    [
        ('official_slip', "official SLIP code needs activation 'gelu' in its vision tower"),
        ('hugging_face', None),
        ('openai', None),
        ('open_clip', None),
        ('timm', None),
        ('mmpretrain', None),
    ],
)
def test_clip_model_goes_where_it_can(
    to: str, message: str | None, convert: Callable, tmp_path: Path
) -> None:
    ours = save(random_slip(CLIP), CLIP, tmp_path / 'ours')
    if message:
        with pytest.raises(SystemExit, match=message):
            convert(ours, tmp_path / 'out', '--to', to)
        assert not (tmp_path / 'out').exists()
    else:
        convert(ours, tmp_path / 'out', '--to', to)
        assert list((tmp_path / 'out').glob('*.safetensors'))


@pytest.mark.parametrize(
    ('to', 'message'),
    [
        ('openai', "needs activation 'quick_gelu' in its vision tower"),
        ('open_clip', r'set model\.text_backbone\.quick_gelu=False before training, or take'),
    ],
)
def test_small_slip_is_refused_where_it_has_no_model(
    to: str, message: str, convert: Callable, tmp_path: Path
) -> None:
    write_official(tmp_path / 'slip_small_25ep.pt')
    with pytest.raises(SystemExit, match=message):
        convert(tmp_path / 'slip_small_25ep.pt', tmp_path / 'out', '--to', to)
    assert not (tmp_path / 'out').exists()


def test_resnet_is_refused(convert: Callable, tmp_path: Path) -> None:
    model = CLIP.model()
    model.update(backbone=dict(type='ResNet', depth=18), neck=dict(model['neck'], in_channels=512))
    torch.save(MODELS.build(model).state_dict(), tmp_path / 'resnet.pth')
    (tmp_path / 'resnet.py').write_text(f'model = {model!r}')
    with pytest.raises(SystemExit, match='has no ViT of mmslip as its image tower'):
        convert(tmp_path / 'resnet.pth', tmp_path / 'out', '--config', tmp_path / 'resnet.py')


def test_incomplete_models_are_named(convert: Callable, tmp_path: Path) -> None:
    ours = save(random_slip(CLIP), CLIP, tmp_path / 'ours')
    weights = load_file(ours / 'model.safetensors')
    projection = weights.pop('text_neck.weight')
    torch.save({**weights, 'text_neck.layers.0.weight': projection}, tmp_path / 'mlp.pth')
    with pytest.raises(SystemExit, match=r'mlp\.pth does not hold .*text_neck\.weight'):
        convert(tmp_path / 'mlp.pth', tmp_path / 'out', '--config', ours / 'config.py')
    write_open_clip(tmp_path / 'peer')
    (tmp_path / 'wrong.json').write_text('{"architecture": "x"}')
    with pytest.raises(SystemExit, match=r"wrong\.json lacks 'vision_cfg'"):
        convert(tmp_path / 'peer', tmp_path / 'out', '--config', tmp_path / 'wrong.json')
    (tmp_path / 'wrong.json').write_text('architecture: x')
    with pytest.raises(SystemExit, match=r'wrong\.json is no JSON file'):
        convert(tmp_path / 'peer', tmp_path / 'out', '--config', tmp_path / 'wrong.json')


def test_malicious_file_does_not_run(convert: Callable, tmp_path: Path) -> None:
    mark = tmp_path / 'executed'
    content = dict(state_dict=dict(w=torch.ones(1)), args=Runs(os.mkdir, str(mark)))
    torch.save(content, tmp_path / 'slip_base_25ep.pt')
    with pytest.raises(SystemExit, match=r'slip_base_25ep\.pt was refused.*never runs code'):
        convert(tmp_path / 'slip_base_25ep.pt', tmp_path / 'out')
    assert not mark.exists()
    assert not (tmp_path / 'out').exists()


def test_openai_archive_gives_the_weights_of_the_model(tmp_path: Path) -> None:
    ours = write_openai_archive(tmp_path / 'ViT-B-32.pt')
    imported = import_weights(tmp_path / 'ViT-B-32.pt')
    assert imported.origin.name == 'openai'
    assert imported.spec == CLIP
    assert {value.dtype for value in imported.weights.values()} == {torch.float16}
    assert_same({k: v.float() for k, v in imported.weights.items()}, ours.state_dict())
