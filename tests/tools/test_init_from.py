"""``mmslip init --from``: published weights become an experiment that starts where they are."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from mmslip.apis import init_model
from mmslip.cli import doctor, init, train
from mmslip.datasets import CLIPTokenizer
from mmslip.models import SLIP
from mmslip.registry import DATASETS, MODELS
from mmslip.utils.config import load_config
from mmslip.weights import fit_weights
from mmslip.weights.load import load_from_local
from mmslip.weights.preprocessing import CLIP_PIXELS, IMAGENET_PIXELS
from tests.weights.foreign_models import (
    CONTEXT,
    SIDE,
    write_bare_open_clip,
    write_hugging_face,
    write_official,
    write_open_clip,
    write_openai_archive,
    write_siglip,
)


@pytest.fixture
def root(make_pairs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 48 pairs, in which the commands are typed."""
    root = make_pairs(48, captions=1)
    monkeypatch.chdir(root)
    return root


def run(*arguments: object) -> str:
    init.main(['own', '--data', 'pairs.jsonl', *map(str, arguments)])
    return Path('own.py').read_text()


def refusal(*arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    return str(caught.value)


def _slip(model: SLIP) -> tuple:
    return model, model.encode_image, model.encode_text


# What each library has on its disk, and its own embeddings.
PEERS = {
    'hugging_face': lambda path: write_hugging_face(path),
    'open_clip': lambda path: write_open_clip(path),
    'openai': lambda path: _slip(write_openai_archive(path)),
    'official_slip': lambda path: _slip(write_official(path)),
}


QUICK = ['train_cfg.max_epochs=2', 'train_cfg.val_interval=2']
QUICK += ['train_dataloader.num_workers=0', 'val_dataloader.num_workers=0']


def held_out_of(table: list[dict]) -> list[dict]:
    rows = json.loads(Path('own_split.json').read_text())['held_out']
    return [table[row] for row in rows]


@torch.no_grad()
def embeddings(name: str, encode_image: Callable, encode_text: Callable) -> tuple[Tensor, Tensor]:
    """Of the held-out pairs as the library itself prepares them, normalised."""
    official = name == 'official_slip'
    side = 64 if official else SIDE
    pixels = IMAGENET_PIXELS if official else CLIP_PIXELS
    filter_ = v2.InterpolationMode.BILINEAR if official else v2.InterpolationMode.BICUBIC
    crop = _crop_of_transformers if name == 'hugging_face' else v2.CenterCrop(side)
    steps = [v2.Resize(side, filter_), crop, v2.PILToTensor()]
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(**pixels)]
    pairs = held_out_of([json.loads(line) for line in Path('pairs.jsonl').read_text().splitlines()])
    pictures = [Image.open(Path('images', pair['image'])).convert('RGB') for pair in pairs]
    images = torch.stack([v2.Compose(steps)(picture) for picture in pictures])
    tokenizer = CLIPTokenizer(77 if official else CONTEXT, num_merges=86)
    texts = tokenizer([pair['caption'][0] for pair in pairs])
    return F.normalize(encode_image(images), dim=-1), F.normalize(encode_text(texts), dim=-1)


def _crop_of_transformers(image: Image.Image) -> Image.Image:
    """Half a pixel is rounded down, where torchvision rounds to the even one."""
    left, top = ((side - SIDE) // 2 for side in image.size)
    return image.crop((left, top, left + SIDE, top + SIDE))


def recalls(images: Tensor, texts: Tensor) -> Iterator[tuple[str, float]]:
    """Retrieval in percent, counted one by one."""
    similarity = images @ texts.T
    for way, scores in (('i2t', similarity), ('t2i', similarity.T)):
        better = (scores > scores.diagonal()[:, None]).sum(dim=1)
        for most in (1, 5, 10):
            yield f'{way}_r{most}', 100 * (better < most).float().mean().item()


@pytest.mark.parametrize('name', PEERS)
def test_the_config_is_that_of_the_weights(name: str, root: Path) -> None:
    """Pictures and captions by the config's own pipeline have the library's embeddings."""
    expected = embeddings_of_peer(name, root)
    cfg = load_config('own.py')
    model = init_model(cfg, 'weights', 'cpu')
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    samples = [dataset[row] for row in range(len(dataset))]
    inputs = dict(image=torch.stack([sample['inputs']['image'] for sample in samples]))
    inputs['text'] = torch.cat([sample['data_samples'].caption_ids for sample in samples])
    with torch.no_grad():
        found = model.embed(model.data_preprocessor(dict(inputs=inputs))['inputs'])
    for key, value in zip(('image_feat', 'text_feat'), expected, strict=True):
        torch.testing.assert_close(F.normalize(found[key], dim=-1), value, rtol=0, atol=1e-5)
    assert cfg.optim_wrapper.paramwise_cfg == dict(layer_decay_rate=0.75)
    assert cfg.optim_wrapper.optimizer.lr <= 1e-4
    assert cfg.custom_hooks[-2].type == 'EMAHook'


def embeddings_of_peer(name: str, root: Path) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    _, encode_image, encode_text = PEERS[name](root / 'weights')
    text = run('--from', 'weights')
    assert len(text.splitlines()) <= 70
    return embeddings(name, encode_image, encode_text)


def test_training_starts_where_the_weights_are(root: Path) -> None:
    """The first evaluation is the library's own; then the last blocks train, and their average."""
    _, encode_image, encode_text = write_hugging_face(root / 'weights')
    run('--from', 'weights', '--unlocked-groups', 1)
    train.main(['own.py', '--work-dir', 'run', '--cfg-options', *QUICK])
    lines = [json.loads(line) for line in Path('run', 'results.jsonl').read_text().splitlines()]
    found = {line['metric']: line['value'] for line in lines if line['iter'] == 0}
    expected = dict(recalls(*embeddings('hugging_face', encode_image, encode_text)))
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert len(set(expected.values())) > 2
    assert {line['iter'] for line in lines} == {0, 2}
    before = load_from_local('weights')['state_dict']
    after = load_from_local('run/epoch_2.pth')
    changed = {name for name, value in after['state_dict'].items() if not value.equal(before[name])}
    assert {name.split('.')[0] for name in changed} == {
        'backbone', 'neck', 'text_backbone', 'text_neck', 'head'
    }  # fmt: skip
    places = {'.'.join(name.split('.')[1:3]) for name in changed if 'backbone' in name}
    norms = {f'{norm}.{part}' for norm in ('ln1', 'ln_final') for part in ('weight', 'bias')}
    assert places == {'layers.1', *norms}
    assert 'ema_state_dict' in after


def test_another_image_size(root: Path) -> None:
    write_hugging_face(root / 'weights')
    assert '--image-size 60: must be a multiple of 8' in refusal(
        '--from', 'weights', '--image-size', 60
    )
    run('--from', 'weights', '--image-size', 64, '--ssl', 'simclr')
    cfg = load_config('own.py')
    assert cfg.model.backbone.img_size == 64
    assert cfg.optim_wrapper.paramwise_cfg == dict(layer_decay_rate=0.75, lr_mult=dict(ssl=5))
    model = MODELS.build(cfg.model)
    fit = fit_weights(load_from_local('weights')['state_dict'], model)
    assert [*fit.resized] == ['backbone.pos_embed']
    assert {name.partition('.')[0] for name in fit.missing} == {'ssl'}


def spell_out(table: Path) -> None:
    """Write numbers as words, since a small vocabulary has no digits to tell captions apart."""
    words = 'red dog grass cats sofa bird blue photo above sleep'.split()
    pairs = [json.loads(line) for line in table.read_text().splitlines()]
    for pair in pairs:
        (caption,) = pair['caption']
        pair['caption'] = [re.sub(r'\d', lambda digit: f' {words[int(digit[0])]}', caption)]
    table.write_text('\n'.join(map(json.dumps, pairs)) + '\n')


def test_siglip(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Its config passes doctor, starts where the weights are, and trains the last block of each."""
    transformers = pytest.importorskip('transformers')
    torch.manual_seed(0)
    peer = write_siglip(root / 'weights')
    spell_out(Path('pairs.jsonl'))
    text = run('--from', 'weights', '--unlocked-groups', 1)
    assert len(text.splitlines()) <= 80
    assert "path='{{ fileDirname }}/weights/tokenizer.json'" in text
    cfg = load_config('own.py')
    assert cfg.optim_wrapper.paramwise_cfg == dict(layer_decay_rate=0.75)
    assert cfg.model.head.type == 'mmslip.SigLIPHead'
    monkeypatch.setenv('COLUMNS', '200')
    quick = ['--samples', '8', '--seconds', '0.1', '--cfg-options', *QUICK]
    with pytest.raises(SystemExit) as ended:
        doctor.main(['own.py', *quick])
    assert not ended.value.code, capsys.readouterr().out

    pairs = held_out_of([json.loads(line) for line in Path('pairs.jsonl').read_text().splitlines()])
    prepare = transformers.AutoImageProcessor.from_pretrained('weights')
    opened = [Image.open(Path('images', pair['image'])).convert('RGB') for pair in pairs]
    tokenizer = transformers.AutoTokenizer.from_pretrained('weights')
    captions = [pair['caption'][0] for pair in pairs]
    ids = tokenizer(captions, padding='max_length', truncation=True, return_tensors='pt')
    with torch.no_grad():
        output = peer(**prepare(opened, return_tensors='pt'), **ids)
    train.main(['own.py', '--work-dir', 'run', '--cfg-options', *QUICK])
    lines = [json.loads(line) for line in Path('run', 'results.jsonl').read_text().splitlines()]
    found = {line['metric']: line['value'] for line in lines if line['iter'] == 0}
    expected = dict(recalls(output.image_embeds, output.text_embeds))
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert len(set(expected.values())) > 2
    before = load_from_local('weights')['state_dict']
    after = load_from_local('run/epoch_2.pth')['state_dict']
    changed = {name for name, value in after.items() if not value.equal(before[name])}
    places = {'.'.join(name.split('.')[:3]) for name in changed if 'backbone' in name}
    norms = {f'{norm}.{part}' for norm in ('backbone.ln1', 'text_backbone.ln_final')
             for part in ('weight', 'bias')}  # fmt: skip
    assert places == {'backbone.layers.1', 'text_backbone.layers.1', *norms}
    others = {name for name in changed if 'backbone' not in name}
    assert others == {name for name in before if name.startswith(('neck', 'text_neck', 'head'))}


def test_siglip_at_another_size(root: Path) -> None:
    write_siglip(root / 'weights')
    run('--from', 'weights', '--image-size', 64, '--ssl', 'simclr', '--unlocked-groups', 3)
    model = MODELS.build(load_config('own.py').model)
    assert model.backbone.img_size == (64, 64)
    fit = fit_weights(load_from_local('weights')['state_dict'], model)
    assert [*fit.resized] == ['backbone.pos_embed']
    assert {name.partition('.')[0] for name in fit.missing} == {'ssl'}
    assert all(param.requires_grad for param in model.parameters())
    views = [torch.rand(4, 3, 32, 32), torch.rand(4, 3, 64, 64)]
    ids = torch.randint(2, 120, (4, 24))
    losses = model.loss(dict(image=torch.rand(4, 3, 64, 64), text=ids, views=views))
    assert losses['loss_clip'].isfinite()
    assert losses['loss_ssl'].isfinite()  # from the mean of the patches
    run('--from', 'weights', '--unlocked-groups', 2, '--force')
    model = MODELS.build(load_config('own.py').model)
    for tower in (model.backbone, model.text_backbone):
        frozen = {name for name, param in tower.named_parameters() if not param.requires_grad}
        assert {name.partition('.')[0] for name in frozen} <= {
            'pos_embed', 'patch_embed', 'token_embedding'
        }  # fmt: skip
        assert 'pos_embed' in frozen
    others = (root / 'weights').rename(root / 'others')
    (others / 'tokenizer.json').unlink()
    assert 'no tokeniser at' in refusal('--from', 'others', '--force')


def test_weights_that_no_config_can_be_written_for(root: Path) -> None:
    write_bare_open_clip(root / 'bare.bin')
    message = refusal('--from', 'bare.bin')
    assert 'bare.bin is of open_clip, and no config can be written for it' in message
    assert 'give --activation quick_gelu or gelu' in message
    write_hugging_face(root / 'clip')
    (root / 'clip' / 'vocab.json').write_text(json.dumps({'a</w>': 1, '!': 2}))
    assert "has other tokens than CLIP's tokeniser" in refusal('--from', 'clip')
    torch.save(dict(state_dict={'encoder.weight': torch.ones(2, 2)}), root / 'mine.pth')
    assert 'says nothing of its model: name it by --arch' in refusal('--from', 'mine.pth')
    (root / 'siglip').mkdir()
    torch.save({'vision_model.head.probe': torch.ones(2)}, root / 'siglip' / 'pytorch_model.bin')
    (root / 'siglip' / 'config.json').write_text(json.dumps(dict(model_type='siglip')))
    assert "siglip is a model 'siglip' of transformers, which" in refusal('--from', 'siglip')
    message = refusal('--unlocked-groups', 2)
    assert 'is for trained towers: name their weights by --from' in message
    assert not Path('own.py').exists()
