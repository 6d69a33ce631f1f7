"""Tests of class embeddings: against one prompt at a time, with synonyms, and from the cache."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmslip.datasets import CLIPTokenizer
from mmslip.evaluation import ClassEmbedder, embed_texts
from mmslip.models import SLIP

CLASSES = ['cat', 'a very old green tree', 'dog', 'house', 'red car']
TEMPLATES = ['{}', 'a photo of a {}.', 'it is {}!']


def embed_naively(
    model: SLIP, classes: Sequence[str | Sequence[str]], templates: Sequence[str]
) -> np.ndarray:
    """One prompt at a time, without trimming, in NumPy."""
    rows = []
    for names in classes:
        feats = []
        for name in [names] if isinstance(names, str) else names:
            for template in templates:
                ids = CLIPTokenizer(16)(template.replace('{}', name))
                with torch.no_grad():
                    feature = model.encode_text(ids)[0].double().numpy()
                feats.append(feature / np.sqrt((feature**2).sum()))
        mean = np.mean(feats, axis=0)
        rows.append(mean / np.sqrt((mean**2).sum()))
    return np.stack(rows)


class CountedTokens:
    """Counts what a text tower reads."""

    def __init__(self, model: SLIP) -> None:
        self.texts = self.tokens = 0
        model.text_backbone.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, args: tuple[Tensor]) -> None:
        self.texts += len(args[0])
        self.tokens += args[0].numel()


@pytest.mark.parametrize('batch_size', [1, 4, 256])
@pytest.mark.parametrize('number', [1, 3])
def test_tasks_equal_one_prompt_at_a_time(
    make_slip: Callable[..., SLIP], number: int, batch_size: int
) -> None:
    model = make_slip().eval()
    tasks = dict(
        plain=(CLASSES, TEMPLATES[-number:]),
        synonyms=([['cat', 'kitten'], ['dog'], ['house', 'home', 'hut']], TEMPLATES),
    )
    got = ClassEmbedder(CLIPTokenizer(16), batch_size)(model, tasks)
    assert list(got) == list(tasks)
    for task, parts in tasks.items():
        assert got[task].dtype == torch.float32
        assert not got[task].requires_grad
        expected = embed_naively(model, *parts)
        np.testing.assert_allclose(got[task], expected, atol=2e-6)
        assert np.linalg.matrix_rank(expected) == len(parts[0])  # no two classes are alike


def test_equal_prompts_are_embedded_once_and_grouped_by_length(make_slip) -> None:
    model = make_slip().eval()
    count = CountedTokens(model)
    tokenizer = CLIPTokenizer(16)
    tasks = dict(first=(CLASSES, TEMPLATES), second=(CLASSES[::-1], TEMPLATES[:2]))
    ClassEmbedder(tokenizer, batch_size=5)(model, tasks)
    assert count.texts == 15
    texts = [template.format(name) for name in CLASSES for template in TEMPLATES]
    lengths = sorted(tokenizer(texts).argmax(dim=1).add(1).tolist())
    assert count.tokens == sum(5 * lengths[last] for last in (4, 9, 14))


def test_texts_keep_their_order(make_slip) -> None:
    model = make_slip().eval()
    ids = CLIPTokenizer(16)([*CLASSES, *reversed(CLASSES)])
    feats = embed_texts(model, ids, batch_size=3)
    torch.testing.assert_close(feats[:5], feats[5:].flip(0), atol=1e-6, rtol=0)
    np.testing.assert_allclose(feats[:5], embed_naively(model, CLASSES, ['{}']), atol=2e-6)


def test_the_cache_saves_the_text_tower(make_slip, tmp_path: Path) -> None:
    model = make_slip().eval()
    embed = ClassEmbedder(CLIPTokenizer(16), cache_dir=tmp_path)
    tasks = dict(all=(CLASSES, TEMPLATES), few=(CLASSES[:2], ['{}']))
    count = CountedTokens(model)
    first = embed(model, tasks)
    assert count.texts == 15
    assert len(list(tmp_path.iterdir())) == 2
    again = embed(model, dict(few=tasks['few'], all=tasks['all']))
    assert count.texts == 15
    for task in tasks:
        assert torch.equal(first[task], again[task])


@pytest.mark.parametrize('change', ['weights', 'activation', 'heads', 'template', 'order'])
def test_the_cache_knows_what_matters(make_slip, tmp_path: Path, change: str) -> None:
    model = make_slip().eval()
    embed = ClassEmbedder(CLIPTokenizer(16), cache_dir=tmp_path)
    classes, templates = CLASSES, ['a photo of a {}.']
    embed(model, dict(all=(classes, templates)))
    if change == 'weights':
        model.text_neck.weight.data[0, 0] += 0.5
    elif change == 'activation':
        model.text_backbone.layers[0].act = nn.ReLU()
    elif change == 'heads':
        for layer in model.text_backbone.layers:
            layer.num_heads = 4
    elif change == 'template':
        templates = ['a drawing of a {}.']
    else:
        classes = CLASSES[::-1]
    got = embed(model, dict(all=(classes, templates)))['all']
    np.testing.assert_allclose(got, embed_naively(model, classes, templates), atol=2e-6)


def test_a_damaged_cache_file_is_made_again(make_slip, tmp_path: Path, caplog) -> None:
    model = make_slip().eval()
    embed = ClassEmbedder(CLIPTokenizer(16), cache_dir=tmp_path)
    tasks = dict(all=(CLASSES, ['{}']))
    first = embed(model, tasks)['all']
    (path,) = tmp_path.iterdir()
    for content in (b'', b'no tensor', path.read_bytes()[:-300]):
        path.write_bytes(content)
        assert torch.equal(embed(model, tasks)['all'], first)
        assert torch.equal(torch.load(path, weights_only=True), first)
