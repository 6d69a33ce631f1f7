"""The web page in a real browser."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmslip.registry import MODELS
from tests.apis.conftest import CONFIG, draw_images

pytest.importorskip('gradio', reason='gradio is not installed (pip install mmslip[web])')
playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')

ROOT = Path(__file__).parents[2]
BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'chrome'))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason='there is no chromium on the path'),
]
PORT = 7000 + os.getpid() % 2000


@pytest.fixture
def page(tmp_path: Path) -> Iterator[object]:
    """The page over six images, open in a browser."""
    draw_images(tmp_path / 'images', range(6))
    (tmp_path / 'config.py').write_text(CONFIG)
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(tmp_path / 'config.py').model)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    script = ROOT / 'tools' / 'inference' / 'webpage.py'
    command = [sys.executable, script, 'config.py', 'weights.pth', '--folder', 'images']
    with (tmp_path / 'log').open('w') as log:
        server = subprocess.Popen(
            [*command, '--port', str(PORT)],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            env={**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1'},
        )
    try:
        deadline = time.monotonic() + 90
        while 'Running on' not in (text := (tmp_path / 'log').read_text()):
            assert server.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.1)
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=BROWSER, args=['--no-sandbox'])
            window = browser.new_page()
            window.set_default_timeout(30_000)
            window.goto(f'http://127.0.0.1:{PORT}')
            yield window
            browser.close()
    finally:
        server.kill()
        server.wait()


def upload(page: object, path: Path) -> None:
    """Give the visible tab an image, as a person would."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role('button', name='Drop an image file').click()
    chooser.value.set_files(path)
    playwright.expect(page.get_by_role('button', name='Remove Image')).to_be_visible()


def test_classify_and_search(page: object, tmp_path: Path) -> None:
    expect = playwright.expect
    classify = page.get_by_role('button', name='Classify', exact=True)
    classify.click()
    expect(page.get_by_text('Give an image.')).to_be_visible()
    upload(page, tmp_path / 'images' / '03.png')
    page.get_by_label('Labels, one a line').fill('cat\ndog|hound\ngrößer')
    classify.click()
    for label in ('cat', 'dog', 'größer'):
        expect(page.get_by_test_id(f'{label}-confidence-set')).to_be_visible()

    page.get_by_role('tab', name='Search').click()
    expect(page.get_by_text('6 images of images')).to_be_visible()
    page.get_by_label('Words').fill('a chair')
    page.get_by_role('button', name='Search', exact=True).click()
    pictures = page.locator('.grid-container img')
    expect(pictures).to_have_count(6)
    draw_images(tmp_path / 'images', [9])
    page.get_by_role('button', name='Take note of changes').click()
    expect(page.get_by_text('7 images of images')).to_be_visible()
    page.get_by_label('Words').fill('')
    upload(page, tmp_path / 'images' / '09.png')
    page.get_by_role('button', name='Search', exact=True).click()
    expect(pictures).to_have_count(7)
    expect(page.get_by_text('1.000 09.png')).to_be_visible()
