"""No file that is loaded can run code, whichever way it is loaded."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from mmslip.registry import MODELS
from tests.engine.test_checkpoint import PAYLOADS
from tests.test_training import logged, small_config

ROOT = Path(__file__).parents[1]


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


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a tool as its command line does."""

    def run(tool: str, *arguments: object) -> None:
        path = ROOT / 'tools' / tool
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, 'argv', [path.name, *map(str, arguments)])
        module.main()

    return run


def resume(call: Callable, path: Path, settings: Path) -> None:
    call('train.py', settings, '--resume', path)


def resume_automatically(call: Callable, path: Path, settings: Path) -> None:
    call('train.py', settings, '--resume')


def load_from(call: Callable, path: Path, settings: Path) -> None:
    call('train.py', settings, '--cfg-options', f'load_from={path}')


def evaluate(call: Callable, path: Path, settings: Path) -> None:
    call('test.py', settings, path)


def convert(call: Callable, path: Path, settings: Path) -> None:
    call('model_converters/convert.py', path, path.parent / 'converted', '--config', settings)


def init_cfg(call: Callable, path: Path, settings: Path) -> None:
    pretrained = dict(type='Pretrained', checkpoint=str(path), prefix='neck.')
    neck = dict(type='mmslip.LinearProjection', in_channels=16, out_channels=128)
    MODELS.build(dict(neck, init_cfg=pretrained)).init_weights()


@pytest.mark.parametrize('kind', ['os.mkdir', 'import', 'config'])
@pytest.mark.parametrize(
    'load',
    [resume, resume_automatically, load_from, evaluate, convert, init_cfg],
    ids=lambda load: load.__name__,
)
def test_code_in_a_checkpoint_does_not_run(evil, call, tmp_path, load, kind):
    path = evil(kind)
    settings = tmp_path / 'config.py'
    config(path.parent).dump(settings)
    if kind == 'config':
        load(call, path, settings)
        if load in (resume, resume_automatically):
            assert len(logged(path.parent)) == 4  # it has gone on
    else:
        # The file is refused, by its name; looking for a checkpoint, it is as good as none.
        text = r'No checkpoint .* is whole' if load is resume_automatically else 'never runs code'
        with pytest.raises((RuntimeError, SystemExit), match=rf'(?s){text}'):
            load(call, path, settings)
    assert not (tmp_path / 'executed').exists()
