"""Losses and gradients over processes against one process, naive loops and the official numbers."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmslip.models.losses import blocks, clip_loss, info_nce, simclr_loss
from tests.distributed.pool import run

REFERENCE = np.load(Path(__file__).parents[1] / 'data' / 'slip_loss_distributed.npz')
NAMES = ('image_embed', 'text_embed', 'aug1_embed', 'aug2_embed')


def embeddings(rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
    """The reference's embeddings; each rank holds consecutive rows."""
    return {
        name: torch.from_numpy(REFERENCE[f'in/{name}']).chunk(world_size)[rank].requires_grad_()
        for name in NAMES
    }


def slip_loss(rank: int, world_size: int, gather_with_grad: bool) -> dict:
    """SLIP's loss on given embeddings, with its gradients."""
    x = embeddings(rank, world_size)
    logit_scale = torch.tensor(float(REFERENCE['in/logit_scale']), requires_grad=True)
    loss_clip, acc_clip = clip_loss(
        x['image_embed'], x['text_embed'], logit_scale.exp(), gather_with_grad
    )
    loss_ssl, acc_ssl = simclr_loss(x['aug1_embed'], x['aug2_embed'], temperature=0.1)
    (loss_clip + loss_ssl).backward()
    grads = {f'grad/{name}': value.grad for name, value in x.items()}
    return dict(
        loss=loss_clip + loss_ssl,
        clip_loss=loss_clip,
        clip_acc=acc_clip,
        ssl_loss=loss_ssl,
        ssl_acc=acc_ssl,
        **grads,
        **{'grad/logit_scale': logit_scale.grad},
    )


@pytest.mark.dist
@pytest.mark.parametrize('world_size', [1, 2])
def test_official_numbers(world_size):
    """With the detached gather every figure of every rank is the official one."""
    for rank, result in enumerate(run(slip_loss, world_size, False)):
        for name, value in result.items():
            reference = REFERENCE[f'world{world_size}/rank{rank}/{name}']
            np.testing.assert_allclose(value, reference, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.dist
def test_detached_gather_halves_the_clip_gradient_and_no_other():
    """Trap 1: on several processes the official CLIP gradient is not the exact one."""
    exact, detached = run(slip_loss, 2, True)[0], run(slip_loss, 2, False)[0]
    for name in ('image_embed', 'text_embed'):
        ratio = np.linalg.norm(detached[f'grad/{name}']) / np.linalg.norm(exact[f'grad/{name}'])
        assert 0.3 < ratio < 0.8, name
    for name in ('aug1_embed', 'aug2_embed'):
        np.testing.assert_array_equal(detached[f'grad/{name}'], exact[f'grad/{name}'])


@pytest.mark.dist
@pytest.mark.parametrize('world_size', [2, 4])
def test_processes_together_equal_one(world_size):
    """The mean over ranks, which DDP takes, is loss and gradient of one process."""
    whole = slip_loss(0, 1, True)
    parts = run(slip_loss, world_size, True)
    for name in ('loss', 'clip_loss', 'ssl_loss', 'clip_acc', 'ssl_acc', 'grad/logit_scale'):
        mean = np.mean([part[name] for part in parts])
        np.testing.assert_allclose(mean, whole[name].detach().numpy(), rtol=1e-5, atol=1e-6)
    for name in NAMES:
        grads = np.concatenate([part[f'grad/{name}'] for part in parts]) / world_size
        np.testing.assert_allclose(grads, whole[f'grad/{name}'].numpy(), rtol=1e-5, atol=1e-6)


def naive_clip(image: Tensor, text: Tensor, scale: float) -> float:
    """The definition, one pair at a time."""
    image = image / image.norm(dim=1, keepdim=True)
    text = text / text.norm(dim=1, keepdim=True)
    loss = 0.0
    for i in range(len(image)):
        for a, b in ((image, text), (text, image)):
            scores = [scale * float(a[i] @ b[j]) for j in range(len(b))]
            loss += math.log(sum(map(math.exp, scores))) - scores[i]
    return loss / (2 * len(image))


def naive_simclr(view1: Tensor, view2: Tensor, temperature: float) -> float:
    """The definition, one view at a time."""
    z = torch.cat([view1, view2])
    z = z / z.norm(dim=1, keepdim=True)
    n, loss = len(view1), 0.0
    for i in range(2 * n):
        match = (i + n) % (2 * n)
        others = [math.exp(float(z[i] @ z[j]) / temperature) for j in range(2 * n) if j != i]
        loss += math.log(sum(others)) - float(z[i] @ z[match]) / temperature
    return loss / (2 * n)


@pytest.mark.parametrize('seed', range(3))
def test_naive_loops(seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 7, 5, generator=generator, dtype=torch.float32)
    loss, _ = clip_loss(a, b, torch.tensor(9.0))
    assert float(loss) == pytest.approx(naive_clip(a, b, 9.0), abs=1e-5)
    loss, _ = simclr_loss(a, b, temperature=0.2)
    assert float(loss) == pytest.approx(naive_simclr(a, b, 0.2), abs=1e-5)


def test_chance_level_and_perfect_match():
    same = torch.ones(16, 8)
    assert float(clip_loss(same, same, torch.tensor(10.0))[0]) == pytest.approx(math.log(16))
    assert float(simclr_loss(same, same)[0]) == pytest.approx(math.log(31))
    distinct = torch.eye(16)
    loss, accuracy = clip_loss(distinct, distinct, torch.tensor(100.0))
    assert float(loss) < 1e-5
    assert float(accuracy) == 100
    loss, accuracy = simclr_loss(distinct, distinct, temperature=0.01)
    assert float(loss) < 1e-5
    assert float(accuracy) == 100


def test_losses_are_float32_under_autocast():
    x, y = torch.randn(2, 6, 8).bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert clip_loss(x, y, torch.tensor(10.0))[0].dtype == torch.float32
        loss, _ = simclr_loss(x, y)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(simclr_loss(x.float(), y.float())[0]), abs=1e-6)


class _LargestTensor(TorchDispatchMode):
    """Record the largest number of elements that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, Tensor):
                self.numel = max(self.numel, value.numel())
        return out


def largest_tensor(rank: int, world_size: int, local: int) -> int:
    # Fewer channels than pairs, so that the logits are the largest thing there is.
    x = torch.randn(4, local, 2, requires_grad=True)
    with _LargestTensor() as mode:
        loss = clip_loss(x[0], x[1], torch.tensor(10.0))[0] + simclr_loss(x[2], x[3])[0]
        loss.backward()
    return mode.numel


@pytest.mark.dist
def test_memory_is_local_times_global():
    """No tensor of any rank has more than local x 2 global elements, the SimCLR logits."""
    local, world_size = 24, 4
    for numel in run(largest_tensor, world_size, local):
        assert numel == local * 2 * local * world_size


@pytest.mark.parametrize('rows', [1, 5])
def test_blocks_have_the_values_of_the_whole(monkeypatch, rows):
    """Beyond a number of logits, rows are compared in blocks; 17 are not a multiple of 5."""

    def losses() -> list[Tensor]:
        x = torch.randn(4, 17, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        x.requires_grad_()
        scale = torch.tensor([9.0], dtype=torch.float64, requires_grad=True)
        values = [*clip_loss(x[0], x[1], scale), *simclr_loss(x[2], x[3], 0.2)]
        (values[0] + values[2]).backward()
        return [*values, x.grad, scale.grad]

    whole = losses()
    monkeypatch.setattr(blocks, '_MAX_LOGITS', 34 * rows)
    for found, expected in zip(losses(), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_logits_are_never_held_whole(monkeypatch):
    """Neither forward nor backward makes a tensor beyond a block; 64 x 128 would be the whole."""
    monkeypatch.setattr(blocks, '_MAX_LOGITS', 1024)
    assert largest_tensor(0, 1, 64) == 1024


def test_a_global_batch_of_65536():
    """Some rows against all columns: blocks of 64 MiB, and the values of one piece."""
    generator = torch.Generator().manual_seed(0)
    columns = F.normalize(torch.randn(65536, 4, generator=generator), dim=-1)
    labels = torch.randint(65536, (300,), generator=generator)
    rows = columns[labels].requires_grad_()
    with _LargestTensor() as mode:
        loss, accuracy = info_nce(rows, columns, labels, 10.0)
        loss.backward()
    assert mode.numel == 2**24 < 300 * 65536
    logits = 10 * rows.detach().double() @ columns.double().T
    assert float(loss) == pytest.approx(float(F.cross_entropy(logits, labels)), abs=1e-5)
    assert float(accuracy) == pytest.approx(
        100 * float((logits.argmax(1) == labels).float().mean()), abs=0.5
    )
