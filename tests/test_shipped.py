"""Configs that come with mmslip, by their names."""

from pathlib import Path

import pytest

import mmslip
from mmslip.cli.config import read_config
from mmslip.shipped import SHIPPED, find_config


@pytest.mark.parametrize(
    ('name', 'path'),
    [
        ('slip_tiny_emoji', 'slip/slip_tiny_emoji.py'),
        ('slip_vit-tiny_emoji', 'slip/slip_vit-tiny_emoji.py'),
        ('paper_claim/slip_tiny_emoji', 'benchmarks/paper_claim/slip_tiny_emoji.py'),
        ('zero_shot_26', 'benchmarks/zero_shot/zero_shot_26.py'),
        ('mmslip::_base_/default_runtime.py', '_base_/default_runtime.py'),
    ],
)
def test_names(name: str, path: str) -> None:
    assert find_config(name) == SHIPPED / 'configs' / path


def test_every_model_has_a_config() -> None:
    assert [find_config(name).stem for name in mmslip.list_models()] == mmslip.list_models()


def test_a_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path('slip_tiny_emoji.py').write_text('image_size = 8')
    assert find_config('slip_tiny_emoji.py') == Path('slip_tiny_emoji.py')
    assert find_config('slip_tiny_emoji').is_absolute()


@pytest.mark.parametrize(
    ('name', 'error', 'message'),
    [
        (
            'vit-b16_in1k',
            ValueError,
            r'give mmslip::benchmarks/finetune/.* or mmslip::',
        ),
        ('slip_tiny_emjoi', FileNotFoundError, 'is slip_tiny_emoji meant'),
        # As it is written in a checkout.
        ('configs/slip/slip_tiny_emoji.py', FileNotFoundError, 'is slip_tiny_emoji meant'),
        ('mmslip::clip/slip_tiny_emoji.py', FileNotFoundError, 'mmslip::slip/slip_tiny_emoji.py'),
        ('mine.py', FileNotFoundError, 'no config mine.py: neither a file'),
        ('clip', FileNotFoundError, 'no config clip: neither a file'),
    ],
)
def test_errors(name: str, error: type, message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        read_config(name)
    with pytest.raises(error, match=message):
        mmslip.load_config(name)


def test_the_same_config_by_name_and_by_path() -> None:
    path = SHIPPED / 'configs' / 'slip' / 'slip_tiny_emoji.py'
    assert read_config('slip_tiny_emoji').to_dict() == read_config(path).to_dict()
    assert read_config('slip_tiny_emoji').filename == str(path)
