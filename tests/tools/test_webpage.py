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
from tests.scripts import environment

pytest.importorskip('gradio', reason='gradio is not installed (pip install mmslip[web])')
httpx = pytest.importorskip('httpx')  # of gradio

ROOT = Path(__file__).parents[2]
BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'chrome'))), None)
pytestmark = pytest.mark.slow
PORT = 7000 + os.getpid() % 2000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Address of the page over six images."""
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
        process = subprocess.Popen(
            [*command, '--port', str(PORT), '--max-upload', '2'],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            env=environment(PYTHONUNBUFFERED='1'),
        )
    try:
        deadline = time.monotonic() + 240
        while 'Running on' not in (text := (tmp_path / 'log').read_text()):
            assert process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.1)
        yield f'http://127.0.0.1:{PORT}'
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def page(server: str) -> Iterator[object]:
    """The page, open in a browser."""
    if BROWSER is None:
        pytest.skip('there is no chromium on the path')
    playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=['--no-sandbox'])
        window = browser.new_page()
        window.set_default_timeout(30_000)
        window.goto(server)
        yield window
        browser.close()


def test_large_uploads_are_refused(server: str) -> None:
    assert 'Images may have up to 2 MB.' in httpx.get(server).text

    def status(size: int) -> int:
        files = dict(files=('image.png', b'\0' * size, 'image/png'))
        return httpx.post(f'{server}/gradio_api/upload', files=files).status_code

    assert [status(size) for size in (1_900_000, 2_200_000)] == [200, 413]


def choose(page: object, path: Path) -> None:
    """Name an image for the visible tab, as a person would."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role('button', name='Drop an image file').click()
    chooser.value.set_files(path)


def upload(page: object, path: Path) -> None:
    """Give it one, and wait until it is there."""
    choose(page, path)
    page.get_by_role('button', name='Remove Image').wait_for()


def test_classify_and_search(page: object, tmp_path: Path) -> None:
    expect = pytest.importorskip('playwright.sync_api').expect
    expect.set_options(timeout=30_000)
    classify = page.get_by_role('button', name='Classify', exact=True)

    def labels(text: str) -> None:
        page.get_by_label('Labels').fill(text)
        classify.click()

    classify.click()
    expect(page.get_by_text('Give an image.')).to_be_visible()
    upload(page, tmp_path / 'images' / '03.png')
    labels('cat, dog|hound\ngrößer')
    for label in ('cat', 'dog', 'größer'):
        expect(page.get_by_test_id(f'{label}-confidence-set')).to_be_visible()
    # What is wrong is told in words, in the place of an older result.
    labels('cat')
    expect(page.get_by_text('Give two labels or more')).to_be_visible()
    expect(page.get_by_test_id('cat-confidence-set')).to_have_count(0)
    labels('cat, Cat')
    expect(page.get_by_text("The label 'Cat' is given twice.")).to_be_visible()
    (tmp_path / 'broken.png').write_bytes(b'broken')
    (tmp_path / 'large.png').write_bytes(b'large' * 500_000)
    page.get_by_role('button', name='Remove Image').click()
    upload(page, tmp_path / 'broken.png')
    labels('cat, dog')
    expect(page.get_by_text('The image cannot be read')).to_be_visible()
    page.get_by_role('button', name='Remove Image').click()
    choose(page, tmp_path / 'large.png')
    expect(page.get_by_text('exceed the maximum allowed size of 2.0 Mb')).to_be_visible()
    expect(page.get_by_text('Error', exact=True).locator('visible=true')).to_have_count(0)

    page.get_by_role('tab', name='Search').click()
    expect(page.get_by_text('6 images of images')).to_be_visible()
    page.get_by_role('button', name='Search', exact=True).click()
    expect(page.get_by_text('Give words or an image.')).to_be_visible()
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
