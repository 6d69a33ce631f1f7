"""Folders for other libraries: pipelines, precision, tokenisers, cards, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import nn

from mmslip.apis import EmbeddingInferencer, init_model
from mmslip.datasets.transforms import ResizeCenterCrop
from mmslip.utils.config import load_config
from mmslip.weights import ImportedModel, export_weights, exportable, import_weights
from mmslip.weights.formats import FORMATS
from mmslip.weights.load import load_from_local
from mmslip.weights.spec import ModelSpec, TextSpec
from mmslip.weights.tokenizer import tokenizer_files, tokenizer_of
from tests.weights.foreign_models import CLIP, ROOT, assert_same, images, random_slip, vit
from tests.weights.matrix import CONTEXT, export, random_model, shipped, small, write_images


def test_reasons_name_what_to_change() -> None:
    reason = exportable(load_config(ROOT / 'configs/slip/slip_vit-s16_yfcc15m.py'))['open_clip']
    assert 'set model.text_backbone.quick_gelu=False before training' in reason
    reason = exportable(load_config(ROOT / 'configs/slip/slip_tiny_emoji.py'))['timm']
    assert 'model.backbone is a mmslip.ConvTower' in reason
    config = load_config(ROOT / 'configs/slip/slip_vit-b16_yfcc15m.py')
    config.model.neck.type = 'mmslip.MLPProjection'
    assert 'model.neck is a mmslip.MLPProjection' in exportable(config)['hugging_face']
    config = load_config(ROOT / 'configs/slip/slip_vit-b16_yfcc15m.py')
    config.tokenizer = dict(type='mmslip.CLIPTokenizer', merges_file='mine.gz')
    reasons = exportable(config)
    assert 'mine.gz' in reasons['hugging_face']
    assert reasons['timm'] is None


def converted(spec: ModelSpec, to: str, folder: Path) -> tuple[nn.Module, Path]:
    model = random_model(spec.model())
    imported = ImportedModel(model.state_dict(), spec, FORMATS['mmslip'], [])
    export_weights(imported, folder / to, to)
    return model, folder / to


SLIP = ModelSpec(vit(96, 3, layers=2), TextSpec(514, CONTEXT, 64, 1, 2, 'quick_gelu'), 32)


@torch.no_grad()
def test_pipeline_of_transformers(tmp_path: Path) -> None:
    """As everybody tries a folder first: its path and its task."""
    transformers = pytest.importorskip('transformers')
    model, folder = converted(SLIP, 'hugging_face', tmp_path)
    classify = transformers.pipeline('zero-shot-image-classification', model=str(folder))
    (path, *_), names = write_images(tmp_path), ['cat', 'dog', 'ox']
    found = classify(path, candidate_labels=names, hypothesis_template='{}')
    scores = {result['label']: result['score'] for result in found}

    ours = EmbeddingInferencer(init_model(folder, device='cpu'))
    assert ours.tokenizer.num_merges == 0
    (batch,) = ours.preprocess([path])
    image, text = torch.stack(ours.embed(batch)), model.encode_text(ours.tokenizer(names))
    wanted = (model.head.logit_scale.exp() * image @ F.normalize(text, dim=-1).T).softmax(-1)[0]
    assert [scores[name] for name in names] == pytest.approx(wanted.tolist(), abs=1e-3)
    assert wanted.std() > 0.02


@torch.no_grad()
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('size', [0.3, 1.0])
def test_neutral_norm_in_any_precision(dtype: torch.dtype, size: float, tmp_path: Path) -> None:
    """Half floats must lose what they lose in SLIP's own ViT, not the whole image."""
    transformers = pytest.importorskip('transformers')
    model = random_model(SLIP.model())
    for name in ('cls_token', 'pos_embed', 'patch_embed.projection.weight'):
        model.backbone.get_parameter(name).mul_(size)
    weights = model.state_dict()
    export_weights(ImportedModel(weights, SLIP, FORMATS['mmslip'], []), tmp_path, 'hugging_face')
    peer = transformers.CLIPModel.from_pretrained(tmp_path, dtype=dtype).vision_model
    wanted = model.backbone(images(64))[-1]
    model.backbone.to(dtype)
    lost = F.cosine_similarity(model.backbone(images(64).to(dtype))[-1].float(), wanted)
    cosine = F.cosine_similarity(peer(images(64).to(dtype)).pooler_output.float(), wanted)
    assert cosine.min() > 1 - 1e-6 - 8 * (1 - lost.min())


def test_load_from_a_folder_of_another_library(tmp_path: Path) -> None:
    """Names alone do not say that the norm in front is neutral; the description does."""
    model, folder = converted(SLIP, 'hugging_face', tmp_path)
    for source in (folder, folder / 'model.safetensors'):
        assert_same(load_from_local(str(source))['state_dict'], model.state_dict())
    # Trained on elsewhere, it is a CLIP model like any other.
    transformers = pytest.importorskip('transformers')
    peer = transformers.CLIPModel.from_pretrained(folder)
    with torch.no_grad():
        peer.vision_model.pre_layrnorm.weight[3] += 1
    peer.save_pretrained(folder)
    imported = import_weights(folder)
    assert imported.spec.vision.pre_norm
    assert imported.spec.vision.eps == 1e-6 * 64**2


IDS = {
    'a photo of a cat': 'same',
    'tom &amp; jerry &amp;lt;3': 'same',
    '\ufb01ne \uff28\uff29 \u2018x\u2019 e\u0301 \x07bell': 'same',
    '<|startoftext|> <|endoftext|>': 'same',
    '\u65e5\u672c\u8a9e \U0001f436': 'same',
    'word ' * 99: 'same',
    'x&eacute;y': 'other',  # a rare entity
    '\u201c9 \u00df\u201c9'.encode().decode('latin-1'): 'other',  # wrongly decoded
}


@pytest.mark.parametrize(('vocab_size', 'length'), [(514, 8), (4514, 16)])
def test_tokenizer_files(vocab_size: int, length: int, tmp_path: Path) -> None:
    transformers = pytest.importorskip('transformers')
    text = TextSpec(vocab_size, length, 64, 1, 2, 'gelu')
    ours = tokenizer_of(text)
    for name, content in tokenizer_files(ours).items():
        (tmp_path / name).write_text(content, encoding='utf-8')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (len(theirs), theirs.model_max_length) == (vocab_size, length)
    assert theirs.pad_token_id == theirs.eos_token_id == vocab_size - 1
    for caption, same in IDS.items():
        wanted = ours(caption)[0].tolist()
        wanted = wanted[: wanted.index(ours.end_id) + 1]
        batch = theirs(caption, truncation=True)
        assert batch.keys() == {'input_ids', 'attention_mask'}
        found = batch['input_ids']
        assert len(found) <= length
        assert found[-1] == ours.end_id
        assert (found == wanted) == (same == 'same'), caption
    assert len((tmp_path / 'merges.txt').read_text().splitlines()) == 1 + ours.num_merges
    assert len(json.loads((tmp_path / 'vocab.json').read_text())) == vocab_size


@pytest.mark.parametrize(('width', 'apart'), [(40, 0), (41, 0), (42, 0), (43, 1)])
def test_crop_of_transformers(width: int, apart: int) -> None:
    """It rounds half a pixel down, torchvision to the even one, mmslip as it is told."""
    transformers = pytest.importorskip('transformers')
    prepare = transformers.CLIPImageProcessor(
        size=dict(shortest_edge=32), crop_size=dict(height=32, width=32), do_normalize=False
    )
    pixels = np.broadcast_to(np.arange(width, dtype=np.uint8)[:, None], (32, width, 3))
    found = prepare(Image.fromarray(pixels.copy()), return_tensors='np', do_rescale=False)
    theirs = found['pixel_values'][0].transpose(1, 2, 0)  # (32, 32, 3)
    ours = ResizeCenterCrop(32, rounding='down').transform(dict(img=pixels))['img']
    np.testing.assert_array_equal(ours, theirs)
    ours = ResizeCenterCrop(32).transform(dict(img=pixels))['img']
    assert (ours - theirs == apart).all()
    even = torchvision.transforms.CenterCrop(32)(Image.fromarray(pixels.copy()))
    np.testing.assert_array_equal(ours, np.asarray(even))


def test_model_card(tmp_path: Path) -> None:
    hub = pytest.importorskip('huggingface_hub')
    config = small('slip/slip_vit-b16_yfcc15m')
    config.train_dataloader = shipped('slip/slip_vit-b16_yfcc15m').train_dataloader
    line = dict(protocol='zero_shot', task='pets', metric='top1', value=41.25, official=True)
    lines = [dict(line, value=3), dict(line, low=40.0, high=42.5), dict(line, official=False)]
    text = '\n'.join(map(json.dumps, lines)) + '\n{"damaged'
    (tmp_path / 'results.jsonl').write_text(text)
    folder = export(config, 'timm', tmp_path)
    card = hub.ModelCard.load(folder / 'README.md')
    assert (card.data.library_name, card.data.license) == ('timm', None)
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ('pets', 'top1', 41.25)
    for fact in ('Data: YFCC15M', 'Learning rate: 0.003', 'top1 41.25 (40 to 42.5)'):
        assert fact in card.text
    (folder / 'README.md').write_text('mine')  # such as with a licence
    export(config, 'timm', tmp_path)
    assert (folder / 'README.md').read_text() == 'mine'


def test_a_foreign_tokenizer_is_refused(tmp_path: Path) -> None:
    for changes in (dict(vocab_size=99), dict(tokenizer="{'type': 'Mine'}")):
        spec = replace(CLIP, text=replace(CLIP.text, **changes))
        model = ImportedModel(random_slip(spec).state_dict(), spec, FORMATS['mmslip'], [])
        for to in ('hugging_face', 'open_clip'):
            with pytest.raises(ValueError, match='text tower'):
                export_weights(model, tmp_path / 'out', to)
    assert not (tmp_path / 'out').exists()
