"""Weights of other libraries: embeddings before and after, in both directions, bit for bit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load_file
from torch import Tensor

from mmslip.registry import MODELS
from mmslip.weights import FORMATS, ModelSpec, export_weights, import_weights, recognise
from mmslip.weights.preprocessing import CLIP_PIXELS, Preprocessing
from mmslip.weights.spec import VisionSpec
from mmslip.weights.spec_from_config import spec_from_config
from tests.weights.foreign_models import (
    CLIP,
    CLIP_TEXT,
    DATA,
    DIM,
    SIDE,
    TIMM,
    VOCAB,
    assert_close,
    assert_same,
    hugging_face_embeddings,
    images,
    load,
    random_slip,
    save,
    shake,
    texts,
    timm_vit,
    tiny_config,
    write_hugging_face,
    write_open_clip,
)

CONFIGS = Path(__file__).parents[2] / 'configs'

PEERS = {
    'open_clip': write_open_clip,
    'open_clip, GELU': lambda folder: write_open_clip(folder, quick_gelu=False),
    'open_clip, own text class': lambda folder: write_open_clip(folder, custom=True),
    'open_clip, sigmoid loss': lambda folder: write_open_clip(folder, init_logit_bias=-10.0),
    'hugging_face': write_hugging_face,
    'hugging_face, GELU': lambda folder: write_hugging_face(folder, act='gelu'),
    'hugging_face, old end of text': lambda folder: write_hugging_face(folder, end=2),
    'hugging_face, in parts': lambda folder: write_hugging_face(folder, shard='200KB'),
}


@torch.no_grad()
@pytest.mark.parametrize('peer', PEERS)
def test_embeddings_of_a_foreign_model(peer: str, tmp_path: Path) -> None:
    model, encode_image, encode_text = PEERS[peer](tmp_path / 'peer')
    imported = import_weights(tmp_path / 'peer')
    assert imported.origin.name == peer.split(',')[0]
    assert imported.left_out == []
    assert imported.spec.text.activation == ('gelu' if 'GELU' in peer else 'quick_gelu')
    if 'in parts' in peer:
        assert len(list((tmp_path / 'peer').glob('*.safetensors'))) > 2

    assert export_weights(imported, tmp_path / 'ours') == []
    ours = load(tmp_path / 'ours')
    assert_close(ours.encode_image(images()), encode_image(images()))
    assert_close(ours.encode_text(texts()), encode_text(texts()))
    assert ours.head.logit_scale.item() == model.logit_scale.item()
    # The mean and standard deviation that CLIP was trained with come along.
    mean = torch.tensor(CLIP_PIXELS['mean']) * 255
    torch.testing.assert_close(ours.data_preprocessor.mean.flatten(), mean)

    # And back: nothing was lost on the way.
    export_weights(import_weights(tmp_path / 'ours'), tmp_path / 'back', imported.origin.name)
    (back,) = (tmp_path / 'back').glob('*.safetensors')
    state_dict = {name.removeprefix('text.'): x for name, x in model.state_dict().items()}
    assert_same(load_file(back), state_dict)


@torch.no_grad()
def test_quick_gelu_and_gelu_are_told_apart(tmp_path: Path) -> None:
    """The test above would notice a wrong activation."""
    _, encode_image, encode_text = write_open_clip(tmp_path / 'peer')
    config = json.loads((tmp_path / 'peer' / 'open_clip_config.json').read_text())
    config['model_cfg']['quick_gelu'] = False
    (tmp_path / 'wrong.json').write_text(json.dumps(config))
    export_weights(
        import_weights(tmp_path / 'peer', config=tmp_path / 'wrong.json'), tmp_path / 'ours'
    )
    ours = load(tmp_path / 'ours')
    assert (ours.encode_image(images()) - encode_image(images())).abs().max() > 1e-3
    assert (ours.encode_text(texts()) - encode_text(texts())).abs().max() > 1e-3


@torch.no_grad()
def test_ours_in_open_clip(tmp_path: Path) -> None:
    open_clip = pytest.importorskip('open_clip')
    ours = random_slip(CLIP)
    imported = import_weights(save(ours, CLIP, tmp_path / 'ours'))
    export_weights(imported, tmp_path / 'theirs', 'open_clip')
    peer = open_clip.create_model(f'local-dir:{tmp_path / "theirs"}').eval()
    assert_close(peer.encode_image(images()), ours.encode_image(images()))
    assert_close(peer.encode_text(texts()), ours.encode_text(texts()))
    assert peer.visual.preprocess_cfg['mean'] == pytest.approx(CLIP_PIXELS['mean'])


@torch.no_grad()
def test_ours_in_openai_layout(tmp_path: Path) -> None:
    """The state dict alone makes the model: sizes by shape, heads 64 wide, QuickGELU."""
    model = pytest.importorskip('open_clip.model')
    ours = random_slip(CLIP)
    imported = import_weights(save(ours, CLIP, tmp_path / 'ours'))
    export_weights(imported, tmp_path / 'theirs', 'openai', pth=True)
    state_dict = torch.load(tmp_path / 'theirs' / 'model.pth', weights_only=True)
    assert (state_dict['input_resolution'], state_dict['vocab_size']) == (SIDE, VOCAB)
    peer = model.build_model_from_openai_state_dict(dict(state_dict), cast_dtype=None).float()
    # That function makes half floats of most weights; give them back their digits.
    del state_dict['input_resolution'], state_dict['vocab_size'], state_dict['context_length']
    peer.load_state_dict(state_dict)
    assert_close(peer.encode_image(images()), ours.encode_image(images()))
    assert_close(peer.encode_text(texts()), ours.encode_text(texts()))

    again = import_weights(tmp_path / 'theirs' / 'model.pth')
    assert again.origin.name == 'openai'
    assert again.spec == imported.spec
    assert_same(again.weights, ours.state_dict())
    assert again.left_out == ['input_resolution', 'context_length', 'vocab_size']


@torch.no_grad()
def test_ours_in_hugging_face(tmp_path: Path) -> None:
    transformers = pytest.importorskip('transformers')
    ours = random_slip(CLIP)
    imported = import_weights(save(ours, CLIP, tmp_path / 'ours'))
    export_weights(imported, tmp_path / 'theirs', 'hugging_face')
    peer, info = transformers.CLIPModel.from_pretrained(
        tmp_path / 'theirs', output_loading_info=True
    )
    assert not any(info.values())
    image, text = hugging_face_embeddings(peer.eval())
    assert_close(image(images()), ours.encode_image(images()))
    assert_close(text(texts()), ours.encode_text(texts()))
    pixels = json.loads((tmp_path / 'theirs' / 'preprocessor_config.json').read_text())
    assert pixels['image_mean'] == pytest.approx(CLIP_PIXELS['mean'])
    assert pixels['crop_size'] == dict(height=SIDE, width=SIDE)
    # Read back, the centre crop is rounded as transformers rounds it.
    theirs = replace(imported.spec.preprocessing, rounding='down')
    assert import_weights(tmp_path / 'theirs').spec == replace(imported.spec, preprocessing=theirs)


@torch.no_grad()
@pytest.mark.parametrize(
    'architecture',
    [
        'vit_base_patch16_224',
        'vit_base_patch16_clip_224',
        'vit_base_patch16_clip_quickgelu_224',
    ],
)
def test_timm(architecture: str, tmp_path: Path) -> None:
    peer, timm = timm_vit(architecture)
    timm.models.save_for_hf(peer, tmp_path / 'peer', model_args=TIMM, safe_serialization=True)
    imported = import_weights(tmp_path / 'peer')
    assert imported.origin.name == 'timm'
    assert sorted(imported.left_out) == ['head.bias', 'head.weight']

    export_weights(imported, tmp_path / 'ours')
    ours = load(tmp_path / 'ours')
    expected = peer.forward_head(peer.forward_features(images()), pre_logits=True)
    assert_close(ours.backbone(images())[-1], expected)
    mean = torch.tensor(peer.pretrained_cfg['mean']) * 255
    torch.testing.assert_close(ours.data_preprocessor.mean.flatten(), mean)

    back = import_weights(tmp_path / 'ours', name='mmslip')
    export_weights(back, tmp_path / 'back', 'timm')
    again = timm.create_model(f'local-dir:{tmp_path / "back"}', pretrained=True).eval()
    assert_close(again(images()), expected)
    # Without its classifier, everything is as it was.
    peer.reset_classifier(0)
    assert_same(load_file(tmp_path / 'back' / 'model.safetensors'), peer.state_dict())


@torch.no_grad()
def test_slip_in_open_clip_and_timm(tmp_path: Path) -> None:
    """SLIP's image tower has no norm in front: for open_clip it is one of timm's."""
    open_clip = pytest.importorskip('open_clip')
    vision = dict(width=192, layers=12, heads=3, mlp_width=768, patch_size=16, image_size=224)
    vision.update(activation='gelu', eps=1e-6, pre_norm=False, patch_bias=True, qkv_bias=True)
    spec = ModelSpec(VisionSpec(**vision), CLIP_TEXT, DIM)
    ours = random_slip(spec)
    imported = import_weights(save(ours, spec, tmp_path / 'ours'))
    export_weights(imported, tmp_path / 'open_clip', 'open_clip')
    peer = open_clip.create_model(f'local-dir:{tmp_path / "open_clip"}').eval()
    assert_close(peer.encode_image(images(224)), ours.encode_image(images(224)))
    assert_close(peer.encode_text(texts()), ours.encode_text(texts()))
    again = import_weights(tmp_path / 'open_clip')
    assert again.spec == imported.spec
    assert_same(again.weights, ours.state_dict())

    left_out = export_weights(imported, tmp_path / 'timm', 'timm')
    assert set(left_out) == {name for name in ours.state_dict() if name[:9] != 'backbone.'}
    timm = pytest.importorskip('timm')
    tower = timm.create_model(f'local-dir:{tmp_path / "timm"}', pretrained=True).eval()
    assert_close(tower(images(224)), ours.backbone(images(224))[-1])


@torch.no_grad()
@pytest.mark.parametrize('activation', ['GELU', 'mmpretrain.QuickGELU'])
def test_mmpretrain(activation: str, tmp_path: Path) -> None:
    arch = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
    backbone = dict(type='VisionTransformer', arch=arch, img_size=SIDE, patch_size=8)
    backbone['layer_cfgs'] = dict(act_cfg=dict(type=activation))
    head = dict(type='LinearClsHead', num_classes=3, in_channels=48)
    pixels = dict(mean=[127.5] * 3, std=[127.5] * 3)  # beside the model, as mmpretrain has it
    model = dict(type='ImageClassifier', backbone=backbone, head=head)
    peer = shake(MODELS.build(model))
    torch.save(dict(state_dict=peer.state_dict()), tmp_path / 'peer.pth')
    (tmp_path / 'peer.py').write_text(f'model = {model!r}\ndata_preprocessor = {pixels!r}')
    imported = import_weights(tmp_path / 'peer.pth', 'mmpretrain', tmp_path / 'peer.py')
    assert sorted(imported.left_out) == ['head.fc.bias', 'head.fc.weight']
    assert imported.spec.preprocessing == Preprocessing((0.5,) * 3, (0.5,) * 3)

    for name in ('mmslip', 'mmpretrain'):
        export_weights(imported, tmp_path / name, name)
        ours = load(tmp_path / name)
        assert_close(ours.backbone(images())[-1], peer.backbone(images())[-1])
        assert ours.data_preprocessor.mean.flatten().tolist() == [127.5] * 3
    folder = tmp_path / 'mmpretrain'
    again = import_weights(folder, 'mmpretrain', folder / 'config.py')
    assert again.spec == imported.spec
    assert type(load(tmp_path / 'mmpretrain').backbone).__module__.startswith('mmpretrain.')


@pytest.mark.parametrize('kind', ['slip', 'clip', 'simclr'])
@pytest.mark.parametrize('module', [True, False])
def test_official(kind: str, module: bool, tmp_path: Path) -> None:
    """Each kind of the official code; its own numbers are compared in ``tests/parity``."""
    source = torch.load(DATA / 'slip_vit-tiny_official.pt', weights_only=False)['state_dict']
    part = dict(slip='', clip='image_mlp', simclr='visual image_mlp')[kind].split()
    weights = {
        name.removeprefix('module.'): value
        for name, value in source.items()
        if kind == 'slip' or any(word in name for word in part) == (kind == 'simclr')
    }
    prefix = 'module.' * module
    named = {prefix + name: value for name, value in weights.items()}
    torch.save(dict(epoch=1, state_dict=named), tmp_path / 'official.pt')
    (tmp_path / 'tiny.py').write_text(tiny_config(kind))
    imported = import_weights(tmp_path / 'official.pt', config=tmp_path / 'tiny.py')
    assert imported.origin.name == 'official_slip'
    assert imported.left_out == []
    assert (imported.spec.ssl is None) == (kind == 'clip')

    export_weights(imported, tmp_path / 'ours')
    again = import_weights(tmp_path / 'ours')
    assert again.spec == imported.spec
    export_weights(again, tmp_path / 'back', 'official_slip', pth=True)
    back = torch.load(tmp_path / 'back' / 'model.pth', weights_only=False)
    assert_same(back['state_dict'], {f'module.{name}': x for name, x in weights.items()})
    assert back['args'].model.startswith(kind.upper() + '_VIT')
    if kind != 'clip':
        assert (back['args'].ssl_mlp_dim, back['args'].ssl_emb_dim) == (64, 16)


@pytest.mark.parametrize(('size', 'heads'), [('s', 12), ('b', 12), ('l', 16)])
@pytest.mark.parametrize('kind', ['slip', 'clip', 'simclr'])
def test_published_sizes_of_official_slip(kind: str, size: str, heads: int) -> None:
    cfg = Config.fromfile(CONFIGS / kind / f'{kind}_vit-{size}16_yfcc15m.py').model
    with torch.device('meta'):
        wanted = MODELS.build(cfg).state_dict()
    library = FORMATS['official_slip']
    theirs, left_out = library.from_mmslip(wanted, spec_from_config(dict(model=cfg)))
    assert left_out == []
    assert recognise(theirs)[0] is library
    ours, _ = library.to_mmslip(theirs)
    spec = library.read_spec(ours, None, None)
    assert spec.vision.heads == heads
    if kind != 'simclr':
        assert (spec.text.heads, spec.text.activation) == (8, 'quick_gelu')
    assert spec.vision.activation == 'gelu'
    with torch.device('meta'):
        built = MODELS.build(spec.model()).state_dict()
    assert shapes(built) == shapes(ours) == shapes(wanted)


@pytest.mark.parametrize('name', ['ViT-B-32', 'ViT-B-16', 'ViT-L-14'])
@pytest.mark.parametrize('activation', ['gelu', 'quick_gelu'])
def test_published_sizes_of_clip(name: str, activation: str) -> None:
    open_clip = pytest.importorskip('open_clip')
    quick = activation == 'quick_gelu'
    cfg = open_clip.get_model_config(name + '-quickgelu' * quick)
    with torch.device('meta'):
        peer = open_clip.model.CLIP(**cfg)
    theirs = peer.state_dict()
    library, *_ = recognise(theirs)
    assert library.name == 'open_clip'
    ours, left_out = library.to_mmslip(theirs)
    assert left_out == []
    described = library.read_spec(ours, dict(model_cfg=cfg), None)
    # Bare weights of these sizes need the activation alone; OpenAI's not even that.
    assert library.read_spec(ours, None, activation) == described
    assert (FORMATS['openai'].read_spec(ours, None, None) == described) == quick
    assert described.vision.activation == described.text.activation == activation
    with torch.device('meta'):
        built = MODELS.build(described.model())
    assert shapes(built.state_dict()) == shapes(ours)
    assert built.text_backbone.layers[0].num_heads == peer.transformer.resblocks[0].attn.num_heads
    heads = peer.visual.transformer.resblocks[0].attn.num_heads
    assert built.backbone.layers[0].attn.num_heads == heads


def shapes(weights: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in weights.items()}
