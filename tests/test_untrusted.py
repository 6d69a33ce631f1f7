"""No file that is loaded can run code, whichever way it is loaded."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from mmslip.apis import init_model
from mmslip.cli import convert as convert_weights
from mmslip.cli import test, train
from mmslip.registry import MODELS
from tests.engine.test_checkpoint import PAYLOADS
from tests.test_training import logged, small_config


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after four of eight steps, with averaged weights."""
    work_dir = tmp_path_factory.mktemp('trained') / 'run'
    cfg = config(work_dir, **{'train_cfg.max_epochs': 1})
    Runner.from_cfg(cfg).train()
    return work_dir / 'epoch_1.pth'


def config(work_dir: Path, **options: object):
    cfg = small_config(work_dir, param_scheduler=None, **options)
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='EMAHook')]
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint.pop('save_best')
    return cfg


@pytest.fixture
def evil(trained: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Write the checkpoint again with code in it, which would make the folder ``executed``."""

    def write(kind: str) -> Path:
        checkpoint = torch.load(trained, weights_only=True)
        mark = str(tmp_path / 'executed')
        if kind == 'config':
            checkpoint['meta']['config'] = f'made = __import__("os").mkdir({mark!r})\n'
        else:
            # Where EMAHook would use it.
            checkpoint['ema_state_dict']['steps'] = PAYLOADS[kind](mark)
        path = tmp_path / 'run' / 'epoch_1.pth'
        path.parent.mkdir()
        torch.save(checkpoint, path)
        return path

    return write


def resume(path: Path, settings: Path) -> None:
    train.main([*map(str, (settings, '--resume', path))])


def resume_automatically(path: Path, settings: Path) -> None:
    train.main([*map(str, (settings, '--resume'))])


def load_from(path: Path, settings: Path) -> None:
    new = ['--work-dir', str(settings.parent / 'new')]
    train.main([str(settings), *new, '--cfg-options', f'load_from={path}'])


def evaluate(path: Path, settings: Path) -> None:
    test.main([*map(str, (settings, path))])


def convert(path: Path, settings: Path) -> None:
    convert_weights.main([*map(str, (path, path.parent / 'converted', '--config', settings))])


def init_cfg(path: Path, settings: Path) -> None:
    pretrained = dict(type='Pretrained', checkpoint=str(path), prefix='neck.')
    neck = dict(type='mmslip.LinearProjection', in_channels=16, out_channels=128)
    MODELS.build(dict(neck, init_cfg=pretrained)).init_weights()


def init(path: Path | str, settings: Path) -> None:
    init_model(settings, path, 'cpu')


@pytest.mark.parametrize('kind', ['os.mkdir', 'import', 'config'])
@pytest.mark.parametrize(
    'load',
    [resume, resume_automatically, load_from, evaluate, convert, init_cfg, init],
    ids=lambda load: load.__name__,
)
def test_code_in_a_checkpoint_does_not_run(evil, tmp_path, load, kind):
    path = evil(kind)
    settings = tmp_path / 'config.py'
    config(path.parent).dump(settings)
    if kind == 'config':
        load(path, settings)
        if load in (resume, resume_automatically):
            assert len(logged(path.parent)) == 4  # it has gone on
    else:
        # The file is refused, by its name; looking for a checkpoint, it is as good as none.
        text = r'No checkpoint .* is whole' if load is resume_automatically else 'never runs code'
        with pytest.raises((RuntimeError, SystemExit), match=rf'(?s){text}'):
            load(path, settings)
    assert not (tmp_path / 'executed').exists()


@pytest.mark.parametrize('kind', ['os.mkdir', 'config', 'good'])
@pytest.mark.parametrize(
    'load', [resume, load_from, evaluate, init_cfg, init], ids=lambda load: load.__name__
)
def test_nor_one_behind_an_address(evil, trained, tmp_path, serve, monkeypatch, load, kind):
    # The variable with which users of OpenMMLab let PyTorch unpickle as before 2.6.
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    address, asked = serve
    path = tmp_path / 'run' / 'epoch_1.pth'
    if kind == 'good':
        path.parent.mkdir()
        shutil.copy(trained, path)
    else:
        evil(kind)
    settings = tmp_path / 'config.py'
    config(path.parent).dump(settings)
    load_it = partial(load, f'{address}/run/epoch_1.pth', settings)
    if kind == 'os.mkdir':
        with pytest.raises((RuntimeError, SystemExit), match=r'(?s)never runs code'):
            load_it()
    else:
        load_it()
        if load is resume:
            assert len(logged(path.parent)) == 4
    assert asked == ['/run/epoch_1.pth']
    assert not (tmp_path / 'executed').exists()
