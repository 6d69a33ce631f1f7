"""Every shipped model config in every library that can run it: runs, and the table of it.

python -m tests.weights.matrix    # prints the table of docs/weights.md
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import Compose
from PIL import Image
from torch import Tensor, nn

from mmslip.apis import EmbeddingInferencer, init_model
from mmslip.datasets import CLIPTokenizer
from mmslip.registry import MODELS
from mmslip.utils.config import load_config
from mmslip.utils.parts import find_all
from mmslip.weights import Preprocessing, export_weights, exportable, import_weights
from mmslip.weights.formats import FORMATS
from mmslip.weights.spec_from_config import spec_from_config
from tests.weights.foreign_models import ROOT, assert_same

MERGES, CONTEXT = 1000, 12
TEXTS = [
    'a photo of a cat',
    'A  DOG\nthat doesn\u2019t bark at 2 o\u2019clock!!',
    'caf\u00e9 &amp; \uff22\uff21\uff32 \u2014 \u201cquoted\u201d, <|endoftext|>',
    'one two three four five six seven eight nine ten eleven twelve thirteen',
    '',
]
# Height and width. Of 32 and of 224 pixels, one and two of them leave 4 n + 3 beside the crop.
SHAPES = [(41, 57), (97, 130), (32, 43), (200, 45)]
CONFIGS = sorted(
    path.relative_to(ROOT / 'configs').with_suffix('').as_posix()
    for kind in ('slip', 'clip', 'simclr')
    for path in (ROOT / 'configs' / kind).glob('*.py')
)

# Of a model, what its embeddings depend on.
_PARTS = ('backbone', 'neck', 'text_backbone', 'text_neck', 'head')

Embeddings = tuple[Tensor, Tensor | None]


def write_images(folder: Path) -> list[str]:
    """Smooth coloured noise in odd shapes."""
    noise = np.random.default_rng(0)
    paths = []
    for number, (height, width) in enumerate(SHAPES):
        rows, columns = np.mgrid[:height, :width]
        wave = [128 + 90 * np.sin(rows / (5 + c) + columns / 9 + number) for c in range(3)]
        pixels = np.stack(wave, -1) + noise.normal(0, 12, (height, width, 3))
        paths.append(str(folder / f'{number}.png'))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths


def shipped(name: str) -> Config:
    return load_config(ROOT / 'configs' / f'{name}.py')


def small(name: str, one_activation: bool = False) -> Config:
    """A shipped config with towers of two layers, at 32 pixels.

    With ``one_activation``, the text tower has that of the image tower.
    """
    # Self-supervised views may be larger than these images.
    options = dict(image_size=32, train_dataloader=None)
    config = load_config(ROOT / 'configs' / f'{name}.py', options)
    backbone = config.model.backbone
    heads = 12 if backbone.get('arch') == 'small' else 3
    arch = dict(embed_dims=96, num_layers=2, num_heads=heads, feedforward_channels=384)
    backbone.update(arch=arch, patch_size=8, init_cfg=None)
    if config.model.get('text_backbone'):
        config.model.ssl = None  # other tests have it
        small = dict(width=64, num_layers=1, num_heads=2, context_length=CONTEXT)
        config.model.text_backbone.update(small, vocab_size=514 + MERGES)
        if one_activation:
            quick = 'QuickGELU' in str(backbone.get('layer_cfgs'))
            config.model.text_backbone.quick_gelu = quick
        for tokenizer in find_all({**config}, 'CLIPTokenizer'):
            tokenizer.update(context_length=CONTEXT, num_merges=MERGES)
        for part, width in ((config.model.neck, 96), (config.model.text_neck, 64)):
            part.update(in_channels=width, out_channels=32)
    return config


def random_model(config: dict) -> nn.Module:
    """A model whose embeddings differ from image to image and from text to text.

    Wide layers have smaller weights, as trained ones do: of a ViT-L with 0.15 everywhere, a grey
    level in 2 of 1,000 pixels moved cosines by 0.05, so that no two programs agreed.
    """
    model = MODELS.build(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if param.dim() > 1 or name.endswith('bias'):
                inputs = param[0].numel() if param.dim() > 1 and name.endswith('weight') else 1
                param.normal_(0, min(0.15, 1.5 * inputs**-0.5), generator=generator)
            elif param.numel() > 1:
                param.uniform_(0.5, 1.5, generator=generator)
    return model


@torch.no_grad()
def embed_ours(model: EmbeddingInferencer, paths: list[str]) -> Embeddings:
    (batch,) = model.preprocess(paths, batch_size=len(paths))
    alone = None if model.model.with_text else 'backbone_feat'
    found = torch.stack(model.embed(batch, alone))
    if alone:
        return found, None
    tower = model.model.text_backbone
    merges = CLIPTokenizer.merges_of(tower.token_embedding.num_embeddings)
    tokenizer = CLIPTokenizer(tower.context_length, num_merges=merges)
    return found, model.model.encode_text(tokenizer(TEXTS))


def in_mmslip(folder: Path, paths: list[str]) -> Embeddings:
    model = EmbeddingInferencer(init_model(folder, device='cpu'))
    image, text = embed_ours(model, paths)
    return image, None if text is None else model.model.encode_text(model.tokenizer(TEXTS))


def in_transformers(folder: Path, paths: list[str]) -> Embeddings:
    transformers = pytest.importorskip('transformers')
    model, info = transformers.CLIPModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    processor = transformers.CLIPProcessor.from_pretrained(folder)
    opened = [Image.open(path) for path in paths]
    settings = dict(padding=True, truncation=True, return_tensors='pt')
    output = model(**processor(text=TEXTS, images=opened, **settings))
    return output.image_embeds, output.text_embeds


def in_sentence_transformers(folder: Path, paths: list[str]) -> Embeddings:
    library = pytest.importorskip('sentence_transformers')
    model = library.SentenceTransformer(str(folder), device='cpu')
    pictures = model.encode([Image.open(path) for path in paths], convert_to_tensor=True)
    return pictures, model.encode(TEXTS, convert_to_tensor=True)


def in_open_clip(folder: Path, paths: list[str]) -> Embeddings:
    open_clip = pytest.importorskip('open_clip')
    model, _, prepare = open_clip.create_model_and_transforms(f'local-dir:{folder}')
    pixels = torch.stack([prepare(Image.open(path)) for path in paths])
    ids = open_clip.get_tokenizer(f'local-dir:{folder}')(TEXTS)
    return model.eval().encode_image(pixels), model.encode_text(ids)


def in_timm(folder: Path, paths: list[str]) -> Embeddings:
    timm = pytest.importorskip('timm')
    model = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    return model(torch.stack([prepare(Image.open(path)) for path in paths])), None


def in_mmpretrain(folder: Path, paths: list[str]) -> Embeddings:
    mmpretrain = pytest.importorskip('mmpretrain')
    config = Config.fromfile(folder / 'config.py')
    model = mmpretrain.get_model(config, pretrained=str(folder / 'model.safetensors')).eval()
    prepare = Compose(config.test_pipeline)
    pixels = torch.stack([prepare(dict(img_path=path))['inputs']['image'] for path in paths])
    (features,) = model.extract_feat(model.data_preprocessor(dict(inputs=pixels))['inputs'])
    return features, None


# Libraries by the format whose folder they load, and what loads it in each.
LOADERS: dict[str, dict[str, Callable[[Path, list[str]], Embeddings]]] = {
    'mmslip': {'mmslip': in_mmslip},
    'hugging_face': {
        'transformers': in_transformers,
        'Sentence Transformers': in_sentence_transformers,
    },
    'open_clip': {'open_clip': in_open_clip},
    'timm': {'timm': in_timm},
    'mmpretrain': {'mmpretrain': in_mmpretrain},
}


@cache
def refusals(name: str) -> dict[str, str | None]:
    """Of each format with a loader, why it cannot have a shipped model; ``None`` if it can."""
    reasons = exportable(shipped(name))
    return {to: reasons[to] for to in LOADERS}


def assert_agree(found: Tensor, wanted: Tensor) -> None:
    cosine = F.cosine_similarity(found.double(), wanted.double(), dim=-1)
    assert cosine.min() >= 1 - 1e-5
    # Or closeness would say nothing.
    assert F.cosine_similarity(wanted[:1], wanted[1:], dim=-1).max() < 0.99


def evaluated_as(config: Config, to: str) -> Config:
    """The config with the centre crop of a library, where that is another one."""
    spec = spec_from_config(config)
    images, rounding = spec.preprocessing, FORMATS[to].rounding
    if rounding not in (None, images.rounding):
        config = config.copy()
        config.update(test_pipeline=images.rounded(rounding).pipeline(spec.vision.image_size))
        config.update(val_dataloader=None, test_dataloader=None)
    return config


def export(config: Config, to: str, folder: Path) -> Path:
    """Write random weights of a config for a library, as its user does."""
    model = random_model(config.model)
    torch.save(dict(state_dict=model.state_dict()), folder / 'epoch_1.pth')
    config.dump(folder / 'config.py')
    imported = import_weights(folder / 'epoch_1.pth', config=folder / 'config.py')
    export_weights(imported, folder / to, to)
    return folder / to


@torch.no_grad()
def check(config: Config, to: str, folder: Path) -> None:
    """Compare embeddings of raw files and strings in every library that loads a format.

    The folder is read back as well, bit for bit.
    """
    paths = write_images(folder)
    config = evaluated_as(config, to)
    written = export(config, to, folder)
    ours = EmbeddingInferencer(init_model(config, folder / 'epoch_1.pth', 'cpu'))
    image, text = embed_ours(ours, paths)
    tower_alone = to in ('timm', 'mmpretrain')
    if tower_alone:
        (batch,) = ours.preprocess(paths, batch_size=len(paths))
        image, text = torch.stack(ours.embed(batch, 'backbone_feat')), None
    for load in LOADERS[to].values():
        found_image, found_text = load(written, paths)
        assert_agree(found_image, image)
        if text is not None:
            assert_agree(found_text, text)
    assert (written / 'README.md').is_file()
    back = import_weights(written, to, written / 'config.py' if to == 'mmpretrain' else None)
    state = torch.load(folder / 'epoch_1.pth', weights_only=True)['state_dict']
    left_out = ('ssl.', 'head.logit_bias') + ('neck', 'text_', 'head') * tower_alone
    wanted = {key: x for key, x in state.items() if not key.startswith(left_out)}
    got = {key: x for key, x in back.weights.items() if not key.startswith(left_out)}
    assert_same(got, wanted)


def alike(configs: Sequence[str], make: Callable[[str], Config]) -> dict[str, list[str]]:
    """Configs whose towers, heads and images are the same, by the first of them."""
    groups = defaultdict(list)
    for name in configs:
        config = make(name)
        parts = [config.model.get(part) for part in _PARTS]
        groups[json.dumps(parts, default=str), Preprocessing.from_config(config)].append(name)
    return {names[0]: names for names in groups.values()}


@cache
def models() -> dict[str, list[str]]:
    """The shipped configs by the first one of the same model."""
    return alike(CONFIGS, shipped)


def table() -> str:
    """The table of docs/weights.md: models that go to the same libraries stand in one row."""
    rows, notes = defaultdict(list), []
    for first, names in models().items():
        cells = []
        for reason in refusals(first).values():
            if reason is not None and reason not in notes:
                notes.append(reason)
            cells.append('yes' if reason is None else f'no ({notes.index(reason) + 1})')
        rows[tuple(cells)] += names
    titles = [', '.join(loaders) for loaders in LOADERS.values()]
    lines = [f'| {" | ".join(["config", *titles])} |', f'| :-- {"| :-- " * len(titles)}|']
    for cells, names in rows.items():
        stems = {re.sub(r'_(yfcc15m|cc12m|cc3m|coco|redcaps|emoji).*', '', name) for name in names}
        shown = ', '.join(f'`{Path(stem).name}`' for stem in sorted(stems))
        lines.append(f'| {" | ".join([shown, *cells])} |')
    lines += ['', *(f'{number}. {note}' for number, note in enumerate(notes, 1))]
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    print(table(), end='')
