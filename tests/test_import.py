"""What ``import mmslip`` does, and what it leaves to the imports that follow."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from mmengine.config import Config
from mmpretrain.utils import dependency

import mmslip
from mmslip.plugin import switch_off_multimodal
from mmslip.utils.config import load_config
from tests.scripts import environment

ROOT = Path(__file__).parents[1]
SCRIPT = """
import sys
import mmslip
assert not {'mmengine', 'mmpretrain', 'torch'} & sys.modules.keys()
import mmslip.datasets, mmslip.engine, mmslip.models
from mmpretrain.registry import MODELS
print('models:', 'VisionTransformer' in MODELS)
"""


def install(folder: Path, name: str, version: str) -> None:
    """A package without content."""
    (folder / name).mkdir()
    (folder / name / '__init__.py').touch()
    (folder / f'{name}-{version}.dist-info').mkdir()
    text = f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
    (folder / f'{name}-{version}.dist-info' / 'METADATA').write_text(text)


def test_import_beside_transformers_and_pycocotools(tmp_path: Path) -> None:
    install(tmp_path, 'transformers', '5.0.0rc1')
    install(tmp_path, 'pycocotools', '2.0.11')
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', SCRIPT],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert 'models: True' in run.stdout


@pytest.mark.parametrize(
    ('versions', 'left'),
    [
        (dict(transformers='4.55.4', pycocotools='2.0'), True),
        (dict(transformers='4.56.0', pycocotools='2.0'), False),
        (dict(transformers='4.56.0'), True),
        (dict(pycocotools='2.0'), True),
    ],
)
def test_multimodal_models_are_left_where_they_work(
    monkeypatch: pytest.MonkeyPatch, versions: dict, left: bool
) -> None:
    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(dependency, 'WITH_MULTIMODAL', True)
    monkeypatch.setattr(metadata, 'version', version)
    switch_off_multimodal(dependency)
    assert dependency.WITH_MULTIMODAL is left


@pytest.mark.parametrize('order', ['mmslip, mmengine', 'mmengine, mmslip'])
def test_bases_of_mmslip_in_any_folder(tmp_path: Path, order: str) -> None:
    (tmp_path / 'mine.py').write_text(
        "_base_ = ['mmslip::clip/clip_vit-b16_cc3m.py']\nmodel = dict(chunk_size=64)\n"
    )
    code = f'import {order}; print(mmengine.Config.fromfile("mine.py").pretty_text)'
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    wanted = Config.fromfile(ROOT / 'configs' / 'clip' / 'clip_vit-b16_cc3m.py')
    wanted.model.chunk_size = 64
    # No `_scope_`, in which mmpretrain's names would mean nothing.
    assert Config.fromstring(run.stdout, '.py').to_dict() == wanted.to_dict()


def test_a_base_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / 'mine.py').write_text("_base_ = ['mmslip::clip/clip_vit-b16_cc3n.py']\n")
    with pytest.raises(FileNotFoundError, match=r'is clip_vit-b16_cc3m meant, .*mmslip::clip/clip'):
        Config.fromfile(tmp_path / 'mine.py')


def test_bases_of_others_are_found_by_mmengine(tmp_path: Path) -> None:
    (tmp_path / 'mine.py').write_text("_base_ = ['mmpretrain::_base_/models/resnet50.py']\n")
    assert Config.fromfile(tmp_path / 'mine.py').model._scope_ == 'mmpretrain'


def test_names_are_listed_before_they_are_imported() -> None:
    assert {'get_model', 'load_config', '__version__'} <= set(dir(mmslip))
    assert mmslip.load_config is load_config
    with pytest.raises(AttributeError, match=r'no attribute .get_modell'):
        mmslip.get_modell  # noqa: B018
