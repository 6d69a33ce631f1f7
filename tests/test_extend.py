"""docs/extend.md: a method in a package of its own, as a reader would write it."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.scripts import environment

ROOT = Path(__file__).parents[1]
DOC = ROOT / 'docs' / 'extend.md'
OPTIONS = dict(
    train_dataloader=dict(batch_size=8, num_workers=0, dataset=dict(indices=8)),
    train_cfg=dict(max_epochs=3),  # of one step each; the schedule warms up for two
    default_hooks=dict(logger=dict(interval=1)),
    log_processor=dict(window_size=1),
)


def flat(options: dict, prefix: str = '') -> list[str]:
    """``KEY=VALUE`` of the command line."""
    found = []
    for name, value in options.items():
        key = f'{prefix}{name}'
        found += flat(value, f'{key}.') if isinstance(value, dict) else [f'{key}={value}']
    return found


def test_the_example_is_an_external_plug_in(tmp_path):
    text = DOC.read_text(encoding='utf-8')
    files = dict(re.findall(r'^`([\w/.-]+)`[^\n]*\n\n```\w+\n(.*?)```', text, re.M | re.S))
    package = {'slip-vicreg/pyproject.toml', 'slip-vicreg/slip_vicreg.py'}
    assert files.keys() == package | {'vicreg_emoji.py'}
    assert sum(len(content.splitlines()) for content in files.values()) < 60
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding='utf-8')

    # Aside, so that the environment stays as it is; setuptools and the requirements are there.
    assert 'pip install ./slip-vicreg\n' in text
    site = tmp_path / 'site'
    install = 'pip install --quiet --no-deps --no-index --no-build-isolation ./slip-vicreg --target'
    run = dict(
        cwd=tmp_path,
        check=True,
        env=environment(site),
    )
    subprocess.run([sys.executable, '-m', *install.split(), str(site)], **run)
    assert (site / 'slip_vicreg.py').is_file()

    assert '\nmmslip train vicreg_emoji.py\n' in text
    command = ['-m', 'mmslip', 'train', 'vicreg_emoji.py', '--no-validate', '--work-dir', 'run']
    subprocess.run([sys.executable, *command, '--cfg-options', *flat(OPTIONS)], **run)
    (scalars,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    steps = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert len(steps) == 3
    terms = {f'loss_ssl_{name}' for name in ('invariance', 'variance', 'covariance')}
    for step in steps:
        assert {name for name in step if name.startswith('loss_')} == terms | {'loss_clip'}
        assert 0 < step['loss_ssl_variance'] <= 25  # a hinge of 1, times 25
        assert step['loss_ssl_invariance'] > 0
        assert step['loss_ssl_covariance'] > 0
