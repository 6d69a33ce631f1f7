"""On a GPU what the CPU gives: losses and gradients, copies of a tower, whole trainings.

Each test runs on the CPU too, so that it is known to be right where no GPU is at hand; with
``MMSLIP_SLOW_TESTS`` all of them do. ``pytest -m gpu`` runs them on a CUDA device.
"""

import copy
import os
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

import mmslip
import mmslip.models.chunks as chunks
from mmslip.engine import SpeedHook
from mmslip.models import SLIP, DeviceAugment, DeviceWarp
from mmslip.registry import DATASETS
from mmslip.utils import seeded
from tests.crashing import EPOCH_LOOP, assert_same_run, kill, make_runner, trace
from tests.distributed import test_sharding as sharding
from tests.distributed.pool import context_for
from tests.distributed.pool import run as run_group

BATCH = 10
VIT = dict(
    type='mmslip.VisionTransformer',
    arch=dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64),
    img_size=32,
    patch_size=8,
)
NO_TEXT = dict(neck=None, text_backbone=None, text_neck=None, head=None)
HALVES = dict(slip={}, clip=dict(ssl=None), simclr=NO_TEXT, sliced=dict(chunk_size=4))
# Type of the parameters, type that autocast computes in, and the largest relative errors: of losses
# and CLIP's gradients together, and of gradients where there is a self-supervised head. Its batch
# norm over ten samples enlarges rounding: SimCLR's error was 0.12 to 0.33 in bf16 and 0.007 to 0.12
# in fp16 with twelve seeds, whichever kernels computed it; CLIP's was 0.02 and 0.003.
PRECISIONS = dict(
    float64=(torch.float64, None, 1e-9, 1e-9),
    float32=(torch.float32, None, 1e-4, 1e-4),
    bf16=(torch.float32, torch.bfloat16, 0.05, 0.5),
    fp16=(torch.float32, torch.float16, 0.01, 0.25),
)


def pixels(batch: int = BATCH) -> dict:
    """A batch as the loader gives it."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (3, batch, 3, 32, 32), generator=generator, dtype=torch.uint8)
    text = torch.randint(1, 400, (batch, 16), generator=generator)
    ends = torch.randint(1, 16, (batch,), generator=generator)
    for row, end in zip(text, ends, strict=True):
        row[end], row[end + 1 :] = 49407, 0
    return dict(image=images[0], views=[images[1], images[2]], text=text)


def normalised(device: str, dtype: torch.dtype = torch.float32) -> dict:
    """The batch as the towers take it."""
    inputs = pixels()
    image, *views = (
        ((image.double() - 127) / 60).to(device, dtype)
        for image in (inputs['image'], *inputs['views'])
    )
    return dict(image=image, views=views, text=inputs['text'].to(device))


def covered_on_cpu(device: str, file: str) -> None:
    """Skip on a CPU what another file tests there in more depth."""
    if device == 'cpu' and 'MMSLIP_SLOW_TESTS' not in os.environ:
        pytest.skip(f'tests/{file} does more on a CPU')


def autocast(device: str, dtype: torch.dtype | None) -> torch.autocast | nullcontext:
    return nullcontext() if dtype is None else torch.autocast(device, dtype)


def step(
    model: SLIP, inputs: dict, device: str, dtype: torch.dtype | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """Losses, and all gradients as one vector, in float64 on the CPU."""
    with autocast(device, dtype):
        losses = model.loss(inputs)
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    gradients = [param.grad.double().cpu().ravel() for param in model.parameters()]
    losses = {name: value.detach().double().cpu() for name, value in losses.items()}
    return losses, torch.cat(gradients)


def error(found: Tensor, expected: Tensor) -> float:
    """Length of the difference, relative to that of what is expected."""
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize('precision', PRECISIONS)
@pytest.mark.parametrize('half', HALVES)
def test_losses_and_gradients_are_those_of_float64_on_the_cpu(make_slip, device, half, precision):
    dtype, computed, tolerance, behind_batch_norm = PRECISIONS[precision]
    changes = dict(backbone=VIT) | HALVES[half]
    losses, gradient = step(make_slip(**changes).double(), normalised('cpu', torch.float64), 'cpu')
    model = make_slip(**changes).to(device, dtype)
    found, found_gradient = step(model, normalised(device, dtype), device, computed)
    assert found.keys() == losses.keys()
    for name in losses.keys() - {'acc_clip', 'acc_ssl'}:
        assert found[name].item() == pytest.approx(losses[name].item(), rel=tolerance), name
    assert error(found_gradient, gradient) < (tolerance if half == 'clip' else behind_batch_norm)


@pytest.mark.parametrize('computed', [None, torch.bfloat16], ids=['float32', 'bf16'])
def test_slices_repeat_the_random_numbers_of_the_device(make_slip, device, monkeypatch, computed):
    """Bytes, dropped patches and paths: computing activations again changes no gradient."""
    model = make_slip(
        chunk_size=4, backbone=dict(VIT, drop_rate=0.2, drop_path_rate=0.3, patch_dropout=0.5)
    )
    model.to(device).train()
    kept, other = copy.deepcopy(model), copy.deepcopy(model)

    def gradient(model: SLIP, seed: int) -> Tensor:
        torch.manual_seed(seed)
        inputs = model.data_preprocessor(dict(inputs=pixels()), training=True)['inputs']
        assert isinstance(inputs['image'], chunks.ByteImages)
        return step(model, inputs, device, computed)[1]

    found, different = gradient(model, 7), gradient(other, 8)
    monkeypatch.setattr(chunks, 'checkpoint', lambda run, *args, use_reentrant: run(*args))
    expected = gradient(kept, 7)
    assert error(found, expected) <= (0 if device == 'cpu' else 1e-3)
    assert error(different, expected) > 0.1


@pytest.mark.parametrize('augment', ['colour', 'warp'])
def test_views_are_those_of_the_cpu(device, augment):
    images = pixels()['image'].float()
    module = dict(
        colour=DeviceAugment(),
        warp=DeviceWarp(24, degrees=20, shear=0.2, bend=0.05, flip_prob=0.5),
    )[augment]
    with seeded(7):
        expected = module(images)
    with seeded(7):
        found = module(images.to(device))
    assert found.device.type == device
    torch.testing.assert_close(found.cpu(), expected, atol=0.05, rtol=0)  # of 255


@pytest.mark.parametrize('computed', [None, torch.bfloat16], ids=['float32', 'bf16'])
def test_compiled_blocks(make_slip, device, computed):
    """On a GPU with the kernels of the default backend, behind recomputation as well."""
    covered_on_cpu(device, 'engine/test_compile.py')
    torch._dynamo.reset()
    backend = 'aot_eager' if device == 'cpu' else 'inductor'
    changes = dict(backbone=VIT, ssl=None) if device == 'cpu' else dict(backbone=VIT)
    expected = step(make_slip(**changes).to(device), normalised(device), device, computed)
    for recompute in [True] if device == 'cpu' else [False, True]:
        model = make_slip(**changes).to(device)
        SpeedHook(compile=True, recompute=recompute, backend=backend).before_train(
            SimpleNamespace(model=model)
        )
        found = step(model, normalised(device), device, computed)
        tolerance = 1e-4 if computed is None else 0.25  # fused kernels round less often
        assert found[0]['loss_clip'].item() == pytest.approx(
            expected[0]['loss_clip'].item(), rel=tolerance
        )
        assert error(found[1], expected[1]) < tolerance


@cache
def embeddings(device: str) -> Tensor:
    """Of the first drawings and their names, by the weights that come with mmslip."""
    model = mmslip.get_model('slip_tiny_emoji', pretrained=True, device=device)
    loader = copy.deepcopy(model._config.val_dataloader)
    dataset = DATASETS.build(loader.dataset.datasets[0])
    images = torch.stack([dataset[index]['inputs']['image'] for index in range(8)])
    with torch.no_grad():
        inputs = model.data_preprocessor(dict(inputs=dict(image=images)))['inputs']
        return model.embed(inputs)['image_feat'].cpu()


def test_shipped_weights_give_the_embeddings_of_the_cpu(device):
    assert error(embeddings(device), embeddings('cpu')) < 1e-4


BATCH_NORM = dict(
    ssl=dict(
        type='mmslip.SimCLR',
        neck=dict(
            type='NonLinearNeck',
            hid_channels=16,
            out_channels=8,
            with_last_bn=False,
            with_avg_pool=False,
            norm_cfg=dict(type='BN1d'),
        ),
        head=dict(type='mmslip.SimCLRHead'),
    )
)


@pytest.fixture
def alone(tmp_path, monkeypatch) -> Callable[..., np.ndarray]:
    """Loss and scale of each step of a training in float64 by one process on the CPU."""

    def train(**options: object) -> np.ndarray:
        with monkeypatch.context() as patch:
            device = 'cpu'
            if torch.cuda.is_available():  # which mmengine would take
                patch.setenv('CUDA_VISIBLE_DEVICES', '')
                device = 'cuda'
            arguments = str(tmp_path / 'alone'), dict(run={}), dict(run=options)
            (found,) = run_group(sharding.train_all, 1, *arguments, device=device)
        return found['run-run']

    return train


@pytest.mark.dist
def test_a_group_of_one_process(alone, tmp_path, device):
    """Over NCCL on a GPU, in float64: steps are those of a process by itself on the CPU."""
    covered_on_cpu(device, 'distributed/test_sharding.py')
    # mmengine's own wrapper, and synchronised batch norm, as the default runtime has it.
    backend, ddp, sync_bn = dict(cpu=('gloo', sharding.DDP, None), cuda=('nccl', {}, 'torch'))[
        device
    ]
    kinds = dict(ddp=ddp, fsdp2=sharding.SHARDED)
    options = dict(model=BATCH_NORM, sync_bn=sync_bn, grouped=True)
    (found,) = run_group(
        sharding.train_all, 1, str(tmp_path / 'group'), kinds, dict(run=options),
        device=device, backend=backend,
    )  # fmt: skip
    expected = alone(model=BATCH_NORM)
    for kind in kinds:
        np.testing.assert_allclose(found[f'{kind}-run'], expected, rtol=1e-8, err_msg=kind)


@pytest.mark.dist
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_synchronised_batch_norm_of_two_processes(alone, tmp_path):
    """Both on one GPU, over gloo, which NCCL refuses: statistics are those of the whole batch."""
    options = dict(model=BATCH_NORM, sync_bn='torch')
    arguments = str(tmp_path / 'two'), dict(ddp=sharding.DDP), dict(run=options)
    parts = run_group(sharding.train_all, 2, *arguments, device='cuda')
    losses = np.mean([part['ddp-run'] for part in parts], axis=0)
    np.testing.assert_allclose(losses, alone(model=BATCH_NORM), rtol=1e-8)


@pytest.mark.dist
def test_bytes_in_sharded_bfloat16_towers(tmp_path, device):
    """FSDP2 casts what goes into a tower, but not bytes: they are finished in its type."""
    (same,) = run_group(both_ways, 1, device=device, backend=dict(cpu='gloo', cuda='nccl')[device])
    assert same['late'] == pytest.approx(same['at_once'], rel=1e-3)


def both_ways(rank: int, world_size: int) -> dict[str, float]:
    """Loss of a sharded tower in slices, with views that are bytes or floats."""
    found = {}
    for kind, in_slices in (('late', ('image', 'views')), ('at_once', ())):
        model = sharding.build(chunk_size=3)
        preprocessor = model.data_preprocessor
        preprocessor.in_slices = in_slices
        wrapper = mmslip.engine.FullyShard(model, param_dtype='bfloat16')
        model.to('cuda' if torch.cuda.is_available() else 'cpu')
        wrapper.shard(model)
        generator = torch.Generator().manual_seed(0)
        image, *views = torch.randint(
            0, 256, (3, 8, 3, 16, 16), generator=generator, dtype=torch.uint8
        )
        text = torch.randint(1, 49, (8, 10), generator=generator)
        inputs = dict(image=image, views=views, text=text)
        losses = model(**preprocessor(dict(inputs=inputs), training=True), mode='loss')
        (losses['loss_clip'] + losses['loss_ssl']).backward()
        found[kind] = losses['loss_clip'].item()
    return found


class KillAt:
    """Kills its process in a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, runner: Runner) -> None:
        if runner.iter == self.step:
            kill()


def train(folder: Path, device: str, **options: object) -> None:
    torch.set_num_threads(1)
    runner = make_runner(folder, **options)
    assert next(runner.model.parameters()).device.type == device or device == 'cpu'
    runner.train()


def test_killed_and_resumed(tmp_path, device):
    """SIGKILL, and the losses and the state of an uninterrupted run, to the bit."""
    covered_on_cpu(device, 'test_killed.py')

    def start(name: str, **options: object) -> int:
        process = context_for(device).Process(
            target=train, args=(tmp_path / name, device), kwargs=dict(loop=EPOCH_LOOP, **options)
        )
        process.start()
        process.join()
        return process.exitcode

    assert start('straight') == 0
    assert start('killed', act=KillAt(8)) == -9
    assert trace(tmp_path / 'killed')[-1][0] == 8
    assert start('killed', resume=True) == 0
    assert_same_run(tmp_path / 'killed', tmp_path / 'straight')


class RefuseToWait(Hook):
    """From the fourth step on, an error wherever the host waits for the device."""

    priority = 'HIGHEST'  # what other hooks read after the last step is no wait within it

    def __init__(self, device: str) -> None:
        self.device = device
        self.watched = 0

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter >= 3:  # kernels are chosen, state is made, losses have been read once
            self.watched += 1
            self.set('error')

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter == runner.max_iters - 1:
            self.set('default')

    def set(self, mode: str) -> None:
        if self.device == 'cuda':
            torch.cuda.set_sync_debug_mode(mode)


class Pictures(torch.utils.data.Dataset):
    """Samples of :func:`pixels`."""

    def __len__(self) -> int:
        return 8 * BATCH

    def __getitem__(self, index: int) -> dict:
        inputs, row = pixels(), index % BATCH
        views = [view[row] for view in inputs['views']]
        return dict(inputs=dict(image=inputs['image'][row], views=views, text=inputs['text'][row]))


@pytest.mark.parametrize('wrapper', ['mmslip.BF16OptimWrapper', 'AmpOptimWrapper', 'sliced'])
def test_training_does_not_wait_for_the_device(make_slip, tmp_path, device, wrapper):
    """With the hooks of the default runtime, augmentation on the device, or slices of bytes."""
    if device == 'cpu' and wrapper == 'AmpOptimWrapper':
        pytest.skip('mmengine refuses to scale gradients on a CPU')
    changes: dict = dict(chunk_size=4)
    if wrapper != 'sliced':
        warp, colour = dict(type='mmslip.DeviceWarp', size=32), dict(type='mmslip.DeviceAugment')
        changes = dict(
            data_preprocessor=dict(
                type='mmslip.SLIPDataPreprocessor',
                view_augment=[dict(warp, size=16), colour],
                image_augment=[warp],
            )
        )
    vit = dict(VIT, drop_path_rate=0.2, patch_dropout=0.25)
    watch = RefuseToWait(device)
    runner = make_runner(
        tmp_path,
        model=as_initialised(make_slip(backbone=vit, **changes)),
        loop=dict(by_epoch=False, max_iters=8),
        interval=100,
        data=dict(dataset=Pictures(), batch_size=BATCH, pin_memory=device == 'cuda'),
        hooks=(watch,),
        traced=False,
        averages=False,  # mmengine's average reads its own count of steps
        optim_wrapper=dict(
            type='mmslip.BF16OptimWrapper' if wrapper == 'sliced' else wrapper,
            constructor='mmslip.NoDecay1dOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1e-3, fused=True),
        ),
        param_scheduler=dict(type='LinearLR', start_factor=0.1, end=4, by_epoch=False),
        experiment_name=f'run-{uuid.uuid4()}',
    )
    try:
        runner.train()
    finally:
        watch.set('default')
    assert watch.watched == 5
    assert all(param.isfinite().all() for param in runner.model.parameters())


def as_initialised(model: nn.Module) -> nn.Module:
    model._is_init = True
    return model
