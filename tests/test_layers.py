"""The floors of the package: modules import from their own or below, and never in a circle."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / 'mmslip'
# Lowest first. Packages of one line stand beside each other and do not import each other.
FLOORS = [
    ('version', 'shipped', 'plugin', 'registry', 'utils'),
    ('models',),
    ('datasets',),
    ('weights',),
    ('evaluation',),
    ('engine',),
    ('analysis',),
    ('apis',),
    ('cli', '__main__'),
]


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_of(path): path for path in PACKAGE.rglob('*.py')}


def imports_of(path: Path) -> set[str]:
    """Modules of mmslip that a file imports anywhere, inside functions as well."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            members = {f'{node.module}.{alias.name}' for alias in node.names}
            found.update(members & MODULES.keys() or {node.module})
    return found


IMPORTS = {name: imports_of(path) for name, path in MODULES.items()}


def test_imports_are_written_out():
    """Others would not be seen by the tests below."""
    # The package imports what is asked for, and `mmslip COMMAND` the command: both look down only.
    lazy = {'mmslip', 'mmslip.cli'}
    hidden = [
        name
        for name, path in MODULES.items()
        if name not in lazy
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
        if (isinstance(node, ast.ImportFrom) and node.level)
        or (isinstance(node, ast.Name) and node.id in ('import_module', '__import__'))
    ]
    assert not hidden


def floor_of(module: str) -> int:
    part = module.split('.')[1]
    return next(number for number, floor in enumerate(FLOORS) if part in floor)


def test_no_import_goes_up():
    upward = [
        f'{name} -> {target}'
        for name, targets in IMPORTS.items()
        for target in targets
        if '.' in name and '.' in target and floor_of(target) > floor_of(name)
    ]
    assert not upward


def test_no_circle():
    # A package's __init__ collects its modules; they do not import it.
    TopologicalSorter(IMPORTS).prepare()  # raises CycleError, which names the circle


def test_private_names_of_mmengine_stand_in_one_file():
    private = re.compile(r'\b(runner|loop|loader|dataloader|hook|wrapper|scheduler)\._[a-z]\w*')
    found = [
        f'{module}: {match[0]}'
        for module, path in MODULES.items()
        if module != 'mmslip.engine.mmengine_compat'
        for match in private.finditer(path.read_text(encoding='utf-8'))
    ]
    assert not found
