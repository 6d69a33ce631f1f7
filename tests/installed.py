"""mmslip as `pip install` puts it on a machine, without the checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ['ROOT', 'Installed', 'install']

ROOT = Path(__file__).parents[1]


class Installed:
    """The wheel in a folder of its own, and the command that came with it.

    Args:
        wheel: The wheel.
        site: Folder that it is installed in.
    """

    def __init__(self, wheel: Path, site: Path) -> None:
        self.wheel, self.site = wheel, site
        path = os.pathsep.join([str(site / 'bin'), os.environ['PATH']])
        self.environment = {**os.environ, 'PYTHONPATH': str(site), 'PATH': path}
        self.environment |= dict(OMP_NUM_THREADS='1', COLUMNS='80')

    def run(self, *command: str, cwd: Path) -> str:
        """What a command prints; it must end well."""
        done = subprocess.run(
            command,
            cwd=cwd,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


def install(folder: Path) -> Installed:
    """Build the wheel and install it in ``folder``, without what it needs, which is there."""
    source, site = folder / 'source', folder / 'site'  # a build leaves folders behind
    skipped = shutil.ignore_patterns('.git', 'build', 'work_dirs', 'data', 'tests', '*.egg-info')
    shutil.copytree(ROOT, source, ignore=skipped)
    for data in ('mmslip/datasets/data', 'mmslip/evaluation/data'):
        shutil.copytree(ROOT / data, source / data)
    build = [sys.executable, 'setup.py', '-q', 'bdist_wheel', '-d', str(folder)]
    _run(build, source)
    (wheel,) = folder.glob('*.whl')
    pip = [sys.executable, '-m', 'pip', 'install', '-q', '--no-index', '--no-deps']
    _run([*pip, '--target', str(site), str(wheel)], folder)
    return Installed(wheel, site)


def _run(command: list[str], cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
