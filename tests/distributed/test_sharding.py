"""Whole trainings over processes, copied (DDP) or sharded (FSDP2), against one process."""

import copy
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor
from torch.distributed.tensor import DTensor

import mmslip.engine  # noqa: F401  (registers the hooks)
from mmslip.engine import FullyShard
from tests.distributed.pool import run
from tests.distributed.test_model import build, inputs

DDP = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
SHARDED = dict(type='mmslip.FullyShard')
BATCH, STEPS = 8, 3

CASES = {
    'slip': dict(),
    'clip': dict(model=dict(ssl=None)),
    'simclr': dict(model=dict.fromkeys(('neck', 'text_backbone', 'text_neck', 'head'))),
    'frozen': dict(model=dict(frozen=['backbone'], ssl=None)),
    'clipped': dict(clip_grad=dict(max_norm=0.1)),
    'averaged': dict(hooks=[dict(type='EMAHook', momentum=0.3)]),
    'layers': dict(paramwise_cfg=dict(layer_decay_rate=0.5)),
    # With the reference of 'slip': nothing of this may change anything.
    'chunks': dict(model=dict(chunk_size=1)),
    'recomputed': dict(hooks=[dict(type='mmslip.GradientCheckpointHook')]),
    'both': dict(
        model=dict(chunk_size=1),
        hooks=[dict(type='mmslip.GradientCheckpointHook')],
        shard=dict(reshard_after_forward=False),
    ),
}
SAME_AS_SLIP = ('chunks', 'recomputed', 'both')


class Samples(torch.utils.data.Dataset):
    """The batch of another test again and again, one sample at a time, in float64."""

    def __len__(self) -> int:
        return BATCH * STEPS  # mmengine's loop sleeps at the end of its data

    def __getitem__(self, index: int) -> dict:
        batch, index = inputs(0, 1), index % BATCH
        views = [view[index].double() for view in batch['views']]
        image = batch['image'][index].double()
        return dict(inputs=dict(image=image, views=views, text=batch['text'][index]))


class Trace(Hook):
    """Loss and scale of each step."""

    def __init__(self) -> None:
        self.steps = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        values = [outputs['loss'], outputs.get('logit_scale', torch.zeros(()))]
        self.steps.append([value.item() for value in values])


def make_runner(
    folder: str,
    world_size: int,
    wrapper: dict,
    *,
    model: dict | None = None,
    hooks: tuple | list = (),
    shard: dict | None = None,
    steps: int = STEPS,
    resume: bool = False,
    **optim: Any,
) -> Runner:
    """A training of SLIP in float64 with a checkpoint of each step."""
    slip = build(**(model or {})).double()
    slip._is_init = True  # keeps its weights
    if slip.with_text:
        slip.head.logit_scale.data.fill_(4.7)  # above ln 100: the bound acts
    if wrapper == SHARDED:
        wrapper = wrapper | (shard or {})
    return Runner(
        model=slip,
        work_dir=folder,
        train_dataloader=dict(
            batch_size=BATCH // world_size,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
            dataset=Samples(),
        ),
        train_cfg=dict(by_epoch=False, max_iters=steps),
        optim_wrapper=dict(
            constructor='mmslip.NoDecay1dOptimWrapperConstructor',
            # With the usual eps, rounding would move parameters without a gradient (key biases).
            optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.1, eps=1e-4),
            **optim,
        ),
        param_scheduler=dict(type='LinearLR', start_factor=0.5, end=4, by_epoch=False),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1)),
        custom_hooks=[
            dict(type='mmslip.PlainCheckpointHook'),
            dict(type='mmslip.ShardingHook'),
            *copy.deepcopy(hooks),
        ],
        cfg=dict(model_wrapper_cfg=dict(wrapper)),
        launcher='pytorch' if world_size > 1 else 'none',
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
    assert all(sharded) if isinstance(runner.model, FullyShard) else not any(sharded)
    return np.array(trace.steps)


def train_all(rank: int, world_size: int, folder: str, kinds: dict, cases: list[str]) -> dict:
    """The traces of many trainings, whose checkpoints stay in the folder."""
    os.environ['LOCAL_RANK'] = str(rank)
    torch.set_num_threads(1)
    return {
        f'{kind}-{case}': train(f'{folder}/{kind}-{case}', world_size, wrapper, **CASES[case])
        for kind, wrapper in kinds.items()
        for case in cases
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
    keep = ('state_dict', 'optimizer', 'ema_state_dict', 'param_schedulers')
    return {name: checkpoint[name] for name in keep if name in checkpoint}


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('sharding')


@pytest.fixture(scope='module')
def whole(folder) -> dict:
    """One process with the whole batch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('LOCAL_RANK', '0')
        cases = [case for case in CASES if case not in SAME_AS_SLIP]
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
    kind = {wrapper['type'].replace('.', ''): wrapper}
    check(folder, whole, run(train_all, 2, str(folder), kind, list(CASES)))


@pytest.mark.dist
def test_four_processes_equal_one(folder, whole):
    kinds = {'ddp4': DDP, 'sharded4': SHARDED}
    check(folder, whole, run(train_all, 4, str(folder), kinds, ['slip']))


def test_the_bound_of_the_scale_acts(whole):
    """So that a bound that shards miss would show."""
    scale = whole['one-slip'][:, 1]
    assert scale[0] == pytest.approx(100)
    assert scale[-1] < 99.9
