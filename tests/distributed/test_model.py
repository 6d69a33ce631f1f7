"""Gradients of a whole model under DDP against one process."""

import numpy as np
import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope

from mmslip.registry import MODELS
from tests.distributed.pool import run

BATCH = 8


def build(**changes):
    """A tiny SLIP without batch norm, whose statistics would differ between ranks on a CPU."""
    DefaultScope.get_instance('distributed', scope_name='mmpretrain')
    torch.manual_seed(0)
    settings = dict(
        type='mmslip.SLIP',
        backbone=dict(
            type='mmslip.VisionTransformer',
            arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
            img_size=16,
            patch_size=8,
        ),
        neck=dict(type='mmslip.LinearProjection', in_channels=16, out_channels=8),
        text_backbone=dict(
            type='mmslip.TextTransformer',
            vocab_size=50,
            context_length=10,
            width=16,
            num_layers=2,
            num_heads=2,
        ),
        text_neck=dict(type='mmslip.LinearProjection', in_channels=16, out_channels=8),
        head=dict(type='mmslip.CLIPHead'),
        ssl=dict(
            type='mmslip.SimCLR',
            neck=dict(
                type='NonLinearNeck',
                in_channels=16,
                hid_channels=16,
                out_channels=8,
                with_last_bn=False,
                with_avg_pool=False,
                norm_cfg=dict(type='LN'),
            ),
            head=dict(type='mmslip.SimCLRHead'),
        ),
    )
    model = MODELS.build(settings | changes)
    # Parameters that are zero at first would hide errors of scale.
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def inputs(rank: int, world_size: int) -> dict:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(3, BATCH, 3, 16, 16, generator=generator)
    text = torch.randint(1, 48, (BATCH, 10), generator=generator)
    # Captions of different lengths: each rank trims to its own longest one.
    for row, end in zip(text, [3, 5, 9, 4, 2, 6, 7, 3], strict=True):
        row[end], row[end + 1 :] = 49, 0
    image, *views = (part.chunk(world_size)[rank] for part in images)
    text = text.chunk(world_size)[rank]
    return dict(image=image, views=views, text=text[:, : int(text.argmax(-1).max()) + 1])


def gradients(rank: int, world_size: int) -> dict:
    model = build()
    if world_size > 1:
        wrapped = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
    else:
        wrapped = model
    losses = wrapped(inputs(rank, world_size), mode='loss')
    (losses['loss_clip'] + losses['loss_ssl']).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.dist
@pytest.mark.parametrize('world_size', [2, 4])
def test_ddp_gradients_equal_one_process(world_size):
    whole = gradients(0, 1)
    for part in run(gradients, world_size):
        assert part.keys() == whole.keys()
        for name, grad in whole.items():
            assert grad.abs().max() > 0, name
            np.testing.assert_allclose(part[name], grad.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)
