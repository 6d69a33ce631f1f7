"""The command line of tools/train.py."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from mmengine.config import Config

from mmslip.cli import train

ROOT = Path(__file__).parents[2]


def test_a_folder_is_no_checkpoint(tmp_path):
    config = ROOT / 'configs' / 'slip' / 'slip_vit-tiny_emoji.py'
    work_dir = tmp_path / 'run'
    work_dir.mkdir()

    def read(*options: str) -> Config:
        cfg = Config.fromfile(config)
        train.apply_args(cfg, train.parse_args([str(config), *options]))
        return cfg

    with pytest.raises(SystemExit, match=f'say --work-dir {work_dir} --resume'):
        read('--resume', str(work_dir))
    advised = read('--work-dir', str(work_dir), '--resume')
    assert (advised.work_dir, advised.resume, advised.load_from) == (str(work_dir), True, None)
    named = read('--resume', str(work_dir / 'epoch_1.pth'))
    assert (named.resume, named.load_from) == (True, str(work_dir / 'epoch_1.pth'))


def test_options_of_hooks_that_were_left_out():
    config = ROOT / 'configs' / 'slip' / 'slip_vit-tiny_emoji.py'
    args = train.parse_args([str(config), '--no-validate', '--compile'])
    cfg = Config(dict(default_hooks=dict(checkpoint=None)))
    train.apply_args(cfg, args)
    speed = dict(type='mmslip.SpeedHook', compile=True)
    assert cfg.default_hooks == dict(checkpoint=None, speed=speed)
    cfg = Config(dict())
    train.apply_args(cfg, args)
    assert cfg.default_hooks == dict(speed=speed)


def test_a_set_smaller_than_a_batch_ends_in_one_line(tmp_path):
    config = ROOT / 'configs' / 'slip' / 'slip_vit-tiny_emoji.py'
    options = ['train_dataloader.batch_size=256', 'train_dataloader.dataset.indices=64']
    options += ['train_dataloader.num_workers=0', f'experiment_name={tmp_path.name}']
    with pytest.raises(SystemExit) as stopped:
        train.main([str(config), '--work-dir', str(tmp_path), '--cfg-options', *options])
    assert stopped.value.code.splitlines()[-1] == (
        'Error: train_dataloader: 64 samples in batches of 256 give no step: an epoch drops its '
        'last, incomplete batch. Set train_dataloader.batch_size to at most 64, or give more '
        'samples.'
    )


def test_checkpoints_of_an_earlier_run_are_not_overwritten(tmp_path, monkeypatch):
    config = ROOT / 'configs' / 'slip' / 'slip_vit-tiny_emoji.py'
    started = []
    processes = lambda cfg, launcher: started.append(cfg) or nullcontext()  # noqa: E731
    monkeypatch.setattr(train, 'processes', processes)
    monkeypatch.setattr(train.Runner, 'from_cfg', lambda cfg: 1 / 0)

    def run(*options: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            train.main([str(config), '--work-dir', str(tmp_path), *options])
        return stopped.value.code

    def begins(*options: str) -> bool:
        return 'ZeroDivisionError' in run(*options)

    assert begins()
    (tmp_path / '.epoch_1.pth').touch()  # half-written
    assert begins()
    (tmp_path / 'epoch_1.pth').touch()
    (tmp_path / 'best_top1_epoch_1.pth').touch()
    before = len(started)
    assert run().endswith(
        f'Error: {tmp_path} has checkpoints of an earlier run (best_top1_epoch_1.pth, '
        'epoch_1.pth), which a new one would overwrite: go on from them with --resume, choose '
        'another --work-dir, or move them away.'
    )
    assert len(started) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        '.epoch_1.pth',
        'best_top1_epoch_1.pth',
        'epoch_1.pth',
    ]
    assert begins('--resume')
    assert begins('--cfg-options', 'resume=True')
    (tmp_path / 'best_top1_epoch_1.pth').unlink()
    assert begins('--cfg-options', f'load_from={tmp_path}/epoch_1.pth')
    assert begins('--work-dir', str(tmp_path / 'other'))
