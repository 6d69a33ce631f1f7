"""Losses with several texts of an image, and with equal images and texts, against naive loops."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mmslip.models import CLIPHead, SigLIPHead
from mmslip.models.losses import blocks, clip_loss, siglip_loss
from tests.distributed.pool import run
from tests.distributed.test_losses import _LargestTensor

BATCH = 8
NAMES = ('image', 'text', 'scale', 'bias')
CASES = ('several', 'equal', 'several equal')


def example(m: int, batch: int = BATCH) -> list[Tensor]:
    """Image and text embeddings in fp64, scale and bias, as leaves."""
    generator = torch.Generator().manual_seed(0)
    kind = dict(generator=generator, dtype=torch.float64)
    text = torch.randn(batch, m, 6, **kind) if m > 1 else torch.randn(batch, 6, **kind)
    numbers = (torch.tensor([value], dtype=torch.float64) for value in (7.0, -3.0))
    return [leaf.requires_grad_() for leaf in (torch.randn(batch, 6, **kind), text, *numbers)]


def keys_of(case: str) -> tuple[int, Tensor | None]:
    """Texts of each image, and keys: image 6 is image 1, and some share a text, all far apart."""
    m = 3 if 'several' in case else 1
    if 'equal' not in case:
        return m, None
    keys = torch.arange(BATCH * (1 + m)).view(BATCH, 1 + m)
    keys[6, 0] = keys[1, 0]
    keys[5, 1] = keys[0, 1]
    keys[7, -1] = keys[2, 1]
    return m, keys


def naive_matches(m: int, keys: Tensor | None) -> np.ndarray:
    """Whether text ``t`` matches image ``i``, ``(B, B * m)``, one pair at a time."""
    found = np.zeros((BATCH, BATCH * m), bool)
    for i in range(BATCH):
        for t in range(BATCH * m):
            owner, place = divmod(t, m)
            found[i, t] = owner == i
            if keys is not None:
                found[i, t] |= bool(keys[i, 0] == keys[owner, 0])
                found[i, t] |= int(keys[owner, 1 + place]) in keys[i, 1:].tolist()
    return found


def naive_losses(leaves: list[Tensor], matches: np.ndarray) -> dict[str, Tensor]:
    """The definitions, one row at a time."""
    image, text, scale, bias = leaves
    text = text.reshape(-1, text.shape[-1])
    cosines = [[a @ b / (a.norm() * b.norm()) for b in text] for a in image]
    clip, sigmoid = 0.0, 0.0
    for rows, number in ((cosines, len(image)), (list(zip(*cosines, strict=True)), len(text))):
        for place, row in enumerate(rows):
            own = matches[place] if rows is cosines else matches[:, place]
            total = sum(torch.exp(scale * cosine) for cosine in row)
            terms = [
                torch.log(torch.exp(scale * cosine) / total)
                for cosine, match in zip(row, own, strict=True)
                if match
            ]
            clip = clip - sum(terms) / len(terms) / number / 2
    for i, row in enumerate(cosines):
        for t, cosine in enumerate(row):
            sign = 1 if matches[i, t] else -1
            sigmoid = sigmoid - torch.log(torch.sigmoid(sign * (scale * cosine + bias)))
    return dict(clip=clip, sigmoid=sigmoid / len(text))


def losses(rank: int, world_size: int, case: str, name: str) -> dict[str, Tensor]:
    """A loss and its gradients; each rank holds consecutive images."""
    m, keys = keys_of(case)
    image, text, scale, bias = example(m)
    image, text = (part.detach().chunk(world_size)[rank].requires_grad_() for part in (image, text))
    keys = None if keys is None else keys.chunk(world_size)[rank]
    if name == 'clip':
        loss, accuracy = clip_loss(image, text, scale, keys=keys)
    else:
        loss, accuracy = siglip_loss(image, text, scale, bias, keys)
    loss.backward()
    leaves = dict(zip(NAMES, (image, text, scale, bias), strict=True))
    grads = {key: leaf.grad for key, leaf in leaves.items() if leaf.grad is not None}
    return dict(grads, loss=loss, accuracy=accuracy)


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('name', ['clip', 'sigmoid'])
@pytest.mark.parametrize('max_logits', [2**24, 3 * BATCH * 3, 1], ids=['whole', 'blocks', 'rows'])
def test_naive_loops(monkeypatch, case, name, max_logits):
    """Values and gradients, whole and in blocks."""
    monkeypatch.setattr(blocks, '_MAX_LOGITS', max_logits)
    m, keys = keys_of(case)
    matches = naive_matches(m, keys)
    assert matches.sum() == {'several': 24, 'equal': 14, 'several equal': 34}[case]
    leaves = example(m)
    expected = naive_losses(leaves, matches)[name]
    expected.backward()
    found = losses(0, 1, case, name)
    assert found['loss'].item() == pytest.approx(expected.item(), abs=1e-12)
    for key, leaf in zip(NAMES, leaves, strict=True):
        if leaf.grad is not None:
            assert leaf.grad.abs().max() > 1e-3
            torch.testing.assert_close(found[key], leaf.grad, rtol=0, atol=1e-12)
    image, text = (torch.nn.functional.normalize(leaf.detach(), dim=-1) for leaf in leaves[:2])
    best = (image @ text.flatten(0, -2).T).argmax(dim=1)
    hits = sum(bool(matches[row, place]) for row, place in enumerate(best))
    assert float(found['accuracy']) == 100 * hits / BATCH


@pytest.mark.dist
@pytest.mark.parametrize('world_size', [2, 4])
def test_processes_together_equal_one(world_size):
    """The mean over ranks, which DDP takes, is loss and gradient of one process."""
    results = run(all_losses, world_size)
    whole = all_losses(0, 1)
    for key, value in whole.items():
        parts = [result[key] for result in results]
        if key.endswith(('image', 'text')):
            found = np.concatenate(parts) / world_size
        else:
            found = np.mean(parts, axis=0)
        np.testing.assert_allclose(
            found, value.detach().numpy(), rtol=1e-12, atol=1e-12, err_msg=key
        )


def all_losses(rank: int, world_size: int) -> dict[str, Tensor]:
    return {
        f'{case} {name} {key}': value
        for case in CASES
        for name in ('clip', 'sigmoid')
        for key, value in losses(rank, world_size, case, name).items()
    }


@pytest.mark.parametrize('head', [CLIPHead, SigLIPHead])
def test_without_repetition_keys_change_nothing(head):
    image, text, *_ = example(1)
    keys = torch.arange(2 * BATCH).view(BATCH, 2)
    plain, keyed = (head().double().loss(image, text, *more) for more in ([], [keys]))
    grads = [torch.autograd.grad(out['loss'], (image, text)) for out in (plain, keyed)]
    torch.testing.assert_close(keyed['loss'], plain['loss'], rtol=0, atol=1e-13)
    assert keyed['acc'] == plain['acc']
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)
    alone = head().double().loss(image, text[:, None])  # (B, 1, D)
    assert alone['loss'] == plain['loss']


def test_equal_texts_as_negatives():
    """To the cross entropy they are one text already; the sigmoid is asked for both answers."""
    image, text, scale, bias = example(1)
    with torch.no_grad():
        text[5], text[7] = text[0], text[0]
    keys = torch.arange(2 * BATCH).view(BATCH, 2)
    keys[[5, 7], 1] = keys[0, 1]

    def grads(loss: Tensor) -> list[Tensor]:
        # Of one text, wherever it stands.
        own, texts = torch.autograd.grad(loss, (image, text))
        return [loss.detach(), own, texts[[0, 5, 7]].sum(dim=0)]

    plain, keyed = (grads(clip_loss(image, text, scale, keys=key)[0]) for key in (None, keys))
    for one, other in zip(plain, keyed, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)
    plain, keyed = (grads(siglip_loss(image, text, scale, bias, key)[0]) for key in (None, keys))
    assert (plain[1] - keyed[1]).abs().max() > 0.1


def test_chance_level_and_perfect_match():
    images, texts = torch.ones(16, 8), torch.ones(16, 4, 8)
    chance = (math.log(16) + math.log(64)) / 2
    assert float(clip_loss(images, texts, torch.tensor(10.0))[0]) == pytest.approx(chance)
    distinct = torch.eye(16)
    loss, accuracy = clip_loss(distinct, distinct[:, None].repeat(1, 4, 1), torch.tensor(100.0))
    assert float(loss) == pytest.approx(math.log(4) / 2)  # of four equal texts, each has a quarter
    assert float(accuracy) == 100


@pytest.mark.parametrize('name', ['clip', 'siglip'])
def test_logits_are_never_whole_beyond_the_bound(monkeypatch, name):
    """64 images and 256 texts would have 16,384; targets and matches are as large as a block."""
    monkeypatch.setattr(blocks, '_MAX_LOGITS', 2048)
    image, text, scale, bias = example(4, batch=64)
    keys = torch.arange(64 * 5).view(64, 5)
    with _LargestTensor() as mode:
        if name == 'clip':
            clip_loss(image, text, scale, keys=keys)[0].backward()
        else:
            siglip_loss(image, text, scale, bias, keys)[0].backward()
    assert mode.numel == 2048


def test_keys_that_do_not_fit_are_refused():
    image, text, scale, _ = example(3)
    with pytest.raises(ValueError, match=r'keys of shape \(8, 2\) do not fit .* \(8, 4\)'):
        clip_loss(image, text, scale, keys=torch.zeros(8, 2))
