"""Going on from the newest whole checkpoint."""

from collections import deque
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from mmslip.engine.checkpoint import newest_checkpoint
from mmslip.engine.storage import remove_unfinished, wait_for_writes
from mmslip.registry import HOOKS

__all__ = ['AutoResumeHook']


@HOOKS.register_module()
class AutoResumeHook(Hook):
    """Resume from the newest checkpoint that is whole, whatever has become of the last one.

    With ``resume=True`` and no ``load_from``, mmengine takes the file that ``last_checkpoint``
    names, even if it is damaged or missing. This hook finds the newest whole one by
    :func:`mmslip.engine.checkpoint.newest_checkpoint`, on the first process for all of them, and
    starts anew, with a warning, where there is none. It also clears away what a killed run was
    writing, lets several checkpoint hooks (by step and by epoch) each keep a number of their own
    files, and waits for the last checkpoint when training ends.
    """

    # `after_train` is before that of CheckpointHook, which reads what was saved.
    priority = 'LOW'

    def __init__(self) -> None:
        self._resumed = False  # and the files are not counted yet

    def before_run(self, runner: Runner) -> None:
        """Choose the checkpoint; mmengine loads it right after."""
        if not runner._resume or runner._load_from is not None:
            return
        found: list = [None, None]  # checkpoint, error
        if is_main_process():
            try:
                found[0] = newest_checkpoint(_folders(runner.work_dir))
            except RuntimeError as error:
                found[1] = error
        # Every process must go on from the same one, or stop.
        broadcast_object_list(found)
        path, error = found
        if error is not None:
            raise error
        if path is not None:
            runner._load_from = str(path)
        elif '://' not in _last_checkpoint(runner.work_dir):  # mmengine loads that of a store
            runner.logger.warning(
                f'There is no checkpoint in {runner.work_dir} to resume from: training starts anew.'
            )
            runner._resume = False  # mmengine would take what `last_checkpoint` names

    def before_train(self, runner: Runner) -> None:
        """Clear away what is half-written."""
        self._resumed = runner.iter > 0
        if is_main_process():
            for folder in _folders(runner.work_dir):
                remove_unfinished(folder)

    def before_train_epoch(self, runner: Runner) -> None:
        """After a resume, have each CheckpointHook know its own files, once all have started."""
        if not self._resumed:
            return
        self._resumed = False
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook) and hook.max_keep_ckpts > 0:
                _know_files(hook, runner.epoch if hook.by_epoch else runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Wait until the last checkpoint is whole."""
        wait_for_writes()


def _folders(work_dir: str) -> set[Path]:
    """Where checkpoints of a run are: its folder and, with ``out_dir``, that of the last one."""
    folders = {Path(work_dir)}
    if last := _last_checkpoint(work_dir):
        folders.add(Path(last).parent)
    return {folder for folder in folders if folder.is_dir()}


def _last_checkpoint(work_dir: str) -> str:
    """What mmengine has noted, or nothing."""
    note = Path(work_dir, 'last_checkpoint')
    return note.read_text(errors='replace').strip() if note.is_file() else ''


def _know_files(hook: CheckpointHook, step: int) -> None:
    """Let a hook limit the number of the files that are there.

    mmengine saves one list for all hooks, so that after a resume one that saves by step would
    take the numbers of epochs for its own, and leave its earlier files for ever.
    """
    if hook.filename_tmpl.count('{}') != 1 or not Path(hook.out_dir).is_dir():
        return  # formatted numbers, or a store
    before, after = hook.filename_tmpl.split('{}')
    steps = sorted(
        int(number)
        for path in Path(hook.out_dir).glob(f'{before}*{after}')
        if (number := path.name.removeprefix(before).removesuffix(after)).isdecimal()
        and int(number) <= step
    )
    hook.keep_ckpt_ids = deque(steps[-hook.max_keep_ckpts :], hook.max_keep_ckpts)
    if is_main_process():
        for outdated in steps[: -hook.max_keep_ckpts]:
            hook.file_backend.remove(Path(hook.out_dir, hook.filename_tmpl.format(outdated)))
