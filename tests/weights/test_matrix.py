"""Every shipped model config in every library that can run it, from raw files and strings."""

import os
from pathlib import Path

import pytest

from tests.weights.foreign_models import ROOT
from tests.weights.matrix import LOADERS, alike, check, models, refusals, shipped, small, table

SLOW_TESTS = 'MMSLIP_SLOW_TESTS' in os.environ


@pytest.fixture(scope='module')
def vits() -> list[str]:
    """The different models of the shipped configs that any library can have."""
    return [name for name in models() if refusals(name)['mmslip'] is None]


def full() -> list[tuple[str, str]]:
    """Each different model of the shipped configs with each format that it has."""
    return [(name, to) for name in models() for to in LOADERS if refusals(name)[to] is None]


def test_the_table_of_the_page() -> None:
    """Says of every shipped config where it can go; written by `python -m tests.weights.matrix`."""
    page = (ROOT / 'docs' / 'weights.md').read_text(encoding='utf-8')
    assert page.partition('<!-- matrix -->\n')[2].partition('<!-- end -->\n')[0] == table()


@pytest.mark.parametrize('to', LOADERS)
def test_tiny(to: str, vits: list[str], tmp_path: Path) -> None:
    run = 0
    for name in alike(vits, small):
        print(name)
        if refusals(name)[to] is None:
            # open_clip has small ViTs with one activation only.
            check(small(name, one_activation=to == 'open_clip'), to, tmp_path)
            run += 1
    assert run >= 3


def test_small_vit_of_timm_in_open_clip(tmp_path: Path) -> None:
    """Two activations: open_clip takes the image tower by a name of timm's, at 224 pixels."""
    config = small('slip/slip_vit-b16_yfcc15m')
    arch = dict(embed_dims=192, num_layers=12, num_heads=3, feedforward_channels=768)
    config.model.backbone.update(arch=arch, patch_size=16, img_size=224)
    config.model.neck.in_channels = 192
    config.image_size = 224
    check(config, 'open_clip', tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not SLOW_TESTS, reason='takes a minute for each')
@pytest.mark.parametrize(('name', 'to'), full() if SLOW_TESTS else [])
def test_full(name: str, to: str, tmp_path: Path) -> None:
    """A ViT-L takes 8 GB of memory."""
    config = shipped(name)
    if config.model.get('text_backbone'):
        config.model.ssl = None  # which goes nowhere, and is large
    check(config, to, tmp_path)
