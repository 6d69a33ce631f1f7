"""Going on from the newest whole checkpoint."""

from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner

from mmslip.engine.checkpointing.find import (
    folders_of,
    newest_checkpoint,
    next_session,
    noted_checkpoint,
    read_checkpoint,
)
from mmslip.engine.checkpointing.fit import check_fit
from mmslip.engine.checkpointing.lock import lock_work_dir, unlock_work_dir
from mmslip.engine.checkpointing.resume_data import step_in_data
from mmslip.engine.checkpointing.settings import settings_of, take_settings
from mmslip.engine.checkpointing.storage import remove_unfinished, wait_for_writes
from mmslip.engine.mmengine_compat import (
    averages_of,
    checkpoint_to_load,
    resume_requested,
    set_kept_checkpoints,
    set_resume,
)
from mmslip.engine.unwrap import unwrap
from mmslip.registry import HOOKS

__all__ = ['AutoResumeHook']


@HOOKS.register_module()
class AutoResumeHook(Hook):
    """Go on from the latest checkpoint that is whole, with the settings of the config.

    With ``resume=True`` and no ``load_from``, mmengine takes the file that ``last_checkpoint``
    names, even if it is damaged or missing. This hook finds the latest whole one by
    :func:`whole_checkpoints`, on the first process for all of them, and starts anew, with a
    warning, where there is none. Before anything is loaded it compares names and shapes with those
    of the run (:func:`check_fit`); what has changed in the config then takes the place of what was
    saved (:func:`take_settings`).

    It also locks the work folder against a second run, clears away what a killed run was writing,
    lets several checkpoint hooks (by step and by epoch) each keep a number of their own files, and
    waits for the last checkpoint when training ends.
    """

    # `before_run` is after that of EMAHook, which builds the averaged model; `after_train` is
    # before that of CheckpointHook, which reads what was saved.
    priority = 'LOW'

    def __init__(self) -> None:
        self._resumed = False  # and the files are not counted yet
        self._begun = False
        self._session = 0
        self._settings: dict | None = None

    def before_run(self, runner: Runner) -> None:
        """Lock the folder, choose the checkpoint and compare it; mmengine loads it right after."""
        training = isinstance(runner.optim_wrapper, OptimWrapper)  # otherwise not built
        if training and not isinstance(runner.optim_wrapper, OptimWrapperDict):
            self._settings = settings_of(runner, unwrap(runner.model))
        found: list = [None, None]  # checkpoint, error
        if is_main_process():
            folders = folders_of(runner.work_dir)
            try:
                if training:
                    lock_work_dir(runner.work_dir)
                    self._session = next_session(folders)
                if resume_requested(runner):
                    found[0] = checkpoint_to_load(runner) or newest_checkpoint(folders)
                if found[0] is not None and self._settings and '://' not in str(found[0]):
                    check_fit(runner, read_checkpoint(found[0]), found[0])
            except Exception as error:  # the others would wait for ever
                found[1] = error
        # Every process must go on from the same one, or stop.
        broadcast_object_list(found)
        path, error = found
        if error is not None:
            raise error
        if not resume_requested(runner):
            return
        if path is not None:
            set_resume(runner, str(path))
        elif '://' not in noted_checkpoint(runner.work_dir):  # mmengine loads that of a store
            runner.logger.warning(
                f'There is no checkpoint in {runner.work_dir} to resume from: training starts anew.'
            )
            set_resume(runner, None)  # mmengine would take what `last_checkpoint` names

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Have the settings of the config."""
        if self._begun or not resume_requested(runner) or self._settings is None:
            return  # a rollback, or weights alone
        if '://' in (path := str(checkpoint_to_load(runner))):
            check_fit(runner, checkpoint, path)
        if 'ema_state_dict' in checkpoint and not averages_of(runner):
            # EMAHook had put the average into the model's place.
            for name, value in checkpoint['ema_state_dict'].items():
                if name.startswith('module.'):
                    checkpoint['state_dict'][name.removeprefix('module.')] = value
            runner.logger.warning(
                'Resumed without EMAHook: the averaged weights of the checkpoint are left out.'
            )
        take_settings(runner, checkpoint, self._settings, step_in_data(runner, checkpoint))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note the session, and the settings that the states belong to."""
        checkpoint['meta']['session'] = self._session
        if self._settings is not None:
            checkpoint['meta']['settings'] = self._settings

    def before_train(self, runner: Runner) -> None:
        """Clear away what is half-written."""
        self._begun = True
        self._resumed = runner.iter > 0
        if is_main_process():
            for folder in folders_of(runner.work_dir):
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

    def after_run(self, runner: Runner) -> None:
        """Let other runs into the folder."""
        if is_main_process():
            unlock_work_dir(runner.work_dir)


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
    set_kept_checkpoints(hook, steps)
    if is_main_process():
        for outdated in steps[: -hook.max_keep_ckpts]:
            hook.file_backend.remove(Path(hook.out_dir, hook.filename_tmpl.format(outdated)))
