"""A step never waits for the device: nothing in it needs a tensor's value on the host."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmslip.models import SLIP, SLIPDataPreprocessor


def views(size: int) -> Tensor:
    return torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8)


def batch() -> dict:
    """A batch as the loader gives it, with smaller self-supervised views."""
    text = torch.tensor([[49406, 5, 49407, 0]] * 4)
    return dict(inputs=dict(image=views(32), views=[views(16), views(16)], text=text))


@pytest.fixture
def model(make_slip: Callable[..., SLIP]) -> SLIP:
    """SLIP with everything that draws random numbers on the device."""
    backbone = dict(
        type='mmslip.VisionTransformer',
        arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
        img_size=32,
        patch_size=8,
        patch_dropout=0.5,
        drop_path_rate=0.1,
    )
    augment = dict(type='mmslip.DeviceAugment')
    preprocessor = dict(type='mmslip.SLIPDataPreprocessor', view_augment=augment)
    return make_slip(backbone=backbone, data_preprocessor=preprocessor)


def test_losses_and_gradients_need_no_values(model, monkeypatch):
    """Tensors of the meta device have no values, so asking for one raises."""
    # Which has no autocast either.
    monkeypatch.setattr(torch, 'autocast', lambda *args, **options: nullcontext())
    model.to('meta')
    inputs = dict(
        image=torch.empty(4, 3, 32, 32, device='meta'),
        views=list(torch.empty(2, 4, 3, 16, 16, device='meta')),
        text=torch.empty(4, 9, dtype=torch.int64, device='meta'),
    )
    loss, _ = model.parse_losses(model.loss(inputs))
    loss.backward()
    assert all(param.grad.device.type == 'meta' for param in model.parameters())
    with pytest.raises((RuntimeError, NotImplementedError), match='meta'):
        float(loss)


class Copies(TorchDispatchMode):
    """What is copied to the meta device, and whether that waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        target = kwargs.get('device')
        if func is torch.ops.aten._to_copy.default and args[0].device.type == 'cpu' and target:
            self.waiting.append(not kwargs.get('non_blocking', False))
        return func(*args, **kwargs)


def test_no_copy_of_a_batch_waits(monkeypatch):
    """Neither of what the loader made nor of what is drawn for augmentation."""
    monkeypatch.setattr(torch, 'autocast', lambda *args, **options: nullcontext())
    augment = [dict(type='mmslip.DeviceWarp', size=16, bend=0.1), dict(type='mmslip.DeviceAugment')]
    preprocessor = SLIPDataPreprocessor(view_augment=augment, image_augment=augment[:1]).to('meta')
    with Copies() as copies:
        inputs = preprocessor(batch(), training=True)['inputs']
    assert {view.device.type for view in (inputs['image'], *inputs['views'])} == {'meta'}
    assert len(copies.waiting) > 20
    assert not any(copies.waiting)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('kind', ['mmslip.BF16OptimWrapper', 'AmpOptimWrapper'])
def test_a_whole_step_does_not_wait_for_the_gpu(model, kind):
    """From the loader's batch to the optimiser, colour and blur on the device included."""
    model.cuda()
    wrapper = build_optim_wrapper(
        model,
        dict(
            type=kind,
            constructor='mmslip.NoDecay1dOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1e-3, fused=True),
        ),
    )
    data = batch()
    data['inputs'] = {
        key: [view.pin_memory() for view in value] if key == 'views' else value.pin_memory()
        for key, value in data['inputs'].items()
    }
    model.train_step(data, wrapper)  # kernels and the optimiser's state are made once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        losses = model.train_step(data, wrapper)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert losses['loss'].isfinite()
