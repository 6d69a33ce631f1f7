"""Pages of the documentation: their code runs as it stands, and prints what they say."""

import contextlib
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.scripts import load_script

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize('page', ['README.md', 'docs/tutorial.md'])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    text = (ROOT / page).read_text(encoding='utf-8')
    blocks = re.findall(r'^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?', text, re.M | re.S)
    assert any(expected for _, expected in blocks)
    monkeypatch.chdir(tmp_path)
    names = {'__name__': page}
    for code, expected in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page, 'exec'), names)
        # Progress bars and warnings of libraries come first.
        assert printed.getvalue().endswith(expected), code


def test_the_architecture_is_drawn(tmp_path):
    load_script('draw_architecture').main([str(tmp_path / 'new.png')])
    with Image.open(tmp_path / 'new.png') as new, Image.open(ROOT / 'docs/architecture.png') as old:
        assert new.size == old.size
