"""What ``import mmslip`` changes in mmengine and mmpretrain.

Both take seconds to import, so neither is imported for it: a change is made at once where the
module is there already, and otherwise right after somebody imports it.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from mmslip.shipped import PREFIX, shipped_config

__all__ = ['adapt_others', 'read_shipped_bases', 'switch_off_multimodal']


def adapt_others() -> None:
    """Make the changes below, now or when their modules are imported."""
    changes = {
        'mmengine.config.config': read_shipped_bases,
        'mmpretrain.utils.dependency': switch_off_multimodal,
    }
    later = {name: change for name, change in changes.items() if name not in sys.modules}
    for name in changes.keys() - later.keys():
        changes[name](sys.modules[name])
    sys.meta_path.insert(0, _AfterImport(later))


def read_shipped_bases(module: ModuleType) -> None:
    """Let ``_base_ = ['mmslip::slip/NAME.py']`` mean a config of mmslip, from any folder.

    mmengine knows packages by a list of its own, looks for them where pip has installed them, which
    a checkout is not, and puts the classes in the scope ``mmslip``, where unprefixed names of
    mmpretrain mean nothing. Ours are read like files in a folder nearby: in the scope they state.

    Relies on: ``Config.fromfile`` asks ``Config._get_cfg_path`` for the path and the scope of each
    base.
    """
    config = module.Config
    path_of = config._get_cfg_path

    def path_and_scope(base: str, filename: str) -> tuple[str, str | None]:
        if base.startswith(PREFIX):
            return str(shipped_config(base.removeprefix(PREFIX))), None
        return path_of(base, filename)

    config._get_cfg_path = staticmethod(path_and_scope)


def switch_off_multimodal(module: ModuleType) -> None:
    """Switch off mmpretrain's multimodal models where they would fail to import.

    Where transformers and pycocotools are both installed, mmpretrain 1.2 imports these models; they
    need what transformers 4.56 has dropped, so that ``import mmpretrain.models`` ends with
    ``TypeError: NoneType takes no arguments``. mmslip has no use for them.
    """
    try:
        metadata.version('pycocotools')
        major, minor = map(int, metadata.version('transformers').split('.')[:2])
    except metadata.PackageNotFoundError:
        return
    if (major, minor) >= (4, 56):
        module.WITH_MULTIMODAL = False


class _AfterImport(MetaPathFinder):
    """Calls a function with a module once the module has been imported."""

    def __init__(self, actions: dict[str, Callable[[ModuleType], None]]) -> None:
        self._actions = actions

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the other finders give, with the function after the module's own code."""
        if name not in self._actions:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None:
            execute, action = spec.loader.exec_module, self._actions[name]

            def execute_and_act(module: ModuleType) -> None:
                execute(module)
                action(module)

            spec.loader.exec_module = execute_and_act
        return spec
