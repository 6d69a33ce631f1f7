"""Exported towers, run by onnxruntime, transformers.js and torch.export."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

import mmslip
from mmslip.apis import EmbeddingInferencer, init_model
from mmslip.cli import export
from mmslip.datasets import HuggingFaceTokenizer
from mmslip.models import SLIP
from mmslip.registry import MODELS as SLIP_MODELS
from mmslip.utils.config import load_config
from mmslip.weights import ModelSpec
from mmslip.weights.preprocessing import CLIP_PIXELS, find_test_pipeline
from mmslip.weights.programs import write_torch
from mmslip.weights.tokenizer import tokenizer_files
from mmslip.weights.towers import Tower, towers_of
from tests.text_parts import CAPTIONS, KINDS, MODELS, write_tokenizer
from tests.weights.foreign_models import CLIP, SIDE, images, random_slip, save, texts, vit
from tests.weights.matrix import random_model, small, write_images

TEXTS = [
    'a photo of a cat',
    'A  DOG\nthat doesn\u2019t bark at 2 o\u2019clock!!',
    'caf\u00e9 &amp; \uff22\uff21\uff32 \u2014 \u201cquoted\u201d \ufb01ne',
    'red heart with ribbon',
    '',
    'one two three four five six seven eight nine ten eleven twelve thirteen',  # is cut
]


@torch.no_grad()
@pytest.mark.parametrize('to', ['onnx', 'torch'])
def test_export(to: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip('onnxscript')
    clip = replace(CLIP, vision=replace(CLIP.vision, layers=1), text=replace(CLIP.text, layers=1))
    model = random_slip(clip)
    ours = save(model, clip, tmp_path / 'ours')
    export.main([*map(str, (ours, tmp_path / 'out')), '--to', to])
    assert 'embeddings as before up to a cosine of 1.0000000' in capsys.readouterr().out
    described = json.loads((tmp_path / 'out' / 'export.json').read_text())
    files = described['files']['fp32']
    for name, inputs, encode in (
        ('image', images(), model.encode_image),
        ('text', texts(), model.encode_text),
    ):
        for batch in (inputs, inputs[:1], inputs.repeat(4, *[1] * (inputs.dim() - 1))):
            expected = F.normalize(encode(batch), dim=-1)
            (got,) = run_exported(tmp_path / 'out' / files[name], batch)
            np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=1e-4)
    short = texts()[1:2, :5]
    (got,) = run_exported(tmp_path / 'out' / files['text'], short)
    expected = F.normalize(model.encode_text(short), dim=-1)
    np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=1e-4)
    assert ('both' in files) == (to == 'onnx')
    if to == 'onnx':
        logits, transposed, image, text = run_exported(
            tmp_path / 'out' / files['both'], images(), texts()
        )
        np.testing.assert_allclose(logits, described['scale'] * image @ text.T, atol=1e-3)
        assert np.array_equal(logits.T, transposed)
    assert described['normalised'] is True
    assert described['image']['size'] == described['image']['resize_size'] == SIDE
    assert (described['image']['interpolation'], described['image']['resize']) == (
        'bicubic',
        'shortest',
    )
    assert described['image']['mean'] == pytest.approx(CLIP_PIXELS['mean'])
    assert described['image']['std'] == pytest.approx(CLIP_PIXELS['std'])
    assert described['text']['context_length'] == CLIP.text.context_length
    assert described['scale'] == pytest.approx(model.head.logit_scale.exp().item())


def run_exported(path: Path, *inputs: Tensor) -> list[np.ndarray]:
    if path.suffix == '.pt2':
        return [torch.export.load(path).module()(*inputs).numpy()]
    onnxruntime = pytest.importorskip('onnxruntime')
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    names = [part.name for part in session.get_inputs()]
    return session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})


@torch.no_grad()
def test_export_of_an_image_tower_alone(tmp_path: Path) -> None:
    spec = ModelSpec(vit(32, 2))
    model = random_slip(spec)
    ours = save(model, spec, tmp_path / 'ours')
    export.main([*map(str, (ours, tmp_path / 'out')), '--to', 'torch'])
    described = json.loads((tmp_path / 'out' / 'export.json').read_text())
    assert described['normalised'] is False
    assert described.keys() == {'files', 'image', 'normalised'}
    (got,) = run_exported(tmp_path / 'out' / 'image.pt2', images(64))
    np.testing.assert_allclose(got, model.backbone(images(64))[-1].numpy(), rtol=0, atol=1e-5)


def test_export_needs_the_scale_of_the_pixels(tmp_path: Path) -> None:
    spec = ModelSpec(vit(32, 2))
    ours = save(random_slip(spec), spec, tmp_path / 'ours')
    model = {key: value for key, value in spec.model().items() if key != 'data_preprocessor'}
    (ours / 'config.py').write_text(f'model = {model!r}')
    with pytest.raises(SystemExit, match=r'config\.py has no data_preprocessor with mean and std'):
        export.main([*map(str, (ours, tmp_path / 'out', '--config', ours / 'config.py'))])


@torch.no_grad()
def test_projections_that_return_tuples(make_slip: Callable[..., SLIP]) -> None:
    mlp = dict(
        type='mmslip.MLPProjection',
        in_channels=32,
        hid_channels=24,
        out_channels=16,
        num_layers=2,
        norm_cfg=dict(type='BN1d'),
    )
    model = make_slip(neck=mlp, text_neck=mlp).eval()
    ids = torch.tensor([[30, 4, 31, 0], [30, 4, 5, 31]])
    tokenizer = SimpleNamespace(before=(30,), end_id=31, pad_id=0)
    towers = towers_of(model, tokenizer)
    for name, example, encode in (
        ('image', images(32), model.encode_image),
        ('text', ids, model.encode_text),
    ):
        assert torch.equal(towers[name](example), F.normalize(encode(example), dim=-1))
    # A text that has lost its end gets it back; other padding is as good.
    cut = torch.tensor([[30, 4, 31, 31], [30, 4, 5, 6]])
    assert torch.equal(towers['text'](cut), towers['text'](ids))
    cut[0, -1] = 9
    assert torch.equal(towers['text'](cut), towers['text'](ids))


@pytest.mark.parametrize('kind', KINDS)
def test_tokenizer_files_of_other_kinds(kind: str, tmp_path: Path) -> None:
    """Read by the library `tokenizers` alone, as the card does, they give the same rows."""
    ours = HuggingFaceTokenizer(write_tokenizer(tmp_path / 'theirs', kind), 9)
    for name, text in tokenizer_files(ours).items():
        (tmp_path / name).write_text(text, encoding='utf-8')
    theirs = Tokenizer.from_file(str(tmp_path / 'tokenizer.json'))
    theirs.encode_special_tokens = True
    theirs.enable_padding(pad_id=ours.pad_id, length=9)
    assert [row.ids for row in theirs.encode_batch(CAPTIONS)] == ours(CAPTIONS).tolist()
    settings = json.loads((tmp_path / 'tokenizer_config.json').read_text())
    assert theirs.token_to_id(settings['pad_token']) == ours.pad_id
    assert theirs.token_to_id(settings['eos_token']) == ours.end_id


def export_config(config: Config, folder: Path, dtypes: tuple[str, ...] = ('fp32',)) -> Path:
    """Export random weights of a config; returns the checkpoint."""
    weights = folder / 'epoch_1.pth'
    torch.save(dict(state_dict=random_model(config.model).state_dict()), weights)
    export.export(weights, folder / 'out', config=config, dtypes=dtypes)
    return weights


def embed(model: torch.nn.Module, paths: list[str]) -> dict[str, Tensor]:
    """Embeddings by mmslip, from files and strings."""
    inferencer = EmbeddingInferencer(model)
    (batch,) = inferencer.preprocess(paths, batch_size=len(paths))
    if not model.with_text:
        return dict(image=torch.stack(inferencer.embed(batch)))
    with torch.no_grad():
        text = F.normalize(model.encode_text(inferencer.tokenizer(TEXTS)), dim=-1)
    return dict(image=torch.stack(inferencer.embed(batch)), text=text)


def embed_by_the_card(folder: Path, paths: list[str]) -> dict[str, Tensor]:
    """Embeddings by the code of a model card, in a process without PyTorch and mmslip."""
    pytest.importorskip('onnxruntime')
    card = (folder / 'README.md').read_text(encoding='utf-8')
    code = re.search(r'```python\n(.*?)```', card, re.DOTALL)[1]
    code += f'PATHS, TEXTS = {paths!r}, {TEXTS!r}\nfound = dict(image=embed_images(PATHS))\n'
    if 'embed_texts' in code:
        code += 'found.update(text=embed_texts(TEXTS), score=classify(PATHS, TEXTS))\n'
    code += "np.savez('found.npz', **found)\nimport sys\n"
    code += "assert not {'torch', 'mmslip', 'transformers'} & sys.modules.keys()"
    # Not this folder on the path, as PYTHONPATH may have it.
    subprocess.run([sys.executable, '-c', code], cwd=folder.parent, check=True)
    with np.load(folder.parent / 'found.npz') as found:
        return {name: torch.from_numpy(found[name]) for name in found}


def assert_agree(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for name, value in wanted.items():
        cosine = F.cosine_similarity(found[name].double(), value.double(), dim=-1)
        assert cosine.min() >= 1 - 1e-5, name
        # Or closeness would say nothing.
        assert F.cosine_similarity(value[:1], value[1:], dim=-1).max() < 0.99, name


def foreign_text(config: Config, folder: Path) -> None:
    """Replace the text tower by one of transformers, with a tokeniser that pads by its own id."""
    pytest.importorskip('transformers')
    folder = write_tokenizer(folder, 'xlm-roberta')
    model = MODELS['xlm-roberta']
    config.model.text_backbone = dict(type='mmslip.HuggingFaceText', config=model, pad_id=1)
    config.model.text_neck.in_channels = model['hidden_size']
    tokenizer = dict(type='mmslip.HuggingFaceTokenizer', path=str(folder), context_length=12)
    config.custom_hooks = [dict(type='mmslip.ZeroShotHook', tokenizer=tokenizer)]


@pytest.mark.parametrize(
    'name',
    [
        'slip/slip_siglip_vit-b16_yfcc15m',  # Pillow's bilinear filter; the sigmoid loss
        'simclr/simclr_vit-b16_yfcc15m',  # no texts
    ],
)
def test_card_from_files_and_strings(name: str, tmp_path: Path) -> None:
    config = small(name)
    config = Config(dict(model=config.model, test_pipeline=find_test_pipeline(config)))
    if config.model.get('text_backbone'):
        foreign_text(config, tmp_path / 'tokenizer')
    paths = write_images(tmp_path)
    weights = export_config(config, tmp_path)
    model = init_model(config, weights, 'cpu')
    found, wanted = embed_by_the_card(tmp_path / 'out', paths), embed(model, paths)
    if not model.with_text:
        found['image'] = F.normalize(found['image'], dim=-1)
    assert_agree(found, wanted)
    if model.with_text:
        logits = model.head.logit_scale.exp() * wanted['image'] @ wanted['text'].T
        sigmoid = hasattr(model.head, 'logit_bias')
        scores = (logits + model.head.logit_bias).sigmoid() if sigmoid else logits.softmax(-1)
        assert (found['score'] - scores.detach()).abs().max() < 1e-4
    kind = json.loads((tmp_path / 'out' / 'config.json').read_text())['model_type']
    assert kind == ('siglip' if 'siglip' in name else 'clip')


@pytest.fixture(scope='module')
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights that come with mmslip in every precision."""
    pytest.importorskip('onnxscript')
    folder = tmp_path_factory.mktemp('shipped') / 'out'
    arguments = ['--config', 'slip_tiny_emoji', '--dtype', 'fp32', 'fp16', 'int8']
    export.main(['pretrained', str(folder), *arguments])
    return folder


def test_shipped_weights_from_files_and_strings(shipped: Path, tmp_path: Path) -> None:
    paths = write_images(tmp_path)
    model = mmslip.get_model('slip_tiny_emoji', pretrained=True, device='cpu')
    assert_agree(embed_by_the_card(shipped, paths), embed(model, paths))


def test_precisions_of_the_shipped_weights(shipped: Path, tmp_path: Path) -> None:
    model = mmslip.get_model('slip_tiny_emoji', pretrained=True, device='cpu')
    wanted = embed(model, write_images(tmp_path))
    inferencer = EmbeddingInferencer(model)
    (batch,) = inferencer.preprocess(write_images(tmp_path), batch_size=4)
    pixels = torch.stack([sample['inputs']['image'] for sample in batch])
    pixels = model.data_preprocessor(dict(inputs=dict(image=pixels)))['inputs']['image']
    inputs = dict(image=pixels, text=inferencer.tokenizer(TEXTS))
    files = json.loads((shipped / 'export.json').read_text())['files']
    for dtype, lost in dict(fp16=1e-5, int8=5e-3).items():
        for name, value in inputs.items():
            path = shipped / files[dtype][name]
            (found,) = run_exported(path, value)
            cosine = F.cosine_similarity(torch.from_numpy(found).double(), wanted[name].double())
            assert cosine.min() > 1 - lost, path
            ratio = path.stat().st_size / (shipped / files['fp32'][name]).stat().st_size
            assert ratio < dict(fp16=0.55, int8=0.4)[dtype], path


@torch.no_grad()
def test_any_number_of_images_in_swin(tmp_path: Path) -> None:
    """Whose own code counts them in floats."""
    arch = dict(embed_dims=12, depths=[2, 1], num_heads=[2, 4])
    cfg = dict(type='SwinTransformer', arch=arch, img_size=32, window_size=4, out_indices=(1,))
    torch.manual_seed(0)
    tower = Tower(SLIP_MODELS.build(cfg), None).eval()
    paths = dict(fp32=tmp_path / 'image.pt2')
    run = write_torch(tower, dict(pixel_values=images()[:2]), paths)['fp32']
    for batch in (images(), images()[:1]):
        (found,) = run(batch)
        torch.testing.assert_close(found, tower(batch))


def test_int8_is_for_onnx(tmp_path: Path) -> None:
    spec = ModelSpec(vit(32, 2))
    ours = save(random_slip(spec), spec, tmp_path / 'ours')
    with pytest.raises(SystemExit, match='int8 is for ONNX'):
        export.main([*map(str, (ours, tmp_path / 'out')), '--to', 'torch', '--dtype', 'int8'])


NODE_MODULES = 'MMSLIP_NODE_MODULES'


def test_transformers_js(shipped: Path, tmp_path: Path) -> None:
    """After `npm install @huggingface/transformers`, with the path of its `node_modules`."""
    modules, node = os.environ.get(NODE_MODULES), shutil.which('node')
    if node is None or modules is None:
        pytest.skip(f'there is no node, or {NODE_MODULES} does not name a folder of its packages')
    paths = [*write_images(tmp_path), str(tmp_path / 'same_size.png')]
    Image.open(paths[0]).crop((0, 0, 32, 32)).save(paths[-1])
    inputs = dict(images=paths, texts=TEXTS, labels=TEXTS[:4])
    (tmp_path / 'inputs.json').write_text(json.dumps(inputs))
    script = Path(__file__).with_name('transformers_js.mjs')
    command = [node, script, modules, shipped, tmp_path / 'inputs.json']
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(output.splitlines()[-1])
    model = mmslip.get_model('slip_tiny_emoji', pretrained=True, device='cpu')
    wanted = embed(model, paths)
    assert_agree(dict(text=torch.tensor(found['texts'])), dict(text=wanted['text']))
    for kind, least in dict(lanczos=0.999, bilinear=0.9).items():
        cosine = F.cosine_similarity(torch.tensor(found[kind]), wanted['image'])
        print(f'transformers.js {found["version"]}, {kind}: {cosine.tolist()}')
        assert cosine.min() > least
        assert cosine[-1] > 1 - 1e-5
    image = torch.tensor(found['lanczos'])
    logits = model.head.logit_scale.exp() * image[:1] @ wanted['text'][:4].T
    scores = {line['label']: line['score'] for line in found['scores']}
    expected = logits.softmax(-1)[0].tolist()
    assert [scores[label] for label in TEXTS[:4]] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
@pytest.mark.skipif('MMSLIP_SLOW_TESTS' not in os.environ, reason='takes a minute for each')
@pytest.mark.parametrize('name', mmslip.list_models())
def test_every_shipped_config(name: str, tmp_path: Path) -> None:
    """At full size, with random weights, from files and strings."""
    config = load_config(name)
    config.model.backbone.init_cfg = None
    paths = write_images(tmp_path)
    model = init_model(config, None, 'cpu')
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'epoch_1.pth')
    export.export(tmp_path / 'epoch_1.pth', tmp_path / 'out', config=config)
    found, wanted = embed_by_the_card(tmp_path / 'out', paths), embed(model, paths)
    for key, value in wanted.items():
        assert F.cosine_similarity(found[key].double(), value.double()).min() >= 1 - 1e-5
