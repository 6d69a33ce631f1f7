"""The command ``mmslip``: finding the commands, help, errors."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mmslip.cli import COMMANDS, main
from mmslip.cli.launch import add_launcher_arguments
from mmslip.cli.parser import CommandParser
from tests.scripts import environment


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-m', 'mmslip', *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
    )


def test_help_takes_less_than_a_second(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = run('--help', cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert shown.returncode == 0
    assert all(f'\n  {name} ' in shown.stdout for name in COMMANDS)
    assert max(map(len, shown.stdout.splitlines())) < 80
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    assert run(cwd=tmp_path).stdout == shown.stdout


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_explains_itself(name: str, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, 'argv', ['/usr/bin/mmslip'])
    if name == 'web':
        pytest.importorskip('gradio')
    with pytest.raises(SystemExit) as caught:
        main([name, '--help'])
    assert not caught.value.code
    text = capsys.readouterr().out
    assert text.startswith(f'usage: mmslip {name} ')
    assert '--debug' in text


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['trian', 'x.py'], 'no command trian: is train meant?'),
        (['xyz'], 'no command xyz: there are init, doctor, '),
    ],
)
def test_unknown_commands(arguments: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ('command', 'option', 'value'),
    [
        ('classify', '--topk', '0'),
        ('search', '--topk', '-3'),
        ('embed', '--block-size', '0'),
        ('embed', '--batch-size', 'many'),
        ('embed', '--num-workers', '-1'),
        ('test', '--batch-size', '0'),
        ('doctor', '--gpus', '0'),
        ('browse', '--samples', '0'),
        ('convert', '--image-size', '-8'),
        ('init', '--unlocked-groups', '-1'),
        ('web', '--max-upload', '0'),
    ],
)
def test_numbers_that_cannot_be_meant(command: str, option: str, value: str, capsys) -> None:
    if command == 'web':
        pytest.importorskip('gradio')
    with pytest.raises(SystemExit) as caught:
        main([command, f'{option}={value}'])
    assert caught.value.code == 2
    least = 0 if option in ('--num-workers', '--unlocked-groups') else 1
    assert f'argument {option}: {value} is no whole number from {least} on' in (
        capsys.readouterr().err
    )


def test_versions(capsys) -> None:
    with pytest.raises(SystemExit, match=r'^0?$'):
        main(['--version'])
    assert capsys.readouterr().out.startswith('mmslip 0.')


def test_debug_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MMSLIP_DEBUG', '')
    with pytest.raises(SystemExit, match=r'Error: There is no config none\.py: neither'):
        main(['train', 'none.py'])
    for arguments in (['--debug', 'train', 'none.py'], ['train', 'none.py', '--debug']):
        monkeypatch.setenv('MMSLIP_DEBUG', '')
        with pytest.raises(FileNotFoundError):
            main(arguments)


def test_modules_in_the_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    Path('part_of_mine.py').write_text('')
    Path('mine.py').write_text("custom_imports = dict(imports=['part_of_mine'])\n")
    with pytest.raises(SystemExit, match='model: missing'):
        main(['train', 'mine.py'])
    assert 'part_of_mine' in sys.modules


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MMSLIP_DEBUG', '')
    monkeypatch.delitem(sys.modules, 'mmslip.cli.report', raising=False)
    monkeypatch.setitem(sys.modules, 'mmslip.analysis.report', None)
    with pytest.raises(SystemExit, match=r'Error: import of mmslip.analysis.report halted'):
        main(['report', 'x'])


def test_scripts_bear_their_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'argv', ['tools/analysis/browse_dataset.py'])
    assert CommandParser('browse').prog == 'browse_dataset.py'
    monkeypatch.setattr(sys, 'argv', ['/lib/mmslip/__main__.py'])
    assert CommandParser('browse').prog == 'mmslip browse'


def test_torchrun_is_the_launcher_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def launcher(*arguments: str) -> str:
        parser = CommandParser('train')
        add_launcher_arguments(parser)
        return parser.parse_args(arguments).launcher

    monkeypatch.delenv('TORCHELASTIC_RUN_ID', raising=False)
    assert launcher() == 'none'
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')
    assert launcher() == 'pytorch'
    assert launcher('--launcher', 'none') == 'none'
