"""Gradients of mmpretrain's self-supervised algorithms on SLIP's backbone, over processes.

docs/composition.md says of each whether they are those of one process.
"""

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope

from mmslip.registry import MODELS
from tests.distributed.pool import run

BATCH, WIDTH = 8, 16


def neck(**changes: object) -> dict:
    """Layer norm, since batch norm is not synchronised on a CPU."""
    settings = dict(in_channels=WIDTH, hid_channels=WIDTH, out_channels=WIDTH)
    settings.update(type='mmslip.MLPProjection', norm_cfg=dict(type='LN'), with_last_bn=False)
    return settings | changes


def latent_head() -> dict:
    loss = dict(type='CosineSimilarityLoss')
    return dict(type='LatentPredictHead', predictor=neck(), loss=loss)


ALGORITHMS = dict(
    MoCoV3=dict(head=dict(type='MoCoV3Head', predictor=neck(), loss=dict(type='CrossEntropyLoss'))),
    BYOL=dict(head=latent_head()),
    SimSiam=dict(head=latent_head()),
    BarlowTwins=dict(
        head=dict(
            type='LatentCrossCorrelationHead',
            in_channels=WIDTH,
            loss=dict(type='CrossCorrelationLoss'),
        )
    ),
)


def gradients(rank: int, world_size: int, name: str) -> dict:
    DefaultScope.get_instance('distributed', scope_name='mmpretrain')
    MessageHub.get_current_instance().update_info('max_iters', 2)
    torch.manual_seed(0)
    vit = dict(
        type='mmslip.VisionTransformer',
        arch=dict(embed_dims=WIDTH, num_layers=1, num_heads=2, feedforward_channels=WIDTH),
        img_size=16,
        patch_size=8,
    )
    ssl = dict(type=name, neck=neck(), **ALGORITHMS[name])
    model = MODELS.build(dict(type='mmslip.SLIP', backbone=vit, ssl=ssl)).double().train()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    generator = torch.Generator().manual_seed(1)
    views = torch.randn(2, BATCH, 3, 16, 16, generator=generator, dtype=torch.float64)
    # Barlow Twins' head has a batch norm: both halves of the batch are given the same statistics.
    if name == 'BarlowTwins':
        views = views[:, : BATCH // 2].repeat(1, 2, 1, 1, 1)
    wrapped = model
    if world_size > 1:
        wrapped = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
    parts = [view.chunk(world_size)[rank] for view in views]
    wrapped(dict(views=parts), mode='loss')['loss_ssl'].backward()
    return {key: param.grad for key, param in model.named_parameters() if param.requires_grad}


@pytest.mark.dist
@pytest.mark.parametrize('name', ALGORITHMS)
def test_gradients_over_processes(name):
    whole = gradients(0, 1, name)
    factor = 2 if name == 'BarlowTwins' else 1  # the number of processes
    for part in run(gradients, 2, name):
        assert part.keys() == whole.keys()
        for key, grad in whole.items():
            np.testing.assert_allclose(
                factor * part[key], grad.numpy(), rtol=1e-8, atol=1e-10, err_msg=key
            )
    assert max(grad.abs().max() for grad in whole.values()) > 1e-3
