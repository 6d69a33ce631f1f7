"""The command line of tools/train.py."""

import importlib.util
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).parents[2]


def test_a_folder_is_no_checkpoint(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location('train', ROOT / 'tools' / 'train.py')
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    config = ROOT / 'configs' / 'slip' / 'slip_vit-tiny_emoji.py'
    work_dir = tmp_path / 'run'
    work_dir.mkdir()

    def read(*options: str) -> Config:
        monkeypatch.setattr(sys, 'argv', ['train.py', str(config), *options])
        cfg = Config.fromfile(config)
        train.apply_args(cfg, train.parse_args())
        return cfg

    with pytest.raises(SystemExit, match=f'say --work-dir {work_dir} --resume'):
        read('--resume', str(work_dir))
    advised = read('--work-dir', str(work_dir), '--resume')
    assert (advised.work_dir, advised.resume, advised.load_from) == (str(work_dir), True, None)
    named = read('--resume', str(work_dir / 'epoch_1.pth'))
    assert (named.resume, named.load_from) == (True, str(work_dir / 'epoch_1.pth'))
