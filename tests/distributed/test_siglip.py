"""The sigmoid loss over processes against one process."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mmslip.models import SigLIPHead
from tests.distributed.pool import run

BATCH = 8


def loss_and_gradients(rank: int, world_size: int) -> dict[str, Tensor]:
    """Each rank holds consecutive pairs."""
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randn(2, BATCH, 6, generator=generator)
    image, text = (part.chunk(world_size)[rank].clone().requires_grad_() for part in pairs)
    head = SigLIPHead()
    with torch.no_grad():
        head.logit_bias.fill_(-2)  # far from saturation
    out = head.loss(image, text)
    out['loss'].backward()
    return dict(
        loss=out['loss'],
        acc=out['acc'],
        scale=head.logit_scale.grad,
        bias=head.logit_bias.grad,
        image=image.grad,
        text=text.grad,
    )


@pytest.mark.dist
@pytest.mark.parametrize('world_size', [2, 4])
def test_processes_together_equal_one(world_size):
    """The mean over ranks, which DDP takes, is loss and gradient of one process."""
    whole = loss_and_gradients(0, 1)
    parts = run(loss_and_gradients, world_size)
    for name in ('loss', 'acc', 'scale', 'bias'):
        mean = np.mean([part[name] for part in parts], axis=0)
        np.testing.assert_allclose(mean, whole[name].detach().numpy(), rtol=1e-5, atol=1e-6)
    for name in ('image', 'text'):
        grads = np.concatenate([part[name] for part in parts]) / world_size
        assert np.abs(whole[name]).max() > 1e-2
        np.testing.assert_allclose(grads, whole[name].numpy(), rtol=1e-5, atol=1e-6)
