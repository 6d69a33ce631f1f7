"""Configs that come with mmslip, found by their names from any folder."""

from difflib import get_close_matches
from functools import cache
from pathlib import Path

__all__ = ['PREFIX', 'SHIPPED', 'find_config', 'shipped_config']

PREFIX = 'mmslip::'
_PACKAGE = Path(__file__).parent
# Folder of `configs` and `model-index.yml`: `.mim` in an installed package, where OpenMMLab's mim
# looks for them, and the checkout otherwise.
SHIPPED = next(
    folder
    for folder in (_PACKAGE / '.mim', _PACKAGE.parent)
    if (folder / 'model-index.yml').is_file()
)


def find_config(config: str | Path) -> Path:
    """The file of a config, given as a user does.

    Args:
        config: Path of a file; or the name of a config that comes with mmslip, such as
            ``slip_tiny_emoji`` or, where several bear it, ``finetune/vit-b16_in1k``; or
            ``mmslip::`` and its path, as in ``_base_``.

    Raises:
        FileNotFoundError: There is no such config.
        ValueError: Several configs of mmslip have the name.
    """
    if Path(config).is_file():
        return Path(config)
    name = str(config)
    if name.startswith(PREFIX):
        return shipped_config(name.removeprefix(PREFIX))
    # Of several, an experiment comes before a benchmark, which lies in a deeper folder.
    found = [path for path in _experiments() if f'/{path}'.endswith(f'/{name}.py')]
    found = [path for path in found if path.count('/') == min(path.count('/') for path in found)]
    if not found:
        raise FileNotFoundError(f'There is no config {name}{_hint(name)}')
    if len(found) > 1:
        both = ' or '.join(PREFIX + path for path in found)
        raise ValueError(f'Several configs are called {name}: give {both}.')
    return SHIPPED / 'configs' / found[0]


def shipped_config(path: str) -> Path:
    """The file of ``path``, such as ``slip/slip_tiny_emoji.py``, in mmslip's folder of configs.

    Raises:
        FileNotFoundError: There is no such config.
    """
    file = SHIPPED / 'configs' / path
    if not file.is_file():
        raise FileNotFoundError(f'There is no config {PREFIX}{path}{_hint(path)}')
    return file


@cache
def _experiments() -> list[str]:
    """Paths of all configs that are whole, below their folder."""
    folder = SHIPPED / 'configs'
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob('*.py'))
    return sorted(path for path in paths if not path.startswith('_base_/'))


def _hint(name: str) -> str:
    """End of a message on a missing config: one of mmslip with a name like it."""
    stems = {Path(path).stem: path for path in _experiments()}
    like = get_close_matches(Path(name).stem, stems, n=1, cutoff=0.7)
    if not like:
        return ': neither a file, nor the name of one of mmslip, such as slip_tiny_emoji.'
    return f'; is {like[0]} meant, which comes with mmslip as {PREFIX}{stems[like[0]]}?'
