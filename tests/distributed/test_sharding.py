"""Whole trainings over processes, copied (DDP) or sharded (FSDP2), against one process."""

import copy
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.model import ExponentialMovingAverage
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

import mmslip.engine  # noqa: F401  (registers the hooks)
from mmslip.engine import FullyShard, SpeedHook
from mmslip.models.blocks import find_blocks
from tests.distributed.pool import run
from tests.distributed.test_model import build, inputs

DDP = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
SHARDED = dict(type='mmslip.FullyShard')
BATCH, STEPS = 8, 3

CASES = {
    'slip': dict(),
    'clip': dict(model=dict(ssl=None)),
    'simclr': dict(model=dict.fromkeys(('neck', 'text_backbone', 'text_neck', 'head'))),
    # An image tower in stages, beside the text tower.
    'swin': dict(
        model=dict(
            backbone=dict(
                type='SwinTransformer',
                arch=dict(embed_dims=8, depths=[2, 2], num_heads=[1, 2]),
                img_size=16,
                window_size=2,
                drop_path_rate=0.0,
                out_indices=(1,),
            ),
            ssl=None,
        )
    ),
    'frozen': dict(model=dict(frozen=['backbone'], ssl=None)),
    'averaged': dict(hooks=[dict(type='EMAHook', momentum=0.3)]),
    # Nothing of this may change anything.
    'chunks': dict(model=dict(chunk_size=1)),
    'recomputed': dict(speed=dict(recompute=True)),
    # What reads or groups all parameters.
    'clipped': dict(clip_grad=dict(max_norm=0.1)),
    'layers': dict(paramwise_cfg=dict(layer_decay_rate=0.5)),
    'accumulated': dict(accumulative_counts=2),
    'watched': dict(hooks=[dict(type='mmslip.InstabilityHook')]),
    'all': dict(
        model=dict(chunk_size=1),
        speed=dict(recompute=True, compile=True, backend='aot_eager'),
        shard=dict(reshard_after_forward=False),
    ),
}
SAME_AS_SLIP = ('chunks', 'recomputed', 'watched', 'all')
FOR_SHARDS = ('clipped', 'layers', 'accumulated', 'watched', 'all')


class Samples(torch.utils.data.Dataset):
    """The batch of another test again and again, one sample at a time."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        self.dtype = dtype

    def __len__(self) -> int:
        return BATCH * STEPS  # mmengine's loop sleeps at the end of its data

    def __getitem__(self, index: int) -> dict:
        batch, index = inputs(0, 1), index % BATCH
        views = [view[index].to(self.dtype) for view in batch['views']]
        image = batch['image'][index].to(self.dtype)
        return dict(inputs=dict(image=image, views=views, text=batch['text'][index]))


class Trace(Hook):
    """Numbers of each step, by default loss and scale."""

    def __init__(self, *names: str) -> None:
        self.names = names or ('loss', 'logit_scale')
        self.steps = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        values = [outputs.get(name, torch.zeros(())) for name in self.names]
        self.steps.append([value.item() for value in values])


def make_runner(
    folder: str,
    world_size: int,
    wrapper: dict,
    *,
    model: dict | None = None,
    hooks: tuple | list = (),
    speed: dict | None = None,
    shard: dict | None = None,
    loader: dict | None = None,
    steps: int = STEPS,
    resume: bool = False,
    dtype: torch.dtype = torch.float64,
    grouped: bool = False,
    sync_bn: str | None = None,
    **optim: Any,
) -> Runner:
    """A training of SLIP in float64 with a checkpoint at its end.

    One process by itself has no wrapper, unless it is ``grouped``; no ``wrapper`` is mmengine's.
    """
    slip = build(**(model or {})).to(dtype)
    slip._is_init = True  # keeps its weights
    if slip.with_text:
        slip.head.logit_scale.data.fill_(4.7)  # above ln 100: the bound acts
    if wrapper == SHARDED:
        wrapper = wrapper | (shard or {})
    return Runner(
        model=slip,
        work_dir=folder,
        train_dataloader=loader
        or dict(
            batch_size=BATCH // world_size,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
            dataset=Samples(dtype),
        ),
        train_cfg=dict(by_epoch=False, max_iters=steps),
        optim_wrapper=dict(
            constructor='mmslip.NoDecay1dOptimWrapperConstructor',
            # With the usual eps, rounding would move parameters without a gradient (key biases).
            optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.1, eps=1e-4, fused=True),
            **optim,
        ),
        param_scheduler=dict(type='LinearLR', start_factor=0.5, end=4, by_epoch=False),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=STEPS)),
        custom_hooks=[
            dict(type='mmslip.ClampHook'),
            dict(type='mmslip.PlainCheckpointHook'),
            dict(type='mmslip.ClampHook'),
            dict(type='mmslip.SpeedHook', **(speed or {})),
            *copy.deepcopy(hooks),
        ],
        cfg=dict(model_wrapper_cfg=dict(wrapper) or None, sync_bn=sync_bn),
        launcher='pytorch' if world_size > 1 or grouped else 'none',
        env_cfg=dict(mp_cfg=dict(mp_start_method='forkserver')),
        default_scope='mmpretrain',
        randomness=dict(seed=3),
        log_level='ERROR',
        experiment_name=f'run-{uuid.uuid4()}',
        resume=resume,
    )


def train(folder: str, world_size: int, wrapper: dict, **options: Any) -> np.ndarray:
    """Loss and scale of each step ``(steps, 2)``."""
    runner = make_runner(folder, world_size, wrapper, **options)
    trace = Trace()
    runner.register_hook(trace)
    runner.train()
    sharded = [isinstance(param, DTensor) for param in runner.model.parameters()]
    is_sharded = isinstance(runner.model, FullyShard)
    assert all(sharded) if is_sharded else not any(sharded)
    model = getattr(runner.model, 'module', runner.model)
    gathered = {name for name, part in model.named_modules() if isinstance(part, FSDPModule)}
    assert gathered >= find_blocks(model).keys() if is_sharded else not gathered
    return np.array(trace.steps)


def train_all(
    rank: int,
    world_size: int,
    folder: str,
    kinds: dict,
    cases: dict[str, dict],
    train: Callable[..., np.ndarray] = train,
) -> dict:
    """The traces of trainings with every wrapper and options, whose checkpoints stay."""
    os.environ['LOCAL_RANK'] = str(rank % (torch.cuda.device_count() or world_size))
    torch.set_num_threads(1)
    return {
        f'{kind}-{case}': train(f'{folder}/{kind}-{case}', world_size, wrapper, **options)
        for kind, wrapper in kinds.items()
        for case, options in cases.items()
    }


def assert_same(value: Any, reference: Any, where: str = '') -> None:
    """Equal structure, and equal numbers to the rounding of float64."""
    if isinstance(reference, Tensor):
        assert type(value) is Tensor
        assert value.dtype == reference.dtype
        torch.testing.assert_close(value, reference, rtol=1e-9, atol=1e-12, msg=lambda m: where + m)
    elif isinstance(reference, dict):
        assert list(value) == list(reference), where
        for key, item in reference.items():
            assert_same(value[key], item, f'{where}/{key}')
    elif isinstance(reference, list | tuple):
        assert len(value) == len(reference), where
        for index, item in enumerate(reference):
            assert_same(value[index], item, f'{where}/{index}')
    else:
        assert value == reference, where


def load(folder: Path, name: str, step: int = STEPS) -> dict:
    checkpoint = torch.load(folder / name / f'iter_{step}.pth', weights_only=True)
    keep = ('state_dict', 'optimizer', 'ema_state_dict')
    return {name: checkpoint[name] for name in keep if name in checkpoint}


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('sharding')


@pytest.fixture(scope='module')
def whole(folder) -> dict:
    """One process with the whole batch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('LOCAL_RANK', '0')
        cases = {name: options for name, options in CASES.items() if name not in SAME_AS_SLIP}
        return train_all(0, 1, str(folder), dict(one={}), cases)


def check(folder: Path, whole: dict, results: list[dict]) -> None:
    """Mean loss of the ranks, weights, moments (of the gradients) and averages of one process."""
    for name in results[0]:
        case = name.split('-')[1]
        reference = 'one-slip' if case in SAME_AS_SLIP else f'one-{case}'
        steps = np.mean([result[name] for result in results], axis=0)
        np.testing.assert_allclose(steps, whole[reference], rtol=1e-10, err_msg=name)
        assert_same(load(folder, name), load(folder, reference), name)


@pytest.mark.dist
@pytest.mark.parametrize('wrapper', [DDP, SHARDED], ids=['ddp', 'sharded'])
def test_two_processes_equal_one(folder, whole, wrapper):
    name = 'sharded' if wrapper == SHARDED else 'ddp'
    left_out = () if wrapper == SHARDED else FOR_SHARDS
    cases = {name: options for name, options in CASES.items() if name not in left_out}
    check(folder, whole, run(train_all, 2, str(folder), {name: wrapper}, cases))


@pytest.mark.dist
def test_four_processes_equal_one(folder, whole):
    kinds = {'ddp4': DDP, 'sharded4': SHARDED}
    check(folder, whole, run(train_all, 4, str(folder), kinds, dict(slip=CASES['slip'])))


def test_the_bound_of_the_scale_acts(whole):
    """So that a bound that shards miss would show."""
    scale = whole['one-slip'][:, 1]
    assert scale[0] == pytest.approx(100)
    assert scale[-1] < 99.9


def change_over(rank: int, world_size: int, folder: str) -> dict:
    """Shards go on from a checkpoint of one process, go back to it, and evaluate."""
    os.environ['LOCAL_RANK'] = str(rank % (torch.cuda.device_count() or world_size))
    torch.set_num_threads(1)
    averaged = CASES['averaged']
    train(f'{folder}/begun-sharded', world_size, SHARDED, steps=STEPS - 1, **averaged)

    runner = make_runner(f'{folder}/begun', world_size, SHARDED, resume=True, **averaged)
    trace = Trace()
    runner.register_hook(trace)
    runner.train()

    checkpoint = runner.load_checkpoint(f'{folder}/begun/iter_{STEPS - 1}.pth', strict=True)
    runner.optim_wrapper.load_state_dict(checkpoint['optimizer'])
    rows = range(rank, BATCH, world_size)
    batch = torch.utils.data.default_collate([Samples()[row] for row in rows])
    runner.model.train_step(batch, runner.optim_wrapper)
    again = {name: value.full_tensor() for name, value in runner.model.module.named_parameters()}

    model = runner.model.module.eval()
    with torch.no_grad():
        text = model.encode_text(inputs(0, 1)['text'])  # not by way of the whole model
        image = model(dict(image=inputs(0, 1)['image'].double()), mode='tensor')['image_feat']
    return dict(steps=np.array(trace.steps), again=again, text=text, image=image)


@pytest.mark.dist
def test_checkpoints_change_over(folder, whole, monkeypatch):
    """From one process to shards and back, and back in time while training."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    averaged = CASES['averaged']
    train(str(folder / 'begun'), 1, {}, steps=STEPS - 1, **averaged)
    reference = load(folder, 'one-averaged')
    # With averages, a checkpoint's `state_dict` is theirs.
    trained = {name[7:]: value for name, value in reference['ema_state_dict'].items()}
    model = build().double().eval()
    model.load_state_dict(trained, strict=False)
    with torch.no_grad():
        text = model.encode_text(inputs(0, 1)['text'])
        image = model.encode_image(inputs(0, 1)['image'].double())
    results = run(change_over, 2, str(folder))
    steps = np.mean([result['steps'] for result in results], axis=0)
    np.testing.assert_allclose(steps, whole['one-averaged'][-1:], rtol=1e-10)
    assert_same(load(folder, 'begun'), reference)
    for result in results:
        for name, value in result['again'].items():
            expected = trained[name].numpy()
            np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(result['text'], text, rtol=1e-9)
        np.testing.assert_allclose(result['image'], image, rtol=1e-9)

    steps = train(str(folder / 'begun-sharded'), 1, {}, resume=True, **averaged)
    np.testing.assert_allclose(steps, whole['one-averaged'][-1:], rtol=1e-10)
    assert_same(load(folder, 'begun-sharded'), reference)


class Evaluates(Hook):
    """Validates before training and after each step.

    Of four images, three have a caption in the first process, and none in others.
    """

    priority = 'LOWEST'

    def __init__(self, rank: int) -> None:
        self.captioned = 0 if rank else 3
        self.found: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def before_train(self, runner: Runner) -> None:
        hooks = [hook for hook in runner.hooks if isinstance(hook, EMAHook | SpeedHook)]
        for hook in hooks:
            hook.before_val_epoch(runner)
        model, text = getattr(runner.model, 'module', runner.model), inputs(0, 1)['text']
        names = model.encode_text(text[:2])  # as class names are embedded, before any image
        samples = [DataSample() for _ in range(4)]
        for sample in samples[: self.captioned]:
            sample.set_field(text[:1], 'caption_ids')
        image = inputs(0, 1)['image'][:4].double()
        runner.model.eval()
        samples = runner.model.val_step(dict(inputs=dict(image=image), data_samples=samples))
        for hook in hooks:
            hook.after_val_epoch(runner, {})
        runner.model.train()
        self.found.append((torch.stack([sample.image_feat for sample in samples]), names))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.before_train(runner)


def evaluate(
    rank: int, world_size: int, folder: str, wrapper: dict, options: dict | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Features of each validation of a training with averages."""
    os.environ['LOCAL_RANK'] = str(rank % (torch.cuda.device_count() or world_size))
    torch.set_num_threads(1)
    runner = make_runner(folder, world_size, wrapper, **CASES['averaged'], **(options or {}))
    hook = Evaluates(rank)
    runner.register_hook(hook)
    runner.train()
    return hook.found


@pytest.mark.dist
def test_processes_validate_batches_that_differ(folder, whole, monkeypatch):
    """Where one has captions and another has none, or more slices, nobody waits in vain."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    expected = evaluate(0, 1, str(folder / 'one-validated'), {})
    options = dict(model=dict(chunk_size=1))
    results = run(evaluate, 2, str(folder / 'sharded-validated'), SHARDED, options)
    assert_same(load(folder, 'sharded-validated'), load(folder, 'one-averaged'))
    for result in results:
        for found, reference in zip(result, expected, strict=True):
            for value, wanted in zip(found, reference, strict=True):
                torch.testing.assert_close(value, wanted, rtol=1e-9, atol=1e-12)


def half_precision(rank: int, world_size: int, folder: str) -> dict:
    """The types that blocks and heads work in, and the first loss."""
    os.environ['LOCAL_RANK'] = str(rank % (torch.cuda.device_count() or world_size))
    options = dict(dtype=torch.float32, steps=1)
    exact = train(f'{folder}/float32', world_size, SHARDED, **options)
    wrapper = SHARDED | dict(param_dtype='bfloat16')
    runner = make_runner(f'{folder}/bfloat16', world_size, wrapper, **options)
    seen, trace = {}, Trace()
    parts = dict(
        block=runner.model.module.backbone.layers[0].ffn,
        patches=runner.model.module.backbone.patch_embed.projection,
        neck=runner.model.module.neck,
        ssl=runner.model.module.ssl.neck,
    )
    for name, part in parts.items():
        part.register_forward_hook(
            lambda module, _, out, name=name: seen.update(
                {name: str((out[0] if isinstance(out, tuple) else out).dtype)}
            )
        )
    runner.register_hook(trace)
    runner.train()
    master = {str(param.dtype) for param in runner.model.parameters()}
    return dict(seen=seen, master=master, loss=trace.steps[0][0], exact=exact[0][0])


@pytest.mark.dist
def test_towers_in_bfloat16_and_the_rest_in_float32(folder):
    for result in run(half_precision, 2, str(folder)):
        towers = dict.fromkeys(('block', 'patches', 'neck'), 'torch.bfloat16')
        assert result['seen'] == dict(towers, ssl='torch.float32')
        assert result['master'] == {'torch.float32'}
        assert result['loss'] == pytest.approx(result['exact'], rel=0.05)
        assert result['loss'] != result['exact']


def test_refusals():
    """Mistakes that would otherwise fail far from their cause."""
    model = build()
    model.momentum = ExponentialMovingAverage(model.neck)
    with pytest.raises(ValueError, match=r'SLIP\.momentum: an average of weights'):
        FullyShard(model)
    with pytest.raises(RuntimeError, match='SpeedHook'):
        FullyShard(build()).train_step({}, None)
