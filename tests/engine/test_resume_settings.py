"""Changed settings of a config take effect on ``--resume``; the rest goes on bit for bit."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import nn

from tests.crashing import EPOCH_LOOP, Regression, assert_same_run, make_runner

ADAMW = dict(type='AdamW', lr=0.05, weight_decay=0.1, betas=(0.9, 0.99), fused=True)
CONSTRUCTOR = dict(constructor='mmslip.NoDecay1dOptimWrapperConstructor', optimizer=ADAMW)
SCHEDULES = [
    dict(type='LinearLR', start_factor=0.1, end=4, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=1e-3, begin=1, convert_to_iter_based=True),
]


class Rates(Hook):
    """Keeps learning rate and weight decay of every step, by parameter group."""

    def __init__(self) -> None:
        self.lr: dict[int, list[float]] = {}
        self.groups: list[dict] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        groups = runner.optim_wrapper.optimizer.param_groups
        self.lr[runner.iter] = [group['lr'] for group in groups]
        self.groups = [
            {key: value for key, value in group.items() if key != 'params'} for group in groups
        ]


def run(folder: Path, epochs: int, resume: bool = False, **options: object) -> Rates:
    """Train; options replace those of the run above."""
    rates = Rates()
    settings = dict(
        loop=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=CONSTRUCTOR,
        param_scheduler=SCHEDULES,
        hooks=(rates,),
    )
    make_runner(folder, resume=resume, **{**settings, **options}).train()
    return rates


def optimizer(**changes: object) -> dict:
    return dict(optim_wrapper=dict(CONSTRUCTOR, optimizer=dict(ADAMW, **changes)))


def changes(output: str) -> list[str]:
    """Changes that the log reports."""
    return [line.partition('resume: ')[2] for line in output.splitlines() if 'on resume:' in line]


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run of three epochs of five steps that has ended after two."""

    class Stop(Hook):
        def before_train_epoch(self, runner) -> None:
            if runner.epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 3, hooks=(Stop(),))
    return tmp_path


def test_unchanged_settings_change_nothing(begun: Path, tmp_path_factory, capsys) -> None:
    capsys.readouterr()
    run(begun, 3, resume=True)
    straight = tmp_path_factory.mktemp('straight')
    run(straight, 3)
    assert changes(capsys.readouterr().out) == []
    assert_same_run(begun, straight)


def test_a_longer_run_has_the_schedule_of_its_length(begun: Path, tmp_path_factory, capsys) -> None:
    rates = run(begun, 6, resume=True)
    told = changes(capsys.readouterr().out)
    longer = run(tmp_path_factory.mktemp('longer'), 6)
    assert rates.lr == {step: longer.lr[step] for step in range(10, 30)}  # to the last bit
    assert told[:3] == [
        'train_cfg.max_epochs: 3 -> 6',
        'param_scheduler[1] (CosineAnnealingLR) T_max: 10 -> 25',
        'param_scheduler[1] (CosineAnnealingLR) end: 15 -> 30',
    ]
    assert told[3:] == ['learning rate at step 10: 0.0255 -> 0.04532']


def test_a_run_that_has_ended_is_lengthened(tmp_path: Path, tmp_path_factory) -> None:
    run(tmp_path, 3)
    rates = run(tmp_path, 5, resume=True)
    longer = run(tmp_path_factory.mktemp('longer'), 5)
    assert rates.lr == {step: longer.lr[step] for step in range(15, 25)}


def test_schedules_by_epoch_and_by_step_together(tmp_path: Path, tmp_path_factory) -> None:
    schedules = [SCHEDULES[0], dict(type='MultiStepLR', milestones=[1, 3], gamma=0.5)]
    other = [dict(SCHEDULES[0], end=8), dict(schedules[1], gamma=0.1)]
    run(tmp_path, 2, param_scheduler=schedules)
    rates = run(tmp_path, 4, resume=True, param_scheduler=other)
    whole = run(tmp_path_factory.mktemp('whole'), 4, param_scheduler=other)
    assert rates.lr == {step: whole.lr[step] for step in range(10, 20)}


@pytest.mark.parametrize(
    'schedules',
    [
        [],
        [dict(type='ExponentialLR', gamma=0.9, by_epoch=False)],
        [dict(type='PolyLR', eta_min=1e-3, power=0.9, by_epoch=False), SCHEDULES[0]],
        [dict(type='OneCycleLR', eta_max=0.2, total_steps=15, by_epoch=False)],
        [
            dict(
                type='CosineRestartLR',
                periods=[4, 11],
                restart_weights=[1, 1],
                eta_min=0,
                by_epoch=False,
            )
        ],
        [*SCHEDULES, dict(type='ConstantLR', factor=0.5, end=12, by_epoch=False)],
    ],
    ids=lambda schedules: '-'.join(schedule['type'] for schedule in schedules) or 'none',
)
def test_other_schedules(begun: Path, tmp_path_factory, capsys, schedules: list[dict]) -> None:
    rates = run(begun, 3, resume=True, param_scheduler=schedules)
    told = changes(capsys.readouterr().out)
    whole = run(tmp_path_factory.mktemp('whole'), 3, param_scheduler=schedules)
    assert rates.lr == {step: whole.lr[step] for step in range(10, 15)}
    assert any(line.startswith('param_scheduler[') and ': ' in line for line in told)
    # What was saved then goes on bit for bit.
    again = run(begun, 3, resume=True, param_scheduler=schedules)
    assert again.lr == {}


def test_learning_rate_and_weight_decay(begun: Path, tmp_path_factory, capsys) -> None:
    new = optimizer(lr=0.01, weight_decay=0.5, betas=[0.8, 0.99], eps=1e-6)
    rates = run(begun, 3, resume=True, **new)
    told = changes(capsys.readouterr().out)
    whole = run(tmp_path_factory.mktemp('whole'), 3, **new)
    assert rates.lr == {step: whole.lr[step] for step in range(10, 15)}
    assert rates.groups == whole.groups
    assert [group['weight_decay'] for group in rates.groups] == [0.5, 0.0]
    assert set(told[:-1]) == {
        'lr: 0.05 -> 0.01',
        'weight_decay: 0.1 -> 0.5 (groups 0)',
        'betas: [0.9, 0.99] -> [0.8, 0.99]',
        'eps: 1e-08 -> 1e-06',
    }
    assert told[-1] == 'learning rate at step 10: 0.0255 -> 0.0055'


def test_a_learning_rate_without_schedules(tmp_path: Path, capsys) -> None:
    run(tmp_path, 1, param_scheduler=None)
    rates = run(tmp_path, 2, resume=True, param_scheduler=None, **optimizer(lr=0.01))
    assert rates.lr == {step: [0.01, 0.01] for step in range(5, 10)}
    assert 'lr: 0.05 -> 0.01' in changes(capsys.readouterr().out)


def test_moments_are_kept(begun: Path) -> None:
    states: dict = {}

    class Look(Hook):
        def before_train(self, runner) -> None:
            state = runner.optim_wrapper.optimizer.state_dict()['state']
            states.update(copy.deepcopy(state))

    run(begun, 3, resume=True, hooks=(Look(),), **optimizer(lr=0.01))
    assert {int(state['step']) for state in states.values()} == {10}
    assert all(state['exp_avg_sq'].any() for state in list(states.values())[:2])


def test_frozen_and_thawed_parameters(tmp_path: Path, capsys) -> None:
    """Moments follow the names: groups are not what they were."""

    def model(frozen: bool) -> Regression:
        model = Regression()
        model.layers.requires_grad_(not frozen)
        return model

    run(tmp_path, 1, param_scheduler=SCHEDULES[:1], model=model(True))
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['optimizer']['state']
    rates = run(tmp_path, 2, resume=True, param_scheduler=SCHEDULES[:1], model=model(False))
    told = changes(capsys.readouterr().out)
    assert 'parameters of the optimiser: 3 in 2 groups -> 7 in 2 groups' in told[1]
    now = torch.load(tmp_path / 'epoch_2.pth', weights_only=True)['optimizer']['state']
    assert [int(now[number]['step']) for number in sorted(now)] != []
    steps = sorted(int(state['step']) for state in now.values())
    assert steps == [5] * (len(now) - len(saved)) + [10] * len(saved)
    assert len(rates.lr) == 5


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 4))

    def get_layer_depth(self, name: str, prefix: str = '') -> tuple[int, int]:
        return int(name.removeprefix(f'{prefix}blocks.')[0]), 3


class Towered(Regression):
    """Has a tower whose layers can have learning rates of their own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = Tower()

    def forward(self, inputs, number, mode='loss'):
        loss = super().forward(inputs, number, mode)['loss']
        return dict(loss=loss + self.backbone.blocks(inputs).square().mean())


@pytest.mark.parametrize('before', [1.0, 0.9])
def test_layer_decay(tmp_path: Path, tmp_path_factory, before: float) -> None:
    def decay(rate: float) -> dict:
        wrapper = dict(CONSTRUCTOR, paramwise_cfg=dict(layer_decay_rate=rate))
        return dict(optim_wrapper=wrapper, param_scheduler=SCHEDULES[:1])

    run(tmp_path, 1, model=Towered(), **decay(before))
    rates = run(tmp_path, 2, resume=True, model=Towered(), **decay(0.5))
    whole = run(tmp_path_factory.mktemp('whole'), 2, model=Towered(), **decay(0.5))
    assert rates.lr == {step: whole.lr[step] for step in range(5, 10)}
    assert len({group['lr'] for group in rates.groups}) == 3
    state = torch.load(tmp_path / 'epoch_2.pth', weights_only=True)['optimizer']['state']
    assert all(int(values['step']) == 10 for values in state.values())


def test_plateaus(tmp_path: Path) -> None:
    """A schedule that follows scores keeps its state; only its arguments can change."""
    plateau = [dict(type='ReduceOnPlateauLR', monitor='score', patience=3, factor=0.5)]
    run(tmp_path, 1, param_scheduler=plateau)
    run(tmp_path, 2, resume=True, param_scheduler=[dict(plateau[0], patience=7)])
    (state,) = torch.load(tmp_path / 'epoch_2.pth', weights_only=True)['param_schedulers']
    assert (state['patience'], state['end']) == (7, 2)
    with pytest.raises(ValueError, match=r'follows the scores .* cannot be worked out anew'):
        run(tmp_path, 3, resume=True, param_scheduler=plateau, **optimizer(lr=0.01))


def test_accumulation_and_clipping_are_told(begun: Path, capsys) -> None:
    run(begun, 3, resume=True, optim_wrapper=dict(CONSTRUCTOR, clip_grad=dict(max_norm=1.0)),
        cfg=dict(optim_wrapper=dict(clip_grad=dict(max_norm=1.0))))  # fmt: skip
    told = changes(capsys.readouterr().out)
    assert told == ["optim_wrapper.clip_grad: None -> {'max_norm': 1.0}"]


MODEL = dict(
    backbone=dict(arch=dict(num_heads=4), drop_rate=0.0, init_cfg=dict(checkpoint='a.pth')),
    text_backbone=dict(quick_gelu=True, width=[8, 8]),
    head=dict(init_temperature=0.07),
    ssl_weight=1.0,
)


@pytest.mark.parametrize(
    ('key', 'value', 'told'),
    [
        ('backbone.arch.num_heads', 2, '4 -> 2 (the weights were trained with 4)'),
        ('text_backbone.quick_gelu', False, 'True -> False (the weights were trained with True)'),
        ('backbone.patch_size', 8, 'default -> 8 (the weights were trained with default)'),
        ('backbone.drop_rate', 0.1, '0.0 -> 0.1'),
        ('ssl_weight', 5.0, '1.0 -> 5.0'),
        (
            'head.init_temperature',
            0.01,
            '0.07 -> 0.01 (without effect: the weights of the checkpoint go on)',
        ),
        (
            'backbone.init_cfg.checkpoint',
            'b.pth',
            'a.pth -> b.pth (without effect: the weights of the checkpoint go on)',
        ),
    ],
)
def test_changes_of_the_model_are_told(
    tmp_path: Path, capsys, key: str, value: object, told: str
) -> None:
    now = Config(dict(model=copy.deepcopy(MODEL)))
    now.merge_from_dict({f'model.{key}': value})
    now.model.text_backbone.width = (8, 8)  # the same
    run(tmp_path, 1, param_scheduler=None, cfg=dict(model=MODEL))
    run(tmp_path, 2, resume=True, param_scheduler=None, cfg=now)
    assert changes(capsys.readouterr().out)[1:] == [f'model.{key}: {told}']


def test_another_batch_size_is_told(begun: Path, capsys) -> None:
    run(begun, 3, resume=True, data=dict(batch_size=2))
    assert 'train_dataloader.batch_size: 4 -> 2' in changes(capsys.readouterr().out)


def test_without_averages_the_weights_themselves_go_on(tmp_path: Path, capsys) -> None:
    """EMAHook saves the average in their place."""
    run(tmp_path, 2)
    saved = torch.load(tmp_path / 'epoch_2.pth', weights_only=True)
    seen: dict = {}

    class Look(Hook):
        def before_train(self, runner) -> None:
            seen.update({name: value.clone() for name, value in runner.model.state_dict().items()})

    runner = make_runner(tmp_path, loop=EPOCH_LOOP, resume=True, hooks=(Look(),),
        optim_wrapper=CONSTRUCTOR, param_scheduler=SCHEDULES, averages=False)  # fmt: skip
    runner.train()
    assert 'the averaged weights of the checkpoint are left out' in capsys.readouterr().out
    assert all(torch.equal(seen[name], saved['ema_state_dict'][f'module.{name}']) for name in seen)
