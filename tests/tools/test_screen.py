"""What the command lines keep off the screen, and what they do not."""

import logging
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger, print_log
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmslip.cli import screen
from mmslip.cli.screen import quiet_libraries, short_screen
from tests.engine.test_hooks import Line

USELESS = [
    ('Fail to import ``MultiScaleDeformableAttention`` from ``m``', 'mmcv.cnn.bricks.transformer'),
    (
        'Detected call of `lr_scheduler.step()` before `optimizer.step()`.',
        'torch.optim.lr_scheduler',
    ),
    (
        'Detected call of `scheduler.step()` before `optimizer.step()`.',
        'mmengine.optim.scheduler.param_scheduler',
    ),
]


@pytest.mark.parametrize(('message', 'module'), USELESS)
def test_warnings_nobody_can_act_on(message: str, module: str) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        quiet_libraries()
        warnings.warn_explicit(message, UserWarning, 'file.py', 1, module=module)
        assert not seen
        # Other words, and the same of other code, are heard.
        warnings.warn_explicit('Something else', UserWarning, 'file.py', 1, module=module)
        warnings.warn_explicit(message, UserWarning, 'file.py', 1, module='users_own')
        assert len(seen) == 2


def test_environment_config_and_hooks_go_to_the_file(tmp_path: Path, capsys) -> None:
    data = DataLoader([dict(inputs=torch.tensor([1.0]))] * 3, batch_size=1)
    cfg = Config(dict(marker_of_the_config=1))
    with short_screen():
        runner = Runner(
            model=Line(),
            work_dir=str(tmp_path),
            train_dataloader=data,
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            custom_hooks=[dict(type='mmslip.RunSummaryHook')],
            default_scope='mmpretrain',
            experiment_name=tmp_path.name,
            cfg=cfg,
        )
        runner.train()
        logger = MMLogger.get_current_instance()
        print_log('told by print_log', logger='current')
        logger.warning('"FileClient" will be deprecated in future.')
        logger.warning('a warning')
    shown = capsys.readouterr().out
    kept = Path(runner.log_dir, f'{runner.timestamp}.log').read_text()
    for text in (
        'marker_of_the_config',
        'Hooks will be executed',
        'System environment',
        'FileClient',
    ):
        assert text in kept
        assert text not in shown
    for text in ('model: ', 'Epoch(train)', 'Done: 3 steps', 'told by print_log', 'a warning'):
        assert text in kept
        assert text in shown
    assert len(shown.splitlines()) < 25
    # Runners outside are as mmengine makes them.
    assert Runner.build_logger.__module__.startswith('mmengine')


def test_a_terminal_gets_short_lines() -> None:
    logger = logging.Logger('x')
    handler = logging.StreamHandler(SimpleNamespace(isatty=lambda: True, write=print))
    logger.addHandler(handler)
    screen._shorten(logger)

    def line(level: int) -> str:
        return handler.format(logger.makeRecord('x', level, 'f', 1, 'words', (), None))

    assert line(logging.INFO)[2] == ':'
    assert line(logging.INFO)[8:] == '  words'
    assert line(logging.WARNING)[8:] == '  WARNING: words'
