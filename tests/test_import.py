"""mmslip can be imported beside packages that break mmpretrain."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from mmpretrain.utils import dependency

import mmslip

SCRIPT = """
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
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', SCRIPT],
        env={**os.environ, 'PYTHONPATH': path},
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
    mmslip._keep_mmpretrain_importable()
    assert dependency.WITH_MULTIMODAL is left
