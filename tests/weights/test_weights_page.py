"""Every command and config of docs/weights.md."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load_file

import mmslip
from mmslip.cli import convert, export
from mmslip.registry import MODELS
from mmslip.weights import ModelSpec
from mmslip.weights.spec import TextSpec
from tests.weights.foreign_models import (
    ROOT,
    assert_same,
    random_slip,
    save,
    vit,
    write_bare_open_clip,
    write_hugging_face,
    write_official,
    write_open_clip,
    write_openai_archive,
    write_siglip,
)

PAGE = (ROOT / 'docs' / 'weights.md').read_text(encoding='utf-8')
PAGE = re.sub('<!-- matrix -->.*<!-- end -->', '', PAGE, flags=re.DOTALL)  # has a test of its own


def write_sources(folder: Path) -> None:
    """Small models under the names that the page uses."""
    timm = pytest.importorskip('timm')
    write_official(folder / 'slip_small_25ep.pt')
    write_openai_archive(folder / 'ViT-B-32.pt')
    write_open_clip(folder / 'open_clip_vit-b-32')
    write_bare_open_clip(folder / 'open_clip_pytorch_model.bin')
    write_hugging_face(folder / 'clip-vit-base-patch32')
    write_siglip(folder / 'siglip-base-patch16-224')
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
    slip = ModelSpec(vit(32, 2), TextSpec(600, 8, 16, 1, 2, 'quick_gelu'), 8, (16, 8))
    (folder / 'work_dirs' / 'my_slip').mkdir(parents=True)
    state_dict = random_slip(slip).state_dict()
    torch.save(dict(state_dict=state_dict), folder / 'work_dirs' / 'my_slip' / 'epoch_25.pth')
    (folder / 'my_slip.py').write_text(f'model = {slip.model()!r}')


def commands() -> list[list[str]]:
    """The command lines of the page, in its order."""
    blocks = re.findall(r'```shell\n(.*?)```', PAGE, re.DOTALL)
    lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
    return [shlex.split(line) for line in lines if line and not line.startswith('#')]


def test_every_command_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('onnxscript')
    write_sources(tmp_path)
    monkeypatch.chdir(tmp_path)
    tools = dict(convert=convert, export=export)
    targets = []
    for program, command, *arguments in commands():
        assert program == 'mmslip'
        tools[command].main(arguments)
        if command == 'convert':
            targets.append(Path(arguments[1]))
    assert len(targets) == len(set(targets)) == 13
    for target in targets:
        assert list(target.glob('*.safetensors')), target
        if target.parts[0] == 'weights':
            model = MODELS.build(Config.fromfile(target / 'config.py').model)
            model.load_state_dict(load_file(target / 'model.safetensors'), strict=True)
    # The page says where the activations come from.
    for name, kind in dict(slip='GELU', openai='QuickGELU', bare='GELU').items():
        model = Config.fromfile(f'weights/{name}/config.py').model
        assert model.backbone.layer_cfgs.act_cfg.type.split('.')[-1] == kind
        assert model.text_backbone.quick_gelu == (name != 'bare')
    tokenizer = {'tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'}
    common = {'export.json', 'vocab.json', 'merges.txt', *tokenizer}
    for_onnx = {'README.md', 'config.json', 'preprocessor_config.json', 'onnx'}
    assert {path.name for path in Path('exported').iterdir()} == common | for_onnx
    assert {path.name for path in Path('exported', 'onnx').iterdir()} == {
        f'{name}{dtype}.onnx'
        for name in ('vision_model', 'text_model', 'model')
        for dtype in ('', '_quantized')
    }
    assert {path.name for path in Path('exported_torch').iterdir()} == {
        *('image.pt2', 'text.pt2', *common)
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
    init, load_from, classifier, detector = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    assert load_from.startswith('load_from = ')
    monkeypatch.chdir(tmp_path)
    spec = ModelSpec(vit(32, 2, layers=12, image_size=224))
    (tmp_path / 'weights').mkdir()
    tower = random_slip(spec)
    folder = save(tower, spec, tmp_path / 'weights' / 'slip')
    torch.save(dict(state_dict=tower.state_dict()), folder / 'model.pth')
    expected = tower.backbone.state_dict()
    code = {'mmslip': mmslip}
    exec(init, code)
    assert_same(code['model'].backbone.state_dict(), expected)
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
