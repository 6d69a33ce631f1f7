"""Converter and export: every command of docs/weights.md, every refusal, the exported towers."""

import importlib.util
import json
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from safetensors.torch import load_file, save_file
from torch import nn

from mmslip.models.adapters import FAMILIES, Facts, import_weights
from mmslip.models.adapters.facts import IMAGENET_PIXELS, Text, Vision
from mmslip.registry import MODELS
from tests.models.test_adapters import (
    CLIP,
    DATA,
    SIDE,
    assert_same,
    images,
    random_slip,
    save,
    texts,
    tiny_config,
    write_hugging_face,
    write_open_clip,
)
from tests.models.test_weight_files import Runs

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'weights.md').read_text(encoding='utf-8')


def load_tool(name: str) -> ModuleType:
    path = ROOT / 'tools' / 'model_converters' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def convert() -> Callable[..., None]:
    """The converter's command line: ``convert('source', 'folder', '--to', 'timm')``."""
    tool = load_tool('convert')
    return lambda *arguments: tool.main([str(argument) for argument in arguments])


def vit(width: int, heads: int, **changes: object) -> Vision:
    settings = dict(layers=1, mlp_width=4 * width, patch_size=16, image_size=64)
    settings.update(activation='gelu', eps=1e-6, pre_norm=False, patch_bias=True, qkv_bias=True)
    return Vision(width=width, heads=heads, **(settings | changes))


def write_official(path: Path) -> nn.Module:
    """A file of the official code: the ViT-S and text tower of SLIP with fewer layers."""
    text = Text(64, 77, 512, layers=1, heads=8, activation='quick_gelu')
    facts = Facts(vit(384, 12), text, 32, (48, 16))
    model = random_slip(facts)
    family = FAMILIES['official_slip']
    torch.save(family.checkpoint(family.from_mmslip(model.state_dict(), facts)[0], facts), path)
    return model


def write_bare_open_clip(path: Path) -> None:
    """Weights alone, as wide as a ViT-B/32."""
    clip = dict(eps=1e-5, pre_norm=True, patch_bias=False, image_size=64, patch_size=32)
    facts = Facts(vit(768, 12, **clip), Text(64, 8, 512, 1, 8, 'gelu'), 16)
    weights = random_slip(facts).state_dict()
    torch.save(FAMILIES['open_clip'].from_mmslip(weights, facts)[0], path)


def write_openai_archive(path: Path) -> nn.Module:
    """A TorchScript archive of half floats, with the three numbers that OpenAI's files hold."""
    model = pytest.importorskip('open_clip.model')
    ours = random_slip(CLIP).half().float()
    theirs, _ = FAMILIES['openai'].from_mmslip(ours.state_dict(), CLIP)
    peer = model.build_model_from_openai_state_dict(dict(theirs), cast_dtype=None).float()
    peer.load_state_dict({name: theirs[name] for name in peer.state_dict()})
    peer.half()
    for name in ('input_resolution', 'context_length', 'vocab_size'):
        vars(peer).pop(name, None)
        peer.register_buffer(name, theirs[name])
    shells = {name: nn.Module() for name, _ in peer.named_modules()}
    for name, shell in shells.items():
        source = peer.get_submodule(name)
        for key, value in source.named_parameters(recurse=False):
            shell.register_parameter(key, nn.Parameter(value.data, requires_grad=False))
        for key, value in source.named_buffers(recurse=False):
            shell.register_buffer(key, value)
        if name:
            parent, _, child = name.rpartition('.')
            shells[parent].add_module(child, shell)
    torch.jit.trace_module(shells[''], {}).save(path)
    return ours


def write_sources(folder: Path) -> None:
    """Small models under the names that the page uses."""
    timm = pytest.importorskip('timm')
    write_official(folder / 'slip_small_25ep.pt')
    write_openai_archive(folder / 'ViT-B-32.pt')
    write_open_clip(folder / 'open_clip_vit-b-32')
    write_bare_open_clip(folder / 'open_clip_pytorch_model.bin')
    write_hugging_face(folder / 'clip-vit-base-patch32')
    small = dict(depth=1, embed_dim=32, num_heads=2, img_size=32)
    peer = timm.create_model('vit_base_patch16_224', **small)
    timm.models.save_for_hf(
        peer, folder / 'vit_base_patch16_224', model_args=small, safe_serialization=True
    )
    arch = dict(embed_dims=32, num_layers=1, num_heads=2, feedforward_channels=64)
    backbone = dict(type='VisionTransformer', arch=arch, img_size=32)
    head = dict(type='LinearClsHead', num_classes=3, in_channels=32)
    model = dict(type='ImageClassifier', backbone=backbone, head=head)
    (folder / 'vit-base-p16.py').write_text(f'model = {model!r}')
    state_dict = MODELS.build(model).state_dict()
    torch.save(dict(state_dict=state_dict, meta={}), folder / 'vit-base-p16.pth')
    slip = Facts(vit(32, 2), Text(64, 8, 16, 1, 2, 'quick_gelu'), 8, (16, 8))
    (folder / 'work_dirs' / 'my_slip').mkdir(parents=True)
    state_dict = random_slip(slip).state_dict()
    torch.save(dict(state_dict=state_dict), folder / 'work_dirs' / 'my_slip' / 'epoch_25.pth')
    (folder / 'my_slip.py').write_text(f'model = {slip.config()!r}')


def commands() -> list[list[str]]:
    """The command lines of the page, in its order."""
    blocks = re.findall(r'```shell\n(.*?)```', PAGE, re.DOTALL)
    lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
    return [shlex.split(line) for line in lines if line and not line.startswith('#')]


def test_every_command_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('onnxscript')
    write_sources(tmp_path)
    monkeypatch.chdir(tmp_path)
    tools = {name: load_tool(name) for name in ('convert', 'export')}
    targets = []
    for program, script, *arguments in commands():
        assert program == 'python'
        assert (ROOT / script).is_file()
        tools[Path(script).stem].main(arguments)
        if script.endswith('convert.py'):
            targets.append(Path(arguments[1]))
    assert len(targets) == len(set(targets)) == 12
    for target in targets:
        assert list(target.glob('*.safetensors')), target
        if target.parts[0] == 'weights':
            model = MODELS.build(Config.fromfile(target / 'config.py').model)
            model.load_state_dict(load_file(target / 'model.safetensors'), strict=True)
    # The page tells where the activations come from.
    for name, kind in dict(slip='GELU', openai='QuickGELU', bare='GELU').items():
        model = Config.fromfile(f'weights/{name}/config.py').model
        assert model.backbone.layer_cfgs.act_cfg.type.split('.')[-1] == kind
        assert model.text_backbone.quick_gelu == (name != 'bare')
    assert {path.name for path in Path('exported').iterdir()} == {
        *('image.onnx', 'text.onnx', 'image.pt2', 'text.pt2', 'export.json')
    }
    assert Path('out/official/model.pth').is_file()


def test_python_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its configs load the image tower of converted weights, from both kinds of files."""
    # Their ViT-B is replaced by one that is narrower, and as deep.
    arch = dict(embed_dims=32, num_layers=12, num_heads=2, feedforward_channels=128)
    assert PAGE.count("arch='base'") == 2
    page = PAGE.replace("arch='base'", f'arch={arch!r}').replace(
        'in_channels=768', 'in_channels=32'
    )
    load_from, classifier, detector = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    assert load_from.startswith('load_from = ')
    monkeypatch.chdir(tmp_path)
    facts = Facts(vit(32, 2, layers=12, image_size=224))
    folder = tmp_path / 'weights' / 'slip'
    folder.mkdir(parents=True)
    tower = MODELS.build(facts.config())
    with torch.no_grad():
        tower.backbone.pos_embed.normal_(0, 0.1)
    save_file(tower.state_dict(), folder / 'model.safetensors')
    torch.save(dict(state_dict=tower.state_dict()), folder / 'model.pth')
    expected = tower.backbone.state_dict()
    model = MODELS.build(Config.fromstring(classifier, '.py').model)
    model.init_weights()
    assert_same(model.backbone.state_dict(), expected)

    # Dense prediction: other image size, feature maps of four layers.
    backbone = MODELS.build(Config.fromstring(detector, '.py').backbone)
    backbone.init_weights()
    got = backbone.state_dict()
    assert got.keys() == expected.keys()
    assert got.pop('pos_embed').shape == (1, 1 + 32 * 32, 32)
    del expected['pos_embed']
    assert_same(got, expected)
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 64))
    assert [tuple(x.shape) for x in maps] == [(1, 32, 4, 4)] * 4


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
        ('vision_cfg', dict(norm_kwargs=dict(eps=1e-6)), r'norm_kwargs = .*1e-06'),
        ('vision_cfg', dict(timm_model_name='vit_x'), 'mean over patches have no counterpart'),
        ('text_cfg', dict(no_causal_mask=True), r'text_cfg\.no_causal_mask = True'),
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
        (dict(eos_token_id=5), 'The end-of-text token is 5; mmslip reads .* has to be 98'),
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


def test_what_is_not_told_is_asked_for(convert: Callable, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    write_bare_open_clip(tmp_path / 'bare.pt')
    with pytest.raises(SystemExit, match='give --activation quick_gelu or gelu, or --config'):
        convert(tmp_path / 'bare.pt', out)
    small = random_slip(CLIP)
    torch.save(FAMILIES['open_clip'].from_mmslip(small.state_dict(), CLIP)[0], tmp_path / 's.pt')
    with pytest.raises(SystemExit, match='towers are 128 and 64 wide, as no ViT-B or ViT-L is'):
        convert(tmp_path / 's.pt', out, '--activation', 'gelu')
    with pytest.raises(SystemExit, match=r'48 wide is none of the official.*give a mmslip config'):
        convert(DATA / 'slip_vit-tiny_official.pt', out)
    torch.save(FAMILIES['timm'].from_mmslip(small.state_dict(), CLIP)[0], tmp_path / 't.pt')
    with pytest.raises(SystemExit, match=r"timm's weights tell neither .* give --config"):
        convert(tmp_path / 't.pt', out)
    torch.save(small.state_dict(), tmp_path / 'ours.pth')
    with pytest.raises(SystemExit, match='config that the model was trained with as --config'):
        convert(tmp_path / 'ours.pth', out)
    hugging_face, _ = FAMILIES['hugging_face'].from_mmslip(small.state_dict(), CLIP)
    torch.save(hugging_face, tmp_path / 'hf.bin')
    with pytest.raises(SystemExit, match=r'stand in the config\.json .* give it with --config'):
        convert(tmp_path / 'hf.bin', out)
    torch.save({'layer.weight': torch.ones(2)}, tmp_path / 'unknown.pt')
    with pytest.raises(SystemExit, match=r'\(layer\.weight, \.\.\.\) are of no family.*--from'):
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
    theirs, _ = FAMILIES['openai'].from_mmslip(load_file(ours / 'model.safetensors'), CLIP)
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
        ('hugging_face', 'needs pre_norm True in its vision tower'),
        ('openai', 'needs activation|Among the ViTs that timm has'),
        ('open_clip', 'Among the ViTs that timm has under a name, none is this one'),
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
    model = CLIP.config()
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
    with pytest.raises(SystemExit, match=r"mlp\.pth or .*config\.py lacks 'text_neck\.weight'"):
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
    assert imported.family.name == 'openai'
    assert imported.facts == CLIP
    assert {value.dtype for value in imported.weights.values()} == {torch.float16}
    assert_same({k: v.float() for k, v in imported.weights.items()}, ours.state_dict())


# Export


@torch.no_grad()
@pytest.mark.parametrize('to', ['onnx', 'torch'])
def test_export(to: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip('onnxscript')
    clip = replace(CLIP, vision=replace(CLIP.vision, layers=1), text=replace(CLIP.text, layers=1))
    model = random_slip(clip)
    ours = save(model, clip, tmp_path / 'ours')
    load_tool('export').main([*map(str, (ours / 'config.py', ours, tmp_path / 'out')), '--to', to])
    assert 'embeddings differ by at most' in capsys.readouterr().out
    facts = json.loads((tmp_path / 'out' / 'export.json').read_text())
    for name, inputs, encode in (
        ('image', images(), model.encode_image),
        ('text', texts(), model.encode_text),
    ):
        path = tmp_path / 'out' / facts[name]['file']
        for batch in (inputs, inputs[:1], inputs.repeat(4, *[1] * (inputs.dim() - 1))):
            expected = F.normalize(encode(batch), dim=-1)
            got = run_exported(path, name, batch)
            np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=1e-4)
    assert facts['normalised'] is True
    assert facts['image']['size'] == SIDE
    assert facts['image']['mean'] == pytest.approx(CLIP.pixels[0])
    assert facts['image']['std'] == pytest.approx(CLIP.pixels[1])
    assert facts['text']['context_length'] == CLIP.text.context_length
    assert facts['scale'] == pytest.approx(model.head.logit_scale.exp().item())


def run_exported(path: Path, name: str, batch: torch.Tensor) -> np.ndarray:
    if path.suffix == '.pt2':
        return torch.export.load(path).module()(batch).numpy()
    onnxruntime = pytest.importorskip('onnxruntime')
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return session.run(['embed'], {name: batch.numpy()})[0]


@torch.no_grad()
def test_export_of_an_image_tower_alone(tmp_path: Path) -> None:
    facts = Facts(vit(32, 2), pixels=IMAGENET_PIXELS)
    model = random_slip(facts)
    ours = save(model, facts, tmp_path / 'ours')
    load_tool('export').main(
        [*map(str, (ours / 'config.py', ours, tmp_path / 'out')), '--to', 'torch']
    )
    described = json.loads((tmp_path / 'out' / 'export.json').read_text())
    assert described['normalised'] is False
    assert described.keys() == {'image', 'normalised'}
    got = run_exported(tmp_path / 'out' / 'image.pt2', 'image', images(64))
    np.testing.assert_allclose(got, model.backbone(images(64))[-1].numpy(), rtol=0, atol=1e-5)
