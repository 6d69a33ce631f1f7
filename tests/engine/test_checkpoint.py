"""Tests of checkpoints: no file can run code, and ours need no exceptions to load."""

import argparse
import collections
import os
import pickle
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmslip.engine import PlainCheckpointHook
from mmslip.engine.checkpointing.find import read_checkpoint
from mmslip.weights.safe import load_checkpoint_file


class Call:
    """Pickles as a call of a function; the call happens when the file is read."""

    def __init__(self, function: object, *args: object) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple:
        return self.function, self.args

    def __call__(self) -> None:
        """Only so that pickle takes a call as the function of another call."""


def through_getattr(folder: str) -> Call:
    """Reach ``os.mkdir`` from a harmless class by attributes alone."""
    scope = Call(getattr, Call(getattr, argparse.Namespace, '__init__'), '__globals__')
    module = Call(Call(getattr, scope, 'get'), '_os')
    return Call(Call(getattr, module, 'mkdir'), folder)


PAYLOADS = {
    'os.mkdir': lambda folder: Call(os.mkdir, folder),
    'os.system': lambda folder: Call(os.system, f'mkdir "{folder}"'),
    'exec': lambda folder: Call(exec, f'import os; os.mkdir({folder!r})'),
    'import': lambda folder: Call(Call(getattr, Call(__import__, 'os'), 'mkdir'), folder),
    'getattr': through_getattr,
}


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('name', PAYLOADS)
def test_payload_does_not_run(tmp_path: Path, name: str, legacy: bool) -> None:
    mark = tmp_path / 'executed'
    content = dict(state_dict=dict(w=torch.ones(2)), extra=PAYLOADS[name](str(mark)))
    pickle.loads(pickle.dumps(content['extra']))
    assert mark.is_dir()  # it does what it is meant to, where it is trusted
    mark.rmdir()

    path = tmp_path / 'evil.pth'
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    for load in (load_checkpoint_file, lambda file: CheckpointLoader.load_checkpoint(str(file))):
        if name == 'getattr':
            # Every step of the chain is replaced by an inert object.
            loaded = load(path)
            assert type(loaded['extra']).__module__ == 'mmslip.weights.safe'
            assert not vars(loaded['extra'])
            assert loaded['state_dict']['w'].tolist() == [1, 1]
        else:
            with pytest.raises(RuntimeError, match='never runs code from a checkpoint') as caught:
                load(path)
            assert str(caught.value).startswith(str(path))
        assert not mark.exists()


@pytest.mark.parametrize(
    ('name', 'named'),
    [
        ('exec', 'exec'),
        ('import', '__import__'),
        ('os.mkdir', 'mkdir'),
    ],
)
def test_refusal_names_the_object(tmp_path: Path, name: str, named: str) -> None:
    path = tmp_path / 'evil.pth'
    torch.save(dict(extra=PAYLOADS[name](str(tmp_path / 'executed'))), path)
    with pytest.raises(RuntimeError, match=f'plain values. .*{named}') as caught:
        load_checkpoint_file(path)
    assert str(caught.value).startswith(str(path))


def test_torchscript_is_refused_without_advice_to_run_it(tmp_path: Path) -> None:
    path = tmp_path / 'epoch_1.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        for name in ('data.pkl', 'constants.pkl', 'version'):
            archive.writestr(f'epoch_1/{name}', pickle.dumps(PAYLOADS['exec'](str(tmp_path / 'x'))))
    with pytest.raises(RuntimeError, match=r'was refused: it is a TorchScript archive') as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert not {'damaged', 'weights_only'} & {*str(caught.value).split()}
    assert not (tmp_path / 'x').exists()


def test_file_that_is_cut_or_missing(tmp_path: Path) -> None:
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict=dict(w=torch.rand(1000))), path)
    whole = path.read_bytes()
    for length in (len(whole) // 2, 100, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(RuntimeError, match='it is damaged') as caught:
            load_checkpoint_file(path)
        assert str(caught.value).startswith(str(path))
    for content in (b'<!DOCTYPE html>', b'version https://git-lfs.github.com/spec/v1'):
        path.write_bytes(content)
        with pytest.raises(RuntimeError, match='is no PyTorch checkpoint') as caught:
            load_checkpoint_file(path)
        assert str(caught.value).startswith(str(path))
    for load in (load_checkpoint_file, CheckpointLoader.load_checkpoint):
        with pytest.raises(FileNotFoundError, match='check the path and the work_dir') as caught:
            load(str(tmp_path / 'none.pth'))
        assert str(tmp_path / 'none.pth') in str(caught.value)
    with pytest.raises(FileNotFoundError, match='There is no checkpoint'):
        load_checkpoint_file(tmp_path)


@pytest.mark.parametrize(
    'part',
    [
        0.9,
        0.3,
    ],
)
def test_cut_checkpoint_of_usual_size_is_named(tmp_path: Path, part: float) -> None:
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict=dict(w=torch.rand(30_000))), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(RuntimeError, match='it is damaged') as caught:
        load_checkpoint_file(path)
    assert str(caught.value).startswith(str(path))


def test_any_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / 'a.pth'
    torch.save(dict(w=torch.arange(10), n=3), path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    contents = [whole[:length] for length in range(0, len(whole), 5)]
    contents += [b'hello', b'UD\xf2P\n', b'r\\-\x16^', b'j\xca\xa4\xfe\xe8', b'\x80\x02U\xff']
    unnamed = collections.Counter()
    for content in contents:
        path.write_bytes(content)
        try:
            load_checkpoint_file(path)
        except RuntimeError as error:
            unnamed['RuntimeError'] += not str(error).startswith(str(path))
        except Exception as error:
            unnamed[type(error).__name__] += 1
    assert +unnamed == {}


def stock_hub() -> MessageHub:
    """A message hub as a stock run leaves it."""
    hub = MessageHub.get_instance(f'hub-{uuid.uuid4()}')
    for value in (1.0, 2.0, 3.0):
        hub.update_scalar('train/loss', value)
    hub.update_info('iter', 3)
    return hub


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
def test_stock_mmengine_checkpoint_loads(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / 'stock.pth'
    weight = torch.rand(3, 2)
    content = dict(
        meta=dict(epoch=2, iter=3, config='a = 1'),
        state_dict=collections.OrderedDict(w=weight),
        message_hub=stock_hub().state_dict(),
    )
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(pickle.UnpicklingError, match='HistoryBuffer'):
        torch.load(path, weights_only=True)
    for load in (load_checkpoint_file, CheckpointLoader.load_checkpoint):
        loaded = load(str(path), map_location='cpu')
        assert loaded['state_dict']['w'].equal(weight)
        # mmengine's own way to a file leaves out what it would execute.
        config = dict(config='a = 1') if load is load_checkpoint_file else {}
        assert loaded['meta'] == dict(epoch=2, iter=3, **config)
        assert loaded['message_hub']['runtime_info'] == {'iter': 3}
        # The buffer is a husk.
        buffer = loaded['message_hub']['log_scalars']['train/loss']
        assert type(buffer).__module__ == 'mmslip.weights.safe'
        assert not vars(buffer)
    # The permission ends with the call.
    with pytest.raises(pickle.UnpicklingError, match='HistoryBuffer'):
        torch.load(path, weights_only=True)


def test_checkpoint_of_the_official_kind_loads(tmp_path: Path) -> None:
    path = tmp_path / 'official.pt'
    args = argparse.Namespace(lr=3e-3, model='SLIP_VITB16', betas=(0.9, 0.98), resume=None)
    numbers = dict(
        best=np.float64(42.8),
        single=np.float32(1.5),
        half=np.float16(0.25),
        count=np.int64(-7),
        byte=np.uint8(255),
        flag=np.bool_(True),
        text=np.str_('name'),
        array=np.arange(6, dtype=np.float32).reshape(2, 3),
        long=np.arange(4)[::-1],
    )
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(2))], lr=1e-3).state_dict()
    torch.save(
        dict(
            epoch=25,
            state_dict={'module.logit_scale': torch.tensor(4.6)},
            optimizer=optimizer,
            args=args,
            **numbers,
        ),
        path,
    )
    loaded = load_checkpoint_file(path)
    assert vars(loaded['args']) == vars(args)
    assert type(loaded['args']) is argparse.Namespace
    assert loaded['epoch'] == 25
    assert loaded['state_dict']['module.logit_scale'].item() == pytest.approx(4.6)
    assert loaded['optimizer'] == optimizer
    for name, value in numbers.items():
        assert loaded[name].dtype == value.dtype, name
        np.testing.assert_array_equal(loaded[name], value)


class Line(BaseModel):
    """Fits a line to points."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs: Tensor, mode: str = 'tensor') -> dict[str, Tensor]:
        """Squared distance."""
        return dict(loss=(self.layer(inputs) - 2 * inputs).square().mean())


@pytest.fixture
def make_runner(tmp_path: Path) -> Callable[..., Runner]:
    def make(name: str, hooks: tuple[str, ...] = (), epochs: int = 2, **kwargs: object) -> Runner:
        data = [dict(inputs=torch.tensor([float(number)])) for number in range(4)]
        return Runner(
            model=Line(),
            work_dir=str(tmp_path / name),
            train_dataloader=DataLoader(data, batch_size=2),
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
            param_scheduler=dict(type='CosineAnnealingLR', T_max=4, by_epoch=True),
            custom_hooks=[dict(type=f'mmslip.{hook}') for hook in hooks],
            default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
            default_scope='mmpretrain',
            experiment_name=f'run-{uuid.uuid4()}',
            log_level='ERROR',
            **kwargs,
        )

    return make


def test_saved_checkpoint_is_plain(tmp_path: Path, make_runner: Callable[..., Runner]) -> None:
    make_runner('stock').train()
    with pytest.raises(pickle.UnpicklingError, match='HistoryBuffer'):
        torch.load(tmp_path / 'stock' / 'epoch_2.pth', weights_only=True)

    runner = make_runner('ours', ('PlainCheckpointHook',))
    runner.message_hub.update_info('score', np.float64(0.5))
    runner.message_hub.update_info('names', [np.str_('a'), (np.int32(3), Path('b'))])
    runner.train()
    assert argparse.Namespace not in torch.serialization.get_safe_globals()
    loaded = torch.load(tmp_path / 'ours' / 'epoch_2.pth', weights_only=True)
    assert (loaded['meta']['epoch'], loaded['meta']['iter']) == (2, 4)
    hub = loaded['message_hub']
    assert hub['log_scalars'] == {}
    info = hub['runtime_info']
    assert (info['epoch'], info['iter'], info['score']) == (1, 3, 0.5)
    assert type(info['score']) is float
    assert info['names'] == ['a', (3, 'b')]
    assert set(hub['resumed_keys']) <= set(info)
    for name, value in runner.model.state_dict().items():
        assert loaded['state_dict'][name].equal(value)


def test_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, make_runner: Callable[..., Runner]
) -> None:
    whole = make_runner('whole', ('PlainCheckpointHook',), 4)
    whole.train()
    middle = tmp_path / 'whole' / 'epoch_2.pth'
    rest = make_runner('rest', ('PlainCheckpointHook',), 4, load_from=str(middle), resume=True)
    rest.train()
    assert (rest.epoch, rest.iter) == (4, 8)
    half = load_checkpoint_file(middle)['state_dict']
    for name, value in whole.model.state_dict().items():
        assert rest.model.state_dict()[name].equal(value)
        assert not half[name].equal(value)


@pytest.mark.parametrize('hooks', [('PlainCheckpointHook',), ()], ids=['hook', 'no hook'])
def test_config_in_a_checkpoint_is_not_executed(
    tmp_path: Path, make_runner: Callable[..., Runner], hooks: tuple
) -> None:
    make_runner('first', ('PlainCheckpointHook',)).train()
    path = tmp_path / 'first' / 'epoch_2.pth'
    mark = tmp_path / 'executed'
    text = f'made = __import__("os").mkdir({str(mark)!r})\n'
    Config.fromstring(text, file_format='.py')  # what mmengine's `resume` does with it
    assert mark.is_dir()
    mark.rmdir()
    checkpoint = torch.load(path, weights_only=True)
    checkpoint['meta']['config'] = text
    torch.save(checkpoint, path)
    second = make_runner('second', hooks, 3, load_from=str(path), resume=True)
    second.train()
    assert second.epoch == 3
    assert not mark.exists()


def test_hook_repairs_a_stock_checkpoint_on_loading() -> None:
    hook = PlainCheckpointHook()
    hub = dict(
        log_scalars={'train/loss': object()},
        runtime_info=dict(iter=3),
        resumed_keys={'train/loss': True, 'iter': True},
    )
    checkpoint = dict(meta=dict(config='x', epoch=1), message_hub=hub)
    hook.after_load_checkpoint(None, checkpoint)
    assert checkpoint == dict(
        meta=dict(epoch=1),
        message_hub=dict(log_scalars={}, runtime_info=dict(iter=3), resumed_keys=dict(iter=True)),
    )
    official = dict(state_dict={})
    hook.after_load_checkpoint(None, official)
    assert official == dict(state_dict={})
