"""A small run with the hooks of ``configs/_base_/default_runtime.py``, made to be ended early."""

import multiprocessing
import os
import signal
import uuid
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn

import mmslip.engine  # noqa: F401  (registers the hooks)
from tests.test_resume_mid_epoch import Numbers

ROOT = Path(__file__).parents[1]
STEPS = 15  # three epochs of five batches of four
EPOCH_LOOP = dict(by_epoch=True, max_epochs=3)
ITER_LOOP = dict(by_epoch=False, max_iters=STEPS)


class Regression(BaseModel):
    """Dropout makes the random state count, batch norm the buffers, ``ballast`` the file's size.

    Args:
        ballast: Further parameters, in millions.
    """

    def __init__(self, ballast: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout())
        self.last = nn.Linear(8, 1)
        self.ballast = nn.Parameter(torch.zeros(int(ballast * 1e6)))

    def forward(self, inputs: Tensor, number: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        error = (self.last(self.layers(inputs)) - 1).square().mean()
        return dict(loss=error + self.ballast.sum())


class Trace(Hook):
    """Appends step and exact loss to ``trace`` in the work folder, then calls ``act``."""

    priority = 85  # when all is done but the checkpoint of the step

    def __init__(self, act: Callable[[Runner], None] | None) -> None:
        self.act = act

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        with open(Path(runner.work_dir, 'trace'), 'a') as file:
            file.write(f'{runner.iter} {outputs["loss"].item().hex()}\n')
        if self.act is not None:
            self.act(runner)


def make_runner(
    folder: Path,
    loop: dict = EPOCH_LOOP,
    resume: bool = False,
    act: Callable[[Runner], None] | None = None,
    ballast: float = 0.0,
    interval: int = 2,
    model: nn.Module | None = None,
    hooks: tuple = (),
    data: dict | None = None,
    averages: bool = True,
    traced: bool = True,
    **options: object,
) -> Runner:
    """A run with checkpoints every ``interval`` steps and every epoch, and averaged weights.

    Where it is ``traced``, the loss of each step is read and written, and ``act`` called.
    """
    folder.mkdir(exist_ok=True, parents=True)
    base = Config.fromfile(ROOT / 'configs' / '_base_' / 'default_runtime.py')
    unneeded = ('mmslip.EvaluationRecordHook', 'mmslip.RunSummaryHook', 'mmslip.ProgressHook')
    custom_hooks = [hook for hook in base.custom_hooks if hook.type not in unneeded]
    if averages:
        custom_hooks.append(dict(type='EMAHook', momentum=0.1))
    base.default_hooks.step_checkpoint.interval = interval
    loader = dict(
        batch_size=4,
        num_workers=0,
        drop_last=True,
        sampler=dict(type='mmslip.VisitSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
        dataset=Numbers(folder / 'accesses'),
    )
    settings = dict(
        model=model or Regression(ballast),
        work_dir=str(folder),
        train_dataloader={**loader, **(data or {})},
        train_cfg=dict(loop),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.05, weight_decay=0.1, fused=True)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, end=4, by_epoch=False),
            dict(type='CosineAnnealingLR', by_epoch=True, T_max=3),
        ],
        default_hooks=base.default_hooks,
        custom_hooks=[*custom_hooks, *([Trace(act)] if traced else []), *hooks],
        default_scope='mmpretrain',
        randomness=dict(seed=3),
        resume=resume,
        log_level='WARNING',
        experiment_name=f'run-{uuid.uuid4()}',
    )
    return Runner(**{**settings, **options})


def start(folder: Path, *, prepare: Callable[[], None] | None = None, **options: object):
    """Run it in a process of its own, after ``prepare``; the process is returned."""

    def main() -> None:
        os.setpgid(0, 0)  # not the tests' own group, which gets no signals
        if prepare is not None:
            prepare()
        make_runner(folder, **options).train()

    process = multiprocessing.get_context('fork').Process(target=main)
    process.start()
    return process


def finish(folder: Path, **options: object) -> None:
    """Run it in a process of its own, to the end."""
    process = start(folder, **options)
    process.join()
    assert process.exitcode == 0


def trace(folder: Path) -> list[tuple[int, str]]:
    """Step and loss of every line in ``trace``."""
    lines = [line.split() for line in (folder / 'trace').read_text().splitlines()]
    return [(int(step), loss) for step, loss in lines]


def assert_same_run(folder: Path, straight: Path) -> None:
    """Losses of all steps, however often done, and the final state are those of another run."""
    expected = dict(trace(straight))
    found = trace(folder)
    assert sorted(expected) == list(range(len(expected)))
    assert {step for step, _ in found} == set(expected)
    assert [loss for _, loss in found] == [expected[step] for step, _ in found]
    name = max(path.name for path in straight.glob('epoch_*.pth'))
    first, second = (torch.load(part / name, weights_only=True) for part in (folder, straight))
    for part in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        assert_equal(first[part], second[part], part)


def assert_equal(first: object, second: object, where: str = '') -> None:
    """Nested values are equal, tensors bit for bit."""
    if isinstance(first, Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_equal(first[key], second[key], f'{where}.{key}')
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_equal(one, other, f'{where}[{index}]')
    else:
        assert first == second, where


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
