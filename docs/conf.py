"""Settings of the documentation site: the repository's Markdown, and an API reference.

sphinx-build -W --keep-going -c docs . site

The source folder is the repository, so a link reads the same on a plain repository page and on
the site, and the build finds every broken one.
"""

import shutil
from pathlib import Path

from sphinx.application import Sphinx

from mmslip.version import __version__

project = 'mmslip'
author = 'the mmslip authors'
copyright = '2026, the mmslip authors'
version = release = __version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
root_doc = 'README'
include_patterns = [
    '*.md',
    'docs/**.md',
    'docs/**.rst',
    'configs/**/README.md',
    'mmslip/**/README.md',
]
exclude_patterns = ['**/.*', 'build', 'dist', 'site', 'work_dirs', 'data', 'tests']

myst_heading_anchors = 4
myst_enable_extensions = ['dollarmath']
suppress_warnings = ['myst.header', 'misc.highlighting_failure']

autodoc_default_options = {'members': True, 'special-members': '__call__'}
autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
autodoc_preserve_defaults = True
napoleon_use_rtype = False

html_theme = 'furo'
html_title = f'mmslip {release}'
html_copy_source = False

# The sidebar: pages in order, by caption. A page of docs/ that is not named here joins the guides.
PAGES = {
    'Start': [
        'docs/tutorial',
        'docs/own_data',
        'docs/data',
        'docs/command',
        'docs/training_step',
    ],
    'Guides': [
        'docs/composition',
        'docs/extend',
        'docs/scaling',
        'docs/faults_and_resume',
        'docs/config_errors',
        'docs/evaluation',
        'docs/inference',
        'docs/finetuning',
        'docs/weights',
    ],
    'Recipes and results': [
        'configs/slip/README',
        'configs/clip/README',
        'configs/simclr/README',
        'configs/benchmarks/README',
        'mmslip/weights/pretrained/README',
        'docs/benchmarks',
        'docs/evidence',
    ],
    'Reference': [
        'docs/README',
        'docs/api/index',
        'CONTRIBUTING',
        'CHANGELOG',
        'mmslip/datasets/data/emoji/README',
        'mmslip/datasets/data/tasks/README',
    ],
}


def add_sidebar(app: Sphinx, name: str, source: list[str]) -> None:
    """Append it to the front page; in README.md itself it would show as text."""
    if name != root_doc:
        return
    named = {page for pages in PAGES.values() for page in pages}
    found = {f'docs/{file.stem}' for file in Path(__file__).parent.glob('*.md')}
    for caption, pages in PAGES.items():
        more = sorted(found - named) if caption == 'Guides' else []
        lines = ['', '```{toctree}', ':hidden:', f':caption: {caption}', '', *pages, *more, '```']
        source[0] += '\n'.join([*lines, ''])


def add_index(app: Sphinx, error: Exception | None) -> None:
    """The front page is README.html by its source, and index.html to a server."""
    if error is None and app.builder.format == 'html':
        shutil.copyfile(Path(app.outdir, 'README.html'), Path(app.outdir, 'index.html'))


def setup(app: Sphinx) -> None:
    """Connect the two."""
    app.connect('source-read', add_sidebar)
    app.connect('build-finished', add_index)
