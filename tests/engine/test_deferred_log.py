"""Values that wait for the logger: nothing is read between log lines, and nothing is lost."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import LoggerHook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmslip.engine import DeferredRuntimeInfoHook
from mmslip.engine.hooks import deferred_log
from tests.distributed.pool import run

STEPS = 7  # of an epoch
LOOPS = dict(
    epochs=dict(by_epoch=True, max_epochs=2),
    iterations=dict(by_epoch=False, max_iters=STEPS - 2),
)


def test_nothing_is_read_between_log_lines():
    """Tensors of the meta device have no value to read."""
    hook = DeferredRuntimeInfoHook()
    runner = SimpleNamespace(
        hooks=[hook, LoggerHook(interval=3)],
        message_hub=MessageHub.get_instance('deferred'),
        train_dataloader=DataLoader(range(STEPS)),
        **dict(epoch=0, iter=0, max_epochs=1, max_iters=STEPS),
    )
    hook.before_train(runner)
    hook.after_train_iter(runner, 0, None, dict(loss=torch.tensor(3.0)))  # shown at once
    assert runner.message_hub.get_scalar('train/loss').current() == 3.0
    outputs = dict(loss=torch.empty((), device='meta'), acc=torch.empty((), device='meta'))
    hook.after_train_iter(runner, 1, None, outputs)
    with pytest.raises((RuntimeError, NotImplementedError), match='meta'):
        hook.after_train_iter(runner, 2, None, outputs)


@pytest.mark.parametrize(('seconds', 'readings'), [(0.5, [0, 4, 8]), (3.0, [0, 1, 2])])
def test_values_are_read_about_every_two_seconds(monkeypatch, seconds, readings):
    now = [0.0]
    monkeypatch.setattr(deferred_log, 'time', SimpleNamespace(monotonic=lambda: now[0]))
    hook = DeferredRuntimeInfoHook()
    hub = MessageHub.get_instance(f'deferred-{seconds}')
    runner = SimpleNamespace(
        hooks=[hook, LoggerHook(interval=100)],
        message_hub=hub,
        train_dataloader=DataLoader(range(1000)),
        **dict(epoch=0, iter=0, max_epochs=1, max_iters=1000),
    )
    hook.before_train(runner)
    seen = []
    for step in range(9):
        now[0] += seconds
        hook.after_train_iter(runner, step, None, dict(loss=torch.tensor(float(step))))
        if hub.get_scalar('train/loss').current() == step:
            seen.append(step)
    assert seen[:3] == readings


def test_the_history_does_not_grow_with_the_run(monkeypatch):
    """mmengine copies all of it in every step; what others have logged is cut as well."""
    monkeypatch.setattr(deferred_log, '_KEPT', 5)
    hook, hub = DeferredRuntimeInfoHook(), MessageHub.get_instance('deferred-kept')
    runner = SimpleNamespace(
        hooks=[hook, LoggerHook(interval=2)],
        message_hub=hub,
        train_dataloader=DataLoader(range(100)),
        **dict(epoch=0, iter=0, max_epochs=1, max_iters=100),
    )
    hook.before_train(runner)
    for step in range(20):
        hub.update_scalar('train/time', step)
        hook.after_train_iter(runner, step, None, dict(loss=torch.tensor(float(step))))
    for key in ('train/loss', 'train/time'):
        assert hub.get_scalar(key).data[0].tolist() == [15, 16, 17, 18, 19]


class Model(BaseModel):
    """Its loss is the mean of the batch, plus a parameter that trains."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(1))

    def forward(self, inputs: Tensor, mode: str) -> dict[str, Tensor]:
        return dict(loss=inputs.mean() + self.offset, double=2 * inputs.mean())


def train(
    work_dir: Path, loop: str, interval: int, **options: object
) -> tuple[list[dict], dict[str, list]]:
    """Lines of the log, and the history of each value."""
    data = [dict(inputs=torch.tensor(float(number))) for number in range(STEPS)]
    runner = Runner(
        Model(),
        str(work_dir),
        train_dataloader=dict(
            dataset=data,
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=interval), **options),
        log_processor=dict(window_size=2),
        experiment_name=f'{work_dir.parent.name}_{work_dir.name}',
        train_cfg=LOOPS[loop],
    )
    runner.train()
    lines = (Path(runner.log_dir) / 'vis_data' / 'scalars.json').read_text().splitlines()
    logged = [
        {key: value for key, value in json.loads(line).items() if 'time' not in key}
        for line in lines
    ]
    scalars = runner.message_hub.log_scalars
    values = {key: buffer.data[0].tolist() for key, buffer in scalars.items() if 'time' not in key}
    return logged, values


@pytest.mark.parametrize(
    ('loop', 'interval'), [('epochs', 1), ('epochs', 3), ('epochs', 50), ('iterations', 3)]
)
def test_the_log_is_that_of_mmengine(loop, interval, tmp_path):
    ours = dict(type='mmslip.DeferredRuntimeInfoHook')
    log, values = train(tmp_path / 'ours', loop, interval, runtime_info=ours)
    expected = train(tmp_path / 'mmengine', loop, interval)
    assert (log, values) == expected
    steps = dict(epochs=2 * STEPS, iterations=STEPS - 2)[loop]
    assert len(set(values['train/loss'])) == steps
    assert log


def means(rank: int, world_size: int) -> list[float]:
    """Values that each process logs of losses 1, 2, ... of the first, 11, 12, ... of the second."""
    hook = DeferredRuntimeInfoHook()
    hub = MessageHub.get_instance(f'means_{rank}')
    runner = SimpleNamespace(
        hooks=[hook, LoggerHook(interval=3)],
        message_hub=hub,
        train_dataloader=DataLoader(range(STEPS)),
        **dict(epoch=0, iter=0, max_epochs=1, max_iters=STEPS),
    )
    hook.before_train(runner)
    for step in range(STEPS):
        hook.after_train_iter(runner, step, None, dict(loss=torch.tensor(step + 1 + 10.0 * rank)))
    return hub.log_scalars['train/loss'].data[0].tolist()


@pytest.mark.dist
def test_the_mean_of_all_processes_is_logged():
    expected = [step + 1 + 5.0 for step in range(STEPS)]
    assert run(means, 2) == [expected, expected]
