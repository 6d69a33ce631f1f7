"""The wheel carries what mim and ``list_models`` look for."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = """
import mmslip
print(mmslip.__file__)
print(len(mmslip.list_models()))
print(mmslip.get_model('clip_vit-s16_yfcc15m', device='cpu').backbone.embed_dims)
"""


@pytest.mark.slow
def test_models_are_found_in_a_wheel(tmp_path: Path) -> None:
    source = tmp_path / 'source'  # a build leaves folders behind
    skipped = shutil.ignore_patterns('.git', 'build', 'work_dirs', 'data', 'tests', '*.egg-info')
    shutil.copytree(ROOT, source, ignore=skipped)
    shutil.copytree(ROOT / 'mmslip' / 'datasets' / 'data', source / 'mmslip/datasets/data')
    shutil.copytree(ROOT / 'mmslip' / 'evaluation' / 'data', source / 'mmslip/evaluation/data')
    command = [sys.executable, 'setup.py', '-q', 'bdist_wheel', '-d', str(tmp_path)]
    build = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    (wheel,) = tmp_path.glob('*.whl')
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / 'installed')
    mim = {name.removeprefix('mmslip/.mim/') for name in names if '/.mim/' in name}
    assert {'model-index.yml', 'tools/train.py', 'tools/inference/classify.py'} <= mim
    assert {
        str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('*.[py][ym]*')
    } - mim == set()
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', CODE],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(tmp_path / 'installed')},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    file, models, width = run.stdout.split()
    assert Path(file).is_relative_to(tmp_path / 'installed')
    assert int(models) > 15
    assert width == '384'
