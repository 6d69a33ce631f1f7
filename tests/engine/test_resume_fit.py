"""A checkpoint of another model, or of no run at all, is refused before anything is loaded."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from torch import nn

from tests.crashing import Regression, finish, make_runner, trace

ONE = dict(by_epoch=True, max_epochs=1)
TWO = dict(by_epoch=True, max_epochs=2)


class Touched(Hook):
    """Fails if training begins."""

    def before_train(self, runner) -> None:
        raise AssertionError('training begins')


class Wide(Regression):
    """The hidden layer has another width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Dropout())
        self.last = nn.Linear(width, 1)


class Deep(Regression):
    """Has one more layer."""

    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Linear(1, 1)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> Path:
    """Of a run of one epoch."""
    folder = tmp_path_factory.mktemp('saved')
    finish(folder, loop=ONE)
    return folder / 'epoch_1.pth'


@pytest.fixture
def saved(checkpoint: Path) -> dict:
    """Its content, to be spoilt."""
    return torch.load(checkpoint, weights_only=True)


def refuse(folder: Path, match: str, **options: object) -> str:
    """Resume, which has to fail with weights and optimiser as they were; returns the message."""
    runner = make_runner(folder, loop=TWO, resume=True, hooks=(Touched(),), **options)
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    with pytest.raises(ValueError, match=match) as error:
        runner.train()
    assert runner.iter == 0
    assert not runner.optim_wrapper.optimizer.state
    assert all(
        torch.equal(value, before[name]) for name, value in runner.model.state_dict().items()
    )
    return str(error.value)


@pytest.mark.parametrize('width', [4, 16])
def test_another_width(tmp_path: Path, saved: dict, width: int) -> None:
    torch.save(saved, tmp_path / 'epoch_1.pth')
    text = refuse(
        tmp_path, 'is the state of another model; nothing has been loaded', model=Wide(width)
    )
    rows = [line.split() for line in text.splitlines() if line.startswith('  ')]
    assert rows[0] == 'in the checkpoint in this run'.split()
    assert rows[1] == ['layers.0.weight', '(8,', '2)', f'({width},', '2)']
    assert 'and 14 more' in text  # of 7 weights, 7 averages, 10 moments
    assert f'load_from={tmp_path / "epoch_1.pth"} without --resume' in text


def test_layers_too_many_and_too_few(tmp_path: Path, saved: dict) -> None:
    torch.save(saved, tmp_path / 'epoch_1.pth')
    text = refuse(tmp_path, 'another model', model=Deep())
    assert [line.split() for line in text.splitlines() if 'more.weight' in line] == [
        ['more.weight', 'none', '(1,', '1)'],
        ['average', 'of', 'more.weight', 'none', '(1,', '1)'],
    ]
    del saved['state_dict']['last.bias']
    torch.save(saved, tmp_path / 'epoch_1.pth')
    assert 'last.bias' in refuse(tmp_path, 'another model; .* 1 tensors')
    saved['state_dict'].update({'last.bias': torch.zeros(1), 'neck.weight': torch.zeros(3, 2)})
    torch.save(saved, tmp_path / 'epoch_1.pth')
    assert 'neck.weight  (3, 2)             none' in refuse(tmp_path, 'another model. .* 1 tensors')


@pytest.mark.parametrize(
    ('spoil', 'lacks'),
    [
        (lambda state: state.update(state_dict={}), 'no weights'),
        (lambda state: state.pop('state_dict'), 'no weights'),
        (lambda state: state.pop('optimizer'), 'no optimiser state'),
        (lambda state: state.update(optimizer={}), 'no optimiser state'),
        (lambda state: state.pop('message_hub'), "no mmengine's message_hub"),
        (lambda state: state['meta'].pop('epoch'), 'no epoch and step'),
        (lambda state: (state.pop('meta'), state.pop('optimizer')), 'state, no epoch and step'),
    ],
)
def test_no_state_of_a_run(tmp_path: Path, spoil: Callable, lacks: str, saved: dict) -> None:
    spoil(saved)
    path = tmp_path / 'given' / 'a.pth'
    path.parent.mkdir()
    torch.save(saved, path)
    refuse(
        tmp_path / 'run', f'cannot go on from {path}, which holds .*{lacks}', load_from=str(path)
    )


def test_moments_of_another_shape(tmp_path: Path, saved: dict) -> None:
    saved['optimizer']['state'][0]['exp_avg'] = torch.zeros(3, 3)
    torch.save(saved, tmp_path / 'epoch_1.pth')
    text = refuse(tmp_path, 'another model')
    name = saved['meta']['settings']['params'][0][0]
    assert text.splitlines()[2].split()[:3] == ['exp_avg', 'of', name]


def test_another_optimizer(tmp_path: Path, saved: dict) -> None:
    torch.save(saved, tmp_path / 'epoch_1.pth')
    sgd = dict(optimizer=dict(type='SGD', lr=0.1))
    assert 'optimizer  AdamW              SGD' in refuse(tmp_path, 'another', optim_wrapper=sgd)


def test_averages_of_another_shape(tmp_path: Path, saved: dict) -> None:
    saved['ema_state_dict']['module.last.weight'] = torch.zeros(1, 3)
    torch.save(saved, tmp_path / 'epoch_1.pth')
    assert 'average of last.weight' in refuse(tmp_path, 'another model')


def test_without_notes_groups_are_compared(tmp_path: Path, saved: dict, capsys) -> None:
    """As in a file of stock mmengine, whose settings are then used, which is said."""
    del saved['meta']['settings']
    torch.save(saved, tmp_path / 'epoch_1.pth')
    make_runner(tmp_path, loop=TWO, resume=True).train()
    assert 'does not say what settings' in capsys.readouterr().out
    assert [step for step, _ in trace(tmp_path)] == list(range(5, 10))
    (tmp_path / 'epoch_2.pth').unlink()
    (tmp_path / 'iter_10.pth').unlink()
    saved['optimizer']['param_groups'][0]['params'].pop()
    torch.save(saved, tmp_path / 'epoch_1.pth')
    refuse(tmp_path, r'parameters by group +\[6\] +\[7\]')
