"""Every text tower with every tokeniser and pooling, as the table of docs/text.md says."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from PIL import Image
from torch import Tensor

from mmslip.analysis.config_check import check_config
from mmslip.apis import ZeroShotClassificationInferencer, init_model
from mmslip.datasets import BaseTokenizer, tokenizer_faults
from mmslip.engine.speed.compile import compile_blocks
from mmslip.engine.speed.recompute import recompute_blocks
from mmslip.models import SLIP
from mmslip.models.blocks import find_blocks
from mmslip.models.chunks import run_in_chunks
from mmslip.registry import MODELS, TOKENIZERS
from mmslip.utils.config import load_config
from tests.text_parts import CAPTIONS, write_tokenizer
from tests.text_parts import MODELS as CONFIGS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / 'docs' / 'text.md').read_text(encoding='utf-8')
POOLINGS = ('cls', 'eos', 'last', 'mean')
# Rows of the table: name, poolings, and the model of transformers.
TOWERS = {
    'TextTransformer': (('end token',), None),
    'ModernTextTransformer': (('mean',), None),
    'HuggingFaceText: BERT': (POOLINGS, 'bert'),
    'HuggingFaceText: XLM-R': (POOLINGS, 'xlm-roberta'),
    'HuggingFaceText: ModernBERT': (POOLINGS, 'modernbert'),
    'HuggingFaceText: GPT-2': (POOLINGS, 'gpt2'),
    'HuggingFaceText: T5': (POOLINGS, 't5'),
}
# Its columns, with the kind of tokeniser.
TOKENIZERS_OF = {'CLIPTokenizer': None, 'WordPiece': 'bert', 'Unigram': 't5', 'byte-pair': 'gpt2'}
# Every tower with every tokeniser, its poolings in turn.
GRID = [
    (tower, poolings[number % len(poolings)], name)
    for tower, (poolings, _) in TOWERS.items()
    for number, name in enumerate(TOKENIZERS_OF)
]
DROPOUT = ('hidden_dropout_prob', 'attention_probs_dropout_prob', 'attn_pdrop', 'resid_pdrop')
NO_DROPOUT = dict.fromkeys((*DROPOUT, 'embd_pdrop', 'dropout_rate'), 0.0)


@pytest.fixture(scope='module')
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Configs of the tokenisers."""
    folder = tmp_path_factory.mktemp('tokenizers')
    found = {}
    for name, kind in TOKENIZERS_OF.items():
        found[name] = dict(type='mmslip.CLIPTokenizer', context_length=24, num_merges=80)
        if kind is not None:
            path = str(write_tokenizer(folder / kind, kind))
            found[name] = dict(type='mmslip.HuggingFaceTokenizer', path=path)
    return found


def tower_of(name: str, pooling: str, tokenizer: BaseTokenizer) -> dict:
    """The config of a tower in small, for a tokeniser."""
    small = dict(vocab_size=600, width=16, num_layers=2, num_heads=2)
    kind = TOWERS[name][1]
    if kind is not None:
        pytest.importorskip('transformers')
        takes = {key: value for key, value in NO_DROPOUT.items() if kind != 'modernbert'}
        config = {**CONFIGS[kind], 'vocab_size': 600, **takes}
        ids = dict(pad_id=tokenizer.pad_id, end_id=tokenizer.end_id)
        return dict(type='mmslip.HuggingFaceText', config=config, pooling=pooling, **ids)
    if name == 'ModernTextTransformer':
        return dict(type='mmslip.ModernTextTransformer', pad_id=tokenizer.pad_id, **small)
    end = {} if tokenizer.end_id == tokenizer.vocab_size - 1 else dict(end_id=tokenizer.end_id)
    return dict(type='mmslip.TextTransformer', context_length=24, **small, **end)


def slip_of(text_backbone: dict) -> dict:
    arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=16)
    projection = dict(type='mmslip.LinearProjection', out_channels=8)
    return dict(
        type='mmslip.SLIP',
        backbone=dict(type='mmslip.VisionTransformer', arch=arch, img_size=16, patch_size=8),
        neck=projection,
        text_backbone=text_backbone,
        text_neck=projection,
        head=dict(type='mmslip.CLIPHead'),
    )


def build(text_backbone: dict) -> SLIP:
    torch.manual_seed(0)
    model = MODELS.build(slip_of(text_backbone))
    model.init_weights()
    return model


def batch(ids: Tensor) -> dict:
    images = torch.randint(0, 256, (len(ids), 3, 16, 16), dtype=torch.uint8)
    return dict(inputs=dict(image=images, text=ids))


def gradients(model: SLIP, inputs: dict) -> list[Tensor]:
    model.zero_grad()
    model.loss(inputs)['loss_clip'].backward()
    return [param.grad for param in model.text_backbone.parameters()]


@pytest.mark.parametrize(('name', 'pooling', 'column'), GRID, ids=['-'.join(row) for row in GRID])
def test_cell(name: str, pooling: str, column: str, tokenizers: dict[str, dict]) -> None:
    tokenizer = TOKENIZERS.build(tokenizers[column])
    model = build(tower_of(name, pooling, tokenizer))
    tower = model.text_backbone
    assert tokenizer_faults(tokenizer, tower) == []
    texts = [text for text in CAPTIONS if text] + ['!', 'a dog! ' * 2]  # CLIP pads with "!"
    data = batch(tokenizer(texts))
    ids = data['inputs']['text']
    (whole,), (short,) = tower.eval()(ids), tower(tower.trim(ids))
    torch.testing.assert_close(whole, short)
    # In slices and with recomputed blocks: the same gradient.
    inputs = model.data_preprocessor(data)['inputs']
    assert inputs['text'].shape == tower.trim(ids).shape
    expected = gradients(model.train(), inputs)
    assert all(grad is not None for grad in expected)
    changed = copy.deepcopy(model)
    recompute_blocks(find_blocks(changed).values())
    run_in_chunks(changed.text_backbone, 3)
    torch.testing.assert_close(gradients(changed, inputs), expected, rtol=1e-3, atol=1e-5)

    model.zero_grad()
    before = copy.deepcopy(model.state_dict())
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='mmslip.NoDecay1dOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1e-3),
            paramwise_cfg=dict(layer_decay_rate=0.5),
        ),
    )
    assert {group['lr'] for group in wrapper.param_groups} == {1e-3 / 2**n for n in range(4)}
    losses = [model.train_step(data, wrapper)['loss_clip'].item() for _ in range(2)]
    assert np.isfinite(losses).all()
    after = model.state_dict()
    moved = {key.split('.')[0] for key in after if not after[key].equal(before[key])}
    assert moved == {'backbone', 'neck', 'text_backbone', 'text_neck', 'head'}


@pytest.mark.parametrize('name', TOWERS)
def test_frozen_but_for_the_last_block(name: str, tokenizers: dict[str, dict]) -> None:
    tokenizer = TOKENIZERS.build(tokenizers['WordPiece'])
    cfg = slip_of(tower_of(name, TOWERS[name][0][-1], tokenizer))
    cfg.update(frozen=['text_backbone'], unlocked_groups=dict(text_backbone=1))
    model = MODELS.build(cfg)
    tower = model.text_backbone
    trained = {key for key, param in tower.named_parameters() if param.requires_grad}
    depths = {key: tower.get_layer_depth(key)[0] for key, _ in tower.named_parameters()}
    assert trained == {key for key, depth in depths.items() if depth >= 2}  # of two blocks
    model.loss(model.data_preprocessor(batch(tokenizer(CAPTIONS)))['inputs'])[
        'loss_clip'
    ].backward()
    assert {key for key, param in tower.named_parameters() if param.grad is not None} == trained


@pytest.mark.parametrize('name', ['ModernTextTransformer', 'HuggingFaceText: BERT'])
def test_small_matrices_beside_its_layers(name: str, tokenizers: dict[str, dict]) -> None:
    pytest.importorskip('peft')
    tokenizer = TOKENIZERS.build(tokenizers['WordPiece'])
    cfg = slip_of(tower_of(name, 'mean', tokenizer))
    model = MODELS.build(dict(cfg, lora=dict(text_backbone=dict(r=2))))
    model.init_weights()
    model.loss(model.data_preprocessor(batch(tokenizer(CAPTIONS)))['inputs'])[
        'loss_clip'
    ].backward()
    params = dict(model.text_backbone.named_parameters())
    moved = {key for key, param in params.items() if param.grad is not None}
    assert moved == {key for key in params if 'lora_' in key}


@pytest.fixture
def _no_leftovers() -> Iterator[None]:
    limit = torch._dynamo.config.recompile_limit
    yield
    torch._dynamo.config.recompile_limit = limit
    torch._dynamo.reset()


@pytest.mark.usefixtures('_no_leftovers')
def test_compiled(tokenizers: dict[str, dict]) -> None:
    tokenizer = TOKENIZERS.build(tokenizers['WordPiece'])
    model = build(tower_of('HuggingFaceText: BERT', 'mean', tokenizer))
    changed = copy.deepcopy(model)
    blocks = {key: part for key, part in find_blocks(changed).items() if 'text' in key}
    compile_blocks(blocks, 'aot_eager')
    for texts in (CAPTIONS[:3], CAPTIONS[2:5]):
        inputs = model.data_preprocessor(batch(tokenizer(texts)))['inputs']
        expected = gradients(model, inputs)
        torch.testing.assert_close(gradients(changed, inputs), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(('name', 'column'), zip(TOWERS, [*TOKENIZERS_OF] * 2, strict=False))
def test_inference(name: str, column: str, tokenizers: dict[str, dict], tmp_path: Path) -> None:
    """With the tokeniser that the config states for its captions."""
    tokenizer = TOKENIZERS.build(tokenizers[column])
    pipeline = [
        dict(type='mmslip.LoadImage'),
        dict(type='mmslip.TokenizeCaption', tokenizer=tokenizers[column]),
        dict(type='mmslip.PackSLIPInputs'),
    ]
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            image_size=16,
            model=slip_of(tower_of(name, TOWERS[name][0][-1], tokenizer)),
            train_dataloader=dict(dataset=dict(type='mmslip.TableDataset', pipeline=pipeline)),
        )
    )
    assert not [line for line in check_config(cfg) if 'tokenizer' in line]
    torch.manual_seed(0)
    model = init_model(cfg, device='cpu')
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(tmp_path / 'a.png')
    labels = ['red dog', 'blue sofa', '黑色的狗']
    (found,) = ZeroShotClassificationInferencer(model)(tmp_path / 'a.png', labels, ['a {}'], topk=3)
    with torch.no_grad():
        texts = torch.cat([model.encode_text(tokenizer(f'a {label}')) for label in labels])
        pixels = torch.full((1, 3, 16, 16), 90, dtype=torch.uint8)
        inputs = model.data_preprocessor(dict(inputs=dict(image=pixels)))['inputs']
        image = model.encode_image(inputs['image'])
    expected = torch.cosine_similarity(image, texts).tolist()
    for top in found['top']:
        similarity = expected[labels.index(top['label'])]
        assert top['similarity'] == pytest.approx(similarity, abs=1e-5)


def test_the_table_is_what_is_tested() -> None:
    rows = [['tower', 'pooling', *TOKENIZERS_OF], [':--', ':--', *[':-:'] * len(TOKENIZERS_OF)]]
    for name, (poolings, _) in TOWERS.items():
        rows.append([name, ', '.join(poolings), *['yes'] * len(TOKENIZERS_OF)])
    table = ''.join(f'| {" | ".join(row)} |\n' for row in rows)
    assert table in TEXT


def test_the_config_of_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip('transformers')
    folder = write_tokenizer(tmp_path / 'bert-base-multilingual')
    config = transformers.AutoConfig.for_model(
        **{**CONFIGS['bert'], 'max_position_embeddings': 128}
    )
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    (block,) = re.findall(r'```python\n(_base_ = .*?)```', TEXT, re.DOTALL)
    path = tmp_path / 'mine.py'
    path.write_text(block)
    monkeypatch.chdir(tmp_path)
    cfg = load_config(path)
    assert check_config(cfg) == []
    assert MODELS.build(cfg.model.text_backbone).context_length == 128
    assert cfg.train_dataloader.dataset.pipeline[2].tokenizer.context_length == 128
