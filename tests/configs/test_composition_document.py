"""docs/composition.md says what the tests of the grid show, and its configs build."""

import re
from dataclasses import replace

import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample

from mmslip.models.selfsup import METHODS, MethodNeeds
from mmslip.registry import MODELS
from tests.configs.grid import (
    BATCH,
    HALVES,
    HEADS,
    ROOT,
    TOWERS,
    batch_of,
    build,
    is_possible,
    load,
    reached,
    shrink,
)

TEXT = (ROOT / 'docs' / 'composition.md').read_text(encoding='utf-8')


def table() -> str:
    """The grid as docs/composition.md shows it, with either head."""
    rows = [['', *TOWERS], [':--', *[':-:'] * len(TOWERS)]]
    for half in HALVES:
        rows.append([half, *('yes' if is_possible(half, tower) else 'error' for tower in TOWERS)])
    return ''.join(f'| {" | ".join(row)} |\n' for row in rows).replace('|  |', '| |')


def test_document_agrees():
    assert table() in TEXT
    lines = {line.strip() for line in TEXT.splitlines()}
    for half, path in HALVES.items():
        assert f'configs/{path}' in TEXT, half
    pieces = [*HEADS.values(), *(part for tower in TOWERS.values() for part in tower)]
    for piece in pieces:
        assert set(piece) <= lines, piece


def test_methods_of_the_document():
    """With the grid's, they are the methods that the model takes."""
    rows = re.findall(r'^\| (\w+) \| (\d) \| (yes|no) \| (\w+) \|$', TEXT, re.MULTILINE)
    listed = {
        name: MethodNeeds(int(views), mask == 'yes', () if backbone == 'any' else (backbone,))
        for name, views, mask, backbone in rows
    }
    needs = {
        name: replace(method, reason='')
        for name, method in METHODS.items()
        if method.works and name not in HALVES
    }
    assert listed == needs


def test_parts_of_the_document():
    listed = re.findall(r'^\| `mmslip\.(\w+)` \|', TEXT, re.MULTILINE)
    ours = [n for n, part in MODELS.module_dict.items() if part.__module__.startswith('mmslip.')]
    assert sorted(listed) == sorted(ours)


def test_configs_of_the_document(tmp_path):
    """The whole configs that it and docs/data.md show build, in any folder."""
    text = TEXT + (ROOT / 'docs' / 'data.md').read_text(encoding='utf-8')
    blocks = re.findall(r'```python\n(_base_ = .*?)```', text, re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        assert len(block.splitlines()) <= 15
        MODELS.build(shrink(load(block, tmp_path).model))


def test_mlp_projections_of_the_language_half(tmp_path):
    """Projections of mmpretrain, which return a tuple, behind both towers."""
    (block,) = re.findall(r'```python\n(mlp = .*?)```', TEXT, re.DOTALL)
    base = f"_base_ = ['{ROOT / 'configs' / HALVES['none']}']\n"
    cfg = load(base + block, tmp_path)
    model = build(cfg)
    batch = batch_of(cfg)
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    language = {'backbone', 'neck', 'text_backbone', 'text_neck', 'head'}
    assert reached(losses['loss_clip'], model) == language
    model.eval()
    inputs = model.data_preprocessor(batch)['inputs']
    embeddings = model(inputs)
    assert embeddings['image_feat'].shape == embeddings['text_feat'].shape == (BATCH, 32)
    samples = model(inputs, [DataSample() for _ in range(BATCH)], mode='predict')
    expected = F.normalize(embeddings['image_feat'], dim=-1)
    torch.testing.assert_close(torch.stack([s.image_feat for s in samples]), expected)
