"""Errors of the command lines: one line, with the setting that they come from."""

import logging
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from torch.utils.data import DataLoader, Dataset

from mmslip.cli import errors
from mmslip.cli.errors import SettingError, plain_errors
from mmslip.cli.setting_errors import name_settings
from mmslip.registry import MODELS
from tests.scripts import environment


class Pair(BaseModel):
    """Two projections; the second can be given what it does not take."""

    def __init__(self, neck: dict, text_neck: dict) -> None:
        super().__init__()
        self.neck, self.text_neck = MODELS.build(neck), MODELS.build(text_neck)

    def forward(self, feats: torch.Tensor) -> torch.Tensor:
        return self.text_neck((self.neck((feats,)),))


NECK = dict(type='mmslip.LinearProjection', in_channels=4, out_channels=3)


def test_an_error_of_building_names_the_part() -> None:
    cfg = Config(dict(model=dict(type=Pair, neck=NECK, text_neck=dict(NECK, out_channels='x'))))
    wanted = pytest.raises(SettingError, match=r'^model\.text_neck: TypeError: .*got str')
    with wanted, name_settings(cfg):
        MODELS.build(cfg.model)


def test_an_error_of_a_step_names_the_module() -> None:
    cfg = Config(dict(model=dict(type=Pair, neck=NECK, text_neck=NECK)))
    wanted = pytest.raises(SettingError, match=r'^model\.text_neck: RuntimeError: mat1 and mat2')
    with wanted, name_settings(cfg):
        MODELS.build(cfg.model)(torch.zeros(2, 4))


class Broken(Dataset):
    """A stream whose samples are lost."""

    def __getitem__(self, index: int) -> int:
        raise RuntimeError('3 of 4 shards could not be read')

    def __len__(self) -> int:
        return 8


class Reader:
    """The hook in which a loader is read."""

    def read(self, loader: DataLoader) -> list:
        return list(loader)


@pytest.mark.parametrize('num_workers', [0, 1])
def test_an_error_of_the_data_names_the_data_set_not_the_hook(num_workers: int) -> None:
    cfg = Config(
        dict(custom_hooks=[dict(type=Reader)], train_dataloader=dict(dataset=dict(type=Broken)))
    )
    wanted = r'^train_dataloader\.dataset: RuntimeError: 3 of 4 shards could not be read$'
    with pytest.raises(SettingError, match=wanted), name_settings(cfg):
        Reader().read(DataLoader(Broken(), num_workers=num_workers))


class Dying(Dataset):
    """Its worker is killed, as by the system when memory runs out."""

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)

    def __len__(self) -> int:
        return 8


def test_a_killed_worker_is_no_fault_of_the_hook_in_which_it_is_noticed() -> None:
    cfg = Config(
        dict(custom_hooks=[dict(type=Reader)], train_dataloader=dict(dataset=dict(type=Dying)))
    )
    wanted = r'^RuntimeError: DataLoader worker .* lower num_workers, prefetch_factor or batch_size'
    with pytest.raises(SettingError, match=wanted), name_settings(cfg):
        Reader().read(DataLoader(Dying(), num_workers=1))


@pytest.mark.parametrize(
    ('message', 'told'),
    [
        ('[/pytorch/gloo/pair.cc:561] Connection closed by peer', r'closed by peer$'),
        (
            'unable to allocate shared memory(shm) for file </torch_1_2>: No space left on device',
            r'/dev/shm: .*--shm-size',
        ),
        (
            'DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that '
            "dataloader's workers are out of shared memory. Please try to raise your limit.",
            r'/dev/shm: .*--shm-size',
        ),
    ],
)
def test_nor_is_another_process_or_shared_memory(message: str, told: str) -> None:
    cfg = Config(dict(custom_hooks=[dict(type=Reader)]))
    wanted = pytest.raises(SettingError, match=rf'^RuntimeError: {re.escape(message)}.*')
    with wanted as caught, name_settings(cfg):
        Reader().read(failing(RuntimeError(message)))
    assert re.search(told, str(caught.value))


def failing(error: Exception) -> Iterator[None]:
    yield
    raise error


def test_errors_of_other_code_stay_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), name_settings(Config(dict(model=NECK))):
        1 / 0  # noqa: B018


@plain_errors()
def fail(error: BaseException) -> None:
    raise error


def test_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.delenv('MMSLIP_DEBUG', raising=False)
    with pytest.raises(SystemExit, match=r'(^|\n)Error: no such file$'):
        fail(ValueError('no such\n  file'))
    with pytest.raises(SystemExit, match=r'^\(Traceback: .*\)\nError: KeyError: .a.$'):
        fail(KeyError('a'))
    with pytest.raises(
        SystemExit, match=r'Error: AssertionError: raise error \(.*errors\.py, line'
    ):
        fail(AssertionError())
    worker = (
        'Caught OSError in DataLoader worker process 0.\nTraceback:\n  File\nOSError: no disk\n'
    )
    with pytest.raises(SystemExit, match=r'(^|\n)Error: OSError: no disk$'):
        fail(OSError(worker))

    log = tmp_path / 'log'
    MMLogger.get_instance('errors').addHandler(logging.FileHandler(log))
    with pytest.raises(SystemExit, match=rf'^\(Traceback: .*{log}\)\nError: gone$'):
        fail(ValueError('gone'))
    assert 'raise error\nValueError: gone' in log.read_text()

    monkeypatch.setenv('MMSLIP_DEBUG', '1')
    with pytest.raises(KeyError):
        fail(KeyError('a'))


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.delenv('MMSLIP_DEBUG', raising=False)
    with pytest.raises(SystemExit) as caught:
        fail(KeyboardInterrupt())
    assert caught.value.code == 130
    assert capfd.readouterr().err == '\nStopped by Ctrl-C.\n'


@pytest.mark.parametrize(
    ('command', 'said'),
    [
        (['slip_tiny_emoji', '--cfg-options', 'model.ssl_wight=2'], 'is ssl_weight meant?'),
        (['slip_tiny_emoji', '--cfg-options', 'model.neck.in_channels=7'], 'Error: model.neck'),
        (['slip_tiny_emoji', '--amp', 'int4'], "invalid choice: 'int4'"),
        (['no_such_config'], 'no_such_config'),
    ],
)
def test_the_first_of_several_processes_tells_an_error(tmp_path, command, said) -> None:
    """Not all of them; and not the second one alone, when it is the faster."""
    late = tmp_path / 'sitecustomize.py'
    late.write_text("import os, time\nif os.environ.get('LOCAL_RANK') == '0': time.sleep(2)\n")
    torchrun = ['torchrun', '--standalone', '--nproc_per_node=2', '-m', 'mmslip', 'train']
    result = subprocess.run(
        [*torchrun, *command],
        env=environment(tmp_path, OMP_NUM_THREADS='1'),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 1
    assert result.stderr.count(said) == 1


def test_a_process_that_fails_alone_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    monkeypatch.setattr(errors, 'time', SimpleNamespace(sleep=waits.append))
    monkeypatch.setenv('LOCAL_RANK', '1')
    errors.wait_for_first.cache_clear()
    with pytest.raises(SystemExit, match=r'Error: gone$'), plain_errors():
        fail(ValueError('gone'))
    assert waits == [30.0]
