"""The sigmoid loss and its head."""

import math

import pytest
import torch
from torch import Tensor

from mmslip.models import SigLIPHead
from mmslip.models.losses import blocks, siglip_loss


def features(seed: int, number: int = 7, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Image and text embeddings, scale and bias, as leaves."""
    generator = torch.Generator().manual_seed(seed)
    image, text = torch.randn(2, number, 5, generator=generator, dtype=torch.float64)
    leaves = [image, text, torch.tensor([9.0]), torch.tensor([-4.0])]
    return [leaf.to(dtype).requires_grad_() for leaf in leaves]


def naive(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Equation 1, one pair at a time."""
    loss = 0.0
    for i in range(len(image)):
        for j in range(len(text)):
            cosine = image[i] @ text[j] / (image[i].norm() * text[j].norm())
            sign = 1 if i == j else -1
            loss = loss - torch.log(1 / (1 + torch.exp(-sign * (scale * cosine + bias))))
    return loss / len(image)


@pytest.mark.parametrize('max_logits', [2**24, 21, 1], ids=['whole', 'blocks', 'rows'])
@pytest.mark.parametrize(('dtype', 'atol'), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_naive_loop(monkeypatch, max_logits, dtype, atol):
    """Value and gradients, whole or in blocks of 3, 3 and 1 images, or of one."""
    monkeypatch.setattr(blocks, '_MAX_LOGITS', max_logits)
    ours, reference = features(0, dtype=dtype), features(0, dtype=torch.float64)
    loss, _ = siglip_loss(*ours)
    expected = naive(*reference)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(expected.item(), abs=atol)
    loss.backward()
    expected.backward()
    for mine, theirs in zip(ours, reference, strict=True):
        assert theirs.grad.abs().max() > 1e-2
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=0, atol=atol)


def test_logits_are_never_whole_beyond_the_bound(monkeypatch):
    from tests.distributed.test_losses import _LargestTensor

    monkeypatch.setattr(blocks, '_MAX_LOGITS', 4 * 64)
    leaves = features(0, number=64)
    with _LargestTensor() as mode:
        siglip_loss(*leaves)[0].backward()
    assert mode.numel == 64 * 5  # the embeddings; the logits are 4 x 64 at a time


def test_accuracy_and_scale_of_embeddings():
    image, text, scale, bias = features(1, number=4)
    assert siglip_loss(image, image, scale, bias)[1] == 100
    swapped = image[[1, 0, 2, 3]]
    assert siglip_loss(image, swapped, scale, bias)[1] == 50
    loss, _ = siglip_loss(image, text, scale, bias)
    assert siglip_loss(7 * image, 0.1 * text, scale, bias)[0].item() == pytest.approx(loss.item())


def test_large_logits_are_finite():
    same = torch.eye(4)
    loss, _ = siglip_loss(same, same, torch.tensor([1e4]), torch.tensor([-5e3]))
    assert loss.item() == pytest.approx(0, abs=1e-6)
    loss, _ = siglip_loss(same, -same, torch.tensor([1e4]), torch.tensor([-5e3]))
    assert loss.item() == pytest.approx(1.5e4)  # -(-1e4 - 5e3), once for each match


def test_float32_under_autocast():
    x, y = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    head = SigLIPHead()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = head.loss(x, y)['loss']
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(head.loss(x.float(), y.float())['loss'].item(), abs=1e-6)


def test_head_starts_as_the_paper_does():
    head = SigLIPHead()
    assert head.logit_scale.tolist() == pytest.approx([math.log(10)])
    assert head.logit_bias.tolist() == [-10]
    # Orthogonal strangers and matches: 3 x log(1 + exp(-10)) and log(1 + exp(10)).
    basis = torch.eye(8)
    out = head.loss(basis[:4], basis[4:])
    expected = 3 * math.log1p(math.exp(-10)) + math.log1p(math.exp(10))
    assert out['loss'].item() == pytest.approx(expected, rel=1e-6)
    assert out['logit_scale'].item() == pytest.approx(10)
    assert not out['logit_scale'].requires_grad
    out['loss'].backward()
    assert head.logit_bias.grad.item() < 0  # matches ask for more


def test_open_clip():
    peer = pytest.importorskip('open_clip.loss', reason='open_clip is not installed')
    ours, theirs = features(3), features(3)
    loss, _ = siglip_loss(*ours)
    image, text = (torch.nn.functional.normalize(leaf, dim=-1) for leaf in theirs[:2])
    expected = peer.SigLipLoss()(image, text, *theirs[2:])
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-5)
    loss.backward()
    expected.backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=1e-5)
