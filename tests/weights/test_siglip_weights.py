"""SigLIP of Hugging Face: read, run and written back, from raw files and strings."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from mmslip.analysis.exports import check_exports
from mmslip.apis import EmbeddingInferencer, ZeroShotClassificationInferencer, init_model
from mmslip.models import AttentionPooling
from mmslip.registry import MODELS
from mmslip.utils.config import load_config
from mmslip.weights import ImportedModel, export_weights, exportable, import_weights
from mmslip.weights.load import load_from_local
from mmslip.weights.stated import require_stated
from mmslip.weights.towers import towers_of
from tests.weights.foreign_models import (
    CLIP,
    SIDE,
    assert_same,
    images,
    random_slip,
    siglip_model,
    write_siglip,
)
from tests.weights.matrix import assert_agree, write_images

TEXTS = [
    'a photo of a cat',
    'A  DOG\nthat sleeps, on GRASS!!',
    'two cats on a sofa; ' * 6,  # is cut
    '',
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    write_siglip(tmp_path / 'siglip')
    return tmp_path / 'siglip'


@torch.no_grad()
def in_transformers(folder: Path, paths: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings and logits as the library's own processor prepares files and strings."""
    transformers = pytest.importorskip('transformers')
    model, info = transformers.SiglipModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    prepare = transformers.AutoImageProcessor.from_pretrained(folder)
    pixels = prepare([Image.open(path) for path in paths], return_tensors='pt')
    settings = dict(padding='max_length', truncation=True, return_tensors='pt')
    ids = tokenizer(TEXTS, **settings)
    assert list(ids) == ['input_ids']  # no mask
    output = model(**pixels, **ids)
    return output.image_embeds, output.text_embeds, output.logits_per_image


@torch.no_grad()
def in_mmslip(folder: Path, paths: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    inferencer = EmbeddingInferencer(init_model(folder, device='cpu'))
    (batch,) = inferencer.preprocess(paths, batch_size=len(paths))
    image = F.normalize(torch.stack(inferencer.embed(batch)), dim=-1)
    model = inferencer.model
    text = model.encode_text(model.trim_text(inferencer.tokenizer(TEXTS)))
    text = F.normalize(text, dim=-1)
    head = model.head
    return image, text, image @ text.T * head.logit_scale.exp() + head.logit_bias


@torch.no_grad()
def test_both_ways(folder: Path, tmp_path: Path) -> None:
    paths = write_images(tmp_path)
    imported = import_weights(folder)
    assert imported.origin.name == 'hugging_face_siglip'
    assert imported.left_out == []
    assert export_weights(imported, tmp_path / 'ours') == []
    again = import_weights(tmp_path / 'ours')
    assert again.spec.vision == imported.spec.vision
    assert export_weights(again, tmp_path / 'back', 'hugging_face_siglip') == []
    assert_same(import_weights(tmp_path / 'back').weights, imported.weights)
    wanted = in_transformers(folder, paths)
    for found in (in_mmslip(tmp_path / 'ours', paths), in_transformers(tmp_path / 'back', paths)):
        assert_agree(found[0], wanted[0])
        assert_agree(found[1], wanted[1])
        # Resized by torchvision there and by Pillow here, a pixel is a grey level off now and then.
        torch.testing.assert_close(found[2], wanted[2], rtol=0, atol=1e-2)


def logits(model: nn.Module, pixels: Tensor, ids: Tensor) -> Tensor:
    image, text = model.encode_image(pixels), model.encode_text(model.trim_text(ids))
    cosine = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    return cosine * model.head.logit_scale.exp() + model.head.logit_bias


@torch.no_grad()
@pytest.mark.parametrize('act', ['gelu_pytorch_tanh', 'gelu', 'quick_gelu'])
def test_logits_of_the_same_pixels_and_ids(act: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    peer = write_siglip(tmp_path / 'siglip', hidden_act=act, layer_norm_eps=1e-4)
    imported = import_weights(tmp_path / 'siglip')
    names = dict(gelu_pytorch_tanh='gelu_tanh')
    assert imported.spec.vision.activation == names.get(act, act)
    export_weights(imported, tmp_path / 'ours')
    model = init_model(tmp_path / 'ours', device='cpu')
    ids = torch.randint(3, 120, (5, 24))
    ids[1, 6:] = ids[2, 1:] = 1
    wanted = peer(pixel_values=images(), input_ids=ids).logits_per_image
    assert wanted.std(dim=1).min() > 0.1
    torch.testing.assert_close(logits(model, images(), ids), wanted, rtol=0, atol=1e-4)


@torch.no_grad()
def test_other_sizes_have_the_positions_of_transformers(folder: Path, tmp_path: Path) -> None:
    peer = siglip_model()
    pixels = images(48)
    wanted = peer.vision_model(pixels, interpolate_pos_encoding=True).pooler_output
    export_weights(import_weights(folder, image_size=48), tmp_path / 'ours')
    model = init_model(tmp_path / 'ours', device='cpu')
    assert model.backbone.img_size == (48, 48)
    torch.testing.assert_close(model.encode_image(pixels), wanted, rtol=1e-4, atol=1e-4)
    assert_agree(model.encode_image(pixels), wanted)


def test_the_pipeline_of_transformers_runs_a_folder(tmp_path: Path) -> None:
    """Which pads to 64 ids, whatever the folder says: published models have as many."""
    transformers = pytest.importorskip('transformers')
    torch.manual_seed(0)
    write_siglip(tmp_path / 'siglip', length=64)
    imported = import_weights(tmp_path / 'siglip')
    export_weights(imported, tmp_path / 'out', 'hugging_face_siglip')
    path, labels = write_images(tmp_path)[0], ['Red, dog!', 'cat', 'grass']
    kind = 'zero-shot-image-classification'
    pipeline = transformers.pipeline(kind, model=str(tmp_path / 'out'))
    scores = {found['label']: found['score'] for found in pipeline(path, candidate_labels=labels)}
    classify = ZeroShotClassificationInferencer(init_model(tmp_path / 'siglip', device='cpu'))
    (found,) = classify(path, labels, ['This is a photo of {}.'], topk=3)
    for top in found['top']:
        logit = top['similarity'] * math.exp(2.3) - 7
        assert scores[top['label']] == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-2)
    assert max(scores.values()) > 1.05 * min(scores.values())


def test_no_other_library_takes_it(folder: Path, tmp_path: Path) -> None:
    imported = import_weights(folder)
    for name, reason in {
        'hugging_face': 'no text tower like mmslip.SigLIPTextTransformer',
        'open_clip': 'no text tower like mmslip.SigLIPTextTransformer',
        'timm': 'timm has no ViT with',
    }.items():
        with pytest.raises(ValueError, match=reason):
            export_weights(imported, tmp_path / name, name)
    # The image tower alone: a map of its patches.
    export_weights(imported, tmp_path / 'mmpretrain', 'mmpretrain')
    reasons = exportable(load_config(write_config(folder, tmp_path)))
    assert reasons['hugging_face_siglip'] is reasons['mmslip'] is reasons['mmpretrain'] is None
    finding = check_exports(load_config(tmp_path / 'ours' / 'config.py'))
    assert 'can be converted for mmslip, hugging_face_siglip, mmpretrain' in finding.finding
    assert "Hugging Face's CLIPModel" not in finding.finding


def write_config(folder: Path, target: Path) -> Path:
    export_weights(import_weights(folder), target / 'ours')
    return target / 'ours' / 'config.py'


def test_parts_of_both_kinds(folder: Path, tmp_path: Path) -> None:
    """Attention pooling beside CLIP's text tower, and the sigmoid loss without its biases."""
    config = load_config(write_config(folder, tmp_path))
    text = dict(type='mmslip.TextTransformer', vocab_size=600, width=32, num_heads=2, num_layers=1)
    mixed = copy.deepcopy(config)
    mixed.model.text_backbone, mixed.custom_hooks = text, []
    reasons = exportable(mixed)
    for name in ('hugging_face', 'open_clip', 'openai', 'official_slip'):
        assert reasons[name] is not None
    assert "needs pooling 'class_token' in its vision tower" in reasons['hugging_face']
    assert 'alone: choose another format' in reasons['hugging_face_siglip']
    plain = copy.deepcopy(config)
    plain.model.text_neck.bias = False
    assert 'a bias in head and text projection' in exportable(plain)['hugging_face_siglip']
    shortest = copy.deepcopy(config)
    shortest.test_pipeline[1:3] = [dict(type='mmslip.ResizeCenterCrop', size=SIDE)]
    assert "needs resize 'squash'" in exportable(shortest)['hugging_face_siglip']
    other = copy.deepcopy(config)
    other.model.neck.num_heads = 4
    assert 'model.neck has other heads' in exportable(other)['mmslip']
    other.model.neck = dict(type='mmslip.LinearProjection', out_channels=8)
    assert 'another output than its class token' in exportable(other)['mmslip']


def change(path: Path, **settings: object) -> None:
    content = json.loads(path.read_text())
    for key, value in settings.items():
        part, _, name = key.rpartition('__')
        (content[part] if part else content)[name] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ('file', 'settings', 'message'),
    [
        ('config', dict(model_type='siglip2'), "model_type is 'siglip2' in config.json"),
        ('config', dict(vision_config__hidden_act='relu'), "vision_config.hidden_act is 'relu'"),
        ('config', dict(text_config__hidden_act='silu'), "text_config.hidden_act is 'silu'"),
        (
            'preprocessor_config',
            dict(size=dict(height=40, width=40)),
            "has size {'height': 40, 'width': 40} and do_center_crop False",
        ),
        ('preprocessor_config', dict(do_center_crop=True), 'do_center_crop True, which makes no'),
        ('preprocessor_config', dict(resample=4), "The interpolation 'resample=4'"),
        ('tokenizer_config', dict(padding_side='left'), "padding_side 'left', and padding counts"),
        ('tokenizer_config', dict(pad_token=None), 'name no pad_token, and padding counts'),
        ('tokenizer_config', dict(pad_token='?'), "pad_token='\\?' is not in the vocabulary"),
    ],
)
def test_what_cannot_be_read_is_named(
    file: str, settings: dict, message: str, folder: Path, tmp_path: Path
) -> None:
    change(folder / f'{file}.json', **settings)
    with pytest.raises(ValueError, match=message):
        export_weights(import_weights(folder), tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_a_folder_of_transformers_5(folder: Path) -> None:
    """Whose processor is one file for images and texts."""
    wanted = import_weights(folder).spec.preprocessing
    change(folder / 'preprocessor_config.json', resample=2, image_mean=[0.4, 0.5, 0.6])
    settings = json.loads((folder / 'preprocessor_config.json').read_text())
    (folder / 'preprocessor_config.json').unlink()
    assert import_weights(folder).spec.preprocessing == wanted  # SigLIP's
    (folder / 'processor_config.json').write_text(json.dumps(dict(image_processor=settings)))
    found = import_weights(folder).spec.preprocessing
    assert (found.interpolation, found.mean) == ('bilinear', (0.4, 0.5, 0.6))


def test_a_config_that_contradicts_the_weights(folder: Path, tmp_path: Path) -> None:
    config = load_config(write_config(folder, tmp_path))
    spec = load_from_local(folder)['spec']
    require_stated(spec, MODELS.build(config.model), 'siglip')
    gelu = dict(type='GELU', approximate='none')
    config.model.backbone.layer_cfgs = dict(act_cfg=gelu)
    config.model.neck.num_heads = 4
    config.model.text_backbone.update(act_cfg=gelu, norm_cfg=dict(type='LN', eps=1e-5))
    with pytest.raises(ValueError, match='other settings') as caught:
        require_stated(spec, MODELS.build(config.model), 'siglip')
    for fault in (
        'model.backbone.layer_cfgs.act_cfg is GELU, of the weights GELU (tanh)',
        'model.neck.num_heads is 4, of the weights 2',
        'model.text_backbone.act_cfg is GELU, of the weights GELU (tanh)',
        'model.text_backbone.norm_cfg.eps is 1e-05, of the weights 1e-06',
    ):
        assert fault in str(caught.value)
    assert str(caught.value).count(', of the weights ') == 4


@torch.no_grad()
def test_rows_of_other_libraries_get_their_padding(folder: Path) -> None:
    """Programs are given ids as short as the longest text, with any padding behind the end."""
    model = init_model(folder, device='cpu')
    inferencer = EmbeddingInferencer(model)
    ids = inferencer.tokenizer([TEXTS[0], TEXTS[3]])
    tower = towers_of(model, inferencer.tokenizer)['text']
    wanted = F.normalize(model.encode_text(ids), dim=-1)
    short = ids[:, :20].clone()
    ends = (short == 1).int()
    short[ends.cumsum(dim=1) > 1] = 0
    assert not short.equal(ids[:, :20])
    torch.testing.assert_close(tower(short), wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(tower(ids), wanted, rtol=0, atol=1e-6)


def test_descriptions_of_older_folders(tmp_path: Path) -> None:
    """They know nothing of pooling and of the bias of texts."""
    export_weights(ImportedModel(random_slip(CLIP).state_dict(), CLIP, None, []), tmp_path / 'out')
    path = tmp_path / 'out' / 'mmslip.json'
    content = json.loads(path.read_text())
    assert content.pop('text_bias') is False
    assert content['vision'].pop('pooling') == 'class_token'
    path.write_text(json.dumps(content))
    assert import_weights(tmp_path / 'out').spec == CLIP


def test_pooling_needs_patches() -> None:
    with pytest.raises(ValueError, match="set its out_type='featmap'"):
        AttentionPooling(8, 2)((torch.zeros(2, 8),))
