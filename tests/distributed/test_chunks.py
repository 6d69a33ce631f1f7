"""Slices under DDP: gradients of one process, and one reduction for each parameter."""

from collections import Counter

import numpy as np
import pytest
from mmengine.model import MMDistributedDataParallel

from mmslip.models.chunks import run_in_chunks
from tests.distributed.pool import run
from tests.distributed.test_model import build, gradients, inputs


def sliced_gradients(rank: int, world_size: int) -> dict:
    """Gradients, and how often each parameter's was handed to DDP."""
    model = build()
    for tower in (model.backbone, model.text_backbone):
        run_in_chunks(tower, 3)
    calls = Counter()
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: calls.update([name]))
    wrapped = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
    losses = wrapped(inputs(rank, world_size), mode='loss')
    (losses['loss_clip'] + losses['loss_ssl']).backward()
    grads = {name: value.grad for name, value in model.named_parameters()}
    return dict(grads=grads, calls=dict(calls))


@pytest.mark.dist
def test_ddp_gradients_equal_one_unsliced_process():
    whole = gradients(0, 1)
    for part in run(sliced_gradients, 2):
        assert part['grads'].keys() == whole.keys()
        assert part['calls'] == dict.fromkeys(whole, 1)
        for name, grad in whole.items():
            np.testing.assert_allclose(
                part['grads'][name], grad.numpy(), rtol=1e-5, atol=1e-6, err_msg=name
            )
