"""The wheel carries what the command, mim and ``list_models`` look for."""

import zipfile
from pathlib import Path

import pytest

from tests.installed import ROOT, Installed

CODE = """
import mmslip
print(mmslip.__file__)
print(len(mmslip.list_models()))
print(mmslip.get_model('clip_vit-s16_yfcc15m', device='cpu').backbone.embed_dims)
print(mmslip.get_model('slip_tiny_emoji', pretrained=True, device='cpu').head.logit_scale.item())
"""


@pytest.mark.slow
def test_content(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name) for name in names if name.endswith('/METADATA'))
    files = (path for path in (ROOT / 'mmslip').rglob('*') if path.is_file())
    wanted = {str(path.relative_to(ROOT)) for path in files if path.parent.name != '__pycache__'}
    assert wanted - names == set()
    assert not any('__pycache__' in name for name in names)
    mim = {name.removeprefix('mmslip/.mim/') for name in names if '/.mim/' in name}
    assert {'model-index.yml', 'tools/train.py', 'tools/inference/classify.py'} <= mim
    assert {
        str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('*.[py][ym]*')
    } - mim == set()
    assert b'Classifier: Typing :: Typed' in metadata
    assert installed.wheel.stat().st_size < 20 * 2**20


@pytest.mark.slow
def test_models_are_found(installed: Installed, tmp_path: Path) -> None:
    out = installed.run('python', '-W', 'ignore', '-c', CODE, cwd=tmp_path)
    file, models, width, logit_scale = out.split()
    assert Path(file).is_relative_to(installed.site)
    assert int(models) > 15
    assert width == '384'
    assert float(logit_scale) > 2.8  # learned, from ln(1 / 0.07) = 2.66
