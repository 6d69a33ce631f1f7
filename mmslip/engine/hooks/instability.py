"""Steps that would ruin the model: left out, undone, and in the end stopped."""

import math
from collections.abc import Mapping

import torch
from mmengine.dist import all_reduce, barrier, broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from mmslip.engine.checkpointing.find import folders_of, whole_checkpoints
from mmslip.engine.checkpointing.stop import save_before_stopping
from mmslip.engine.checkpointing.storage import wait_for_writes
from mmslip.engine.mmengine_compat import restoring_averages, resume_requested
from mmslip.engine.unwrap import unwrap
from mmslip.registry import HOOKS
from mmslip.weights.safe import load_checkpoint_file

__all__ = ['InstabilityHook']


@HOOKS.register_module()
class InstabilityHook(Hook):
    """Skip non-finite steps, roll back from spikes of the loss, and stop where that does not help.

    *Non-finite.* If the loss or the norm of the gradients is infinite or not a number, the
    optimiser leaves out the step: parameters, moments, step counts and weight decay are as if the
    batch had not been, and so are the model's buffers (running statistics of batch norm). With
    ``accumulative_counts`` the whole accumulated step is left out. All processes agree, because a
    bad loss is turned into bad gradients, which they share. ``skipped_steps`` in the log counts.
    A float16 gradient scaler does the skipping itself; this hook counts and cares for the buffers.

    *Spikes.* With ``max_rise``, a smoothed loss that is so much above the lowest it has been makes
    the run go back to the newest checkpoint saved before the rise: model, optimiser, scaler and
    averaged weights. Steps, schedules and data go on, so that the batches of the rise do not come
    again in this epoch and the run ends when it would have. The run stops if it has no such
    checkpoint. ``rollbacks`` in the log counts.

    Whatever the number of steps, healthy ones are computed bit for bit as without this hook, and
    the host does not wait for the device, except every ``interval`` steps, for the counts, and
    with optimisers that are not ``fused=True``. Counts and smoothed loss are those of all
    processes, and go on with a resumed run.

    Args:
        max_in_a_row: Skipped steps, one after another, that stop the run; so does a run that ends
            without a step that was not skipped.
        max_skipped: Skipped steps in all that stop the run.
        max_rise: Rise of the smoothed loss, in the units of the loss, that counts as a spike; None
            for never. Losses differ too much for one default: 1.0 (nats) suits the contrastive
            losses.
        max_rollbacks: Spikes that are rolled back; the next one stops the run.
        smoothing: Steps over which the loss is averaged, exponentially.
        interval: Steps between two looks at the counts and the smoothed loss; the bounds of skipped
            steps, where they are lower, are kept to. The last step is looked at as well.

    Raises:
        ValueError: A number is not of the kind that is asked for.
        RuntimeError: The run was stopped; the message says why and what to try. Its state is in
            ``stopped.pth`` of the work folder.
    """

    # Between 'LOW' and 'VERY_LOW': when averages, schedules and the place in the data have been
    # brought up to date, and nothing is saved yet.
    priority = 80

    def __init__(
        self,
        max_in_a_row: int = 20,
        max_skipped: int = 200,
        max_rise: float | None = None,
        max_rollbacks: int = 3,
        smoothing: int = 50,
        interval: int = 10,
    ) -> None:
        whole = dict(
            max_in_a_row=(max_in_a_row, 1),
            max_skipped=(max_skipped, 1),
            max_rollbacks=(max_rollbacks, 0),
            smoothing=(smoothing, 1),
            interval=(interval, 1),
        )
        for name, (value, least) in whole.items():
            if type(value) is not int or value < least:
                raise ValueError(
                    f'InstabilityHook: {name} must be a whole number from {least}, not {value!r}.'
                )
        if max_rise is not None and not 0 < max_rise < math.inf:
            raise ValueError(
                f'InstabilityHook: max_rise must be a number above 0, or None, not {max_rise!r}.'
            )
        self.max_in_a_row, self.max_skipped = max_in_a_row, max_skipped
        self.max_rise, self.max_rollbacks = max_rise, max_rollbacks
        self.smoothing = smoothing
        self.interval = min(interval, max_in_a_row, max_skipped)
        self._loaded: dict[str, float] = {}
        self._watch: _Watch | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take up the counts of the run that is resumed."""
        self._loaded = checkpoint.get('instability', {}) if resume_requested(runner) else {}

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the counts, and by how much the loss has risen."""
        if self._watch is not None:
            checkpoint['instability'] = self._watch.state_dict()

    def before_train(self, runner: Runner) -> None:
        """Watch model and optimiser."""
        model = unwrap(runner.model)
        scaled = hasattr(runner.optim_wrapper, 'loss_scaler')
        self._watch = _Watch(model, self.smoothing, scaled)
        self._watch.load_state_dict(self._loaded)
        self._handles = [
            model.register_forward_hook(_spread_bad_loss),
            runner.optim_wrapper.optimizer.register_step_pre_hook(self._watch.before_step),
        ]

    def after_train(self, runner: Runner) -> None:
        """Let go of them."""
        for handle in self._handles:
            handle.remove()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Count, and every few steps look at the counts."""
        watch = self._watch
        if runner.optim_wrapper.should_update():
            watch.after_step()
        if self.max_rise is not None:
            watch.follow(outputs['loss'])
        is_last = runner.iter + 1 == runner.max_iters
        if (runner.iter + 1) % self.interval and not is_last:
            return
        state = watch.state_dict()
        for name, key in (('skipped_steps', 'skipped'), ('rollbacks', 'rollbacks')):
            if state[key]:
                runner.message_hub.update_scalar(f'train/{name}', int(state[key]))
        in_vain = is_last and not state['taken']
        if (
            in_vain
            or state['in_a_row'] >= self.max_in_a_row
            or state['skipped'] >= self.max_skipped
        ):
            self._stop(
                runner,
                f'{int(state["skipped"])} steps had a non-finite loss or gradient, the last '
                f'{int(state["in_a_row"])} of them in a row. Look at the data (bad_samples.jsonl), '
                'lower the learning rate, or use --amp bf16 instead of fp16; raise max_skipped or '
                'max_in_a_row of InstabilityHook to go on as it is',
            )
        if self.max_rise is not None and state['mean'] > state['lowest'] + self.max_rise:
            self._roll_back(runner, state)

    def _roll_back(self, runner: Runner, state: dict[str, float]) -> None:
        step = runner.iter + 1
        spike = f'loss {state["mean"]:.3f} at step {step} (lowest: {state["lowest"]:.3f})'
        advice = 'lower the learning rate, lengthen the warm-up or clip gradients (clip_grad)'
        if state['rollbacks'] >= self.max_rollbacks:
            rollbacks = f'after {int(state["rollbacks"])} rollbacks'
            self._stop(runner, f'The loss rises again {rollbacks}: {spike}. {advice}')
        found = [self._last_good(runner) if is_main_process() else None]
        broadcast_object_list(found)
        if found[0] is None:
            self._stop(runner, f'No checkpoint from before the rise is left: {spike}. {advice}')
        with restoring_averages(runner):
            checkpoint = runner.load_checkpoint(found[0], map_location='cpu', strict=True)
        barrier()  # before the first process saves this step, and removes the file
        # The schedules have gone on, and learning rates are theirs.
        current = runner.optim_wrapper.state_dict()
        settings = {key: value for key, value in current.items() if key != 'state'}
        settings.pop('loss_scaler', None)
        runner.optim_wrapper.load_state_dict({**checkpoint['optimizer'], **settings})
        runner.optim_wrapper.zero_grad()  # what the risen loss may have accumulated
        counts = dict(skipped=state['skipped'], rollbacks=state['rollbacks'] + 1)
        self._watch.load_state_dict({**checkpoint['instability'], **counts})
        runner.logger.warning(
            f'Rolled back: {spike}; weights and optimiser are those of {found[0]}, step '
            f'{checkpoint["meta"]["iter"]}; the data goes on.'
        )

    def _last_good(self, runner: Runner) -> str | None:
        """The newest checkpoint in which the loss had risen by less than half the bound."""
        wait_for_writes()
        for path in whole_checkpoints(folders_of(runner.work_dir)):
            checkpoint = load_checkpoint_file(path)
            state = checkpoint.get('instability')
            # Later steps are those of another run in the same folder.
            ours = state is not None and checkpoint['meta']['iter'] <= runner.iter
            if ours and state['mean'] <= state['lowest'] + self.max_rise / 2:
                return str(path)
        return None

    def _stop(self, runner: Runner, reason: str) -> None:
        raise RuntimeError(f'{reason}. The state is saved in {save_before_stopping(runner, True)}.')


class _Watch:
    """Counts and the smoothed loss, kept on the device, and the last good buffers.

    Args:
        model: The model, not wrapped.
        smoothing: Steps over which the loss is averaged.
        scaled: A gradient scaler judges the gradients.
    """

    names = ('skipped', 'in_a_row', 'rollbacks', 'mean', 'lowest', 'taken')

    def __init__(self, model: nn.Module, smoothing: int, scaled: bool) -> None:
        self.smoothing, self.scaled = smoothing, scaled
        self.buffers = list(model.buffers())
        self.good_buffers = [buffer.clone() for buffer in self.buffers]
        device = next(model.parameters()).device
        self.state = torch.zeros(len(self.names), device=device)
        self.bad: Tensor | None = None  # whether the step under way is skipped

    def state_dict(self) -> dict[str, float]:
        return dict(zip(self.names, self.state.tolist(), strict=True))

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        start = dict(skipped=0, in_a_row=0, rollbacks=0, mean=math.nan, lowest=math.inf, taken=0)
        values = {**start, **state}
        self.state.copy_(torch.tensor([values[name] for name in self.names]))
        for good, buffer in zip(self.good_buffers, self.buffers, strict=True):
            good.copy_(buffer)

    @torch.no_grad()
    def before_step(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        """Judge the gradients, and have the optimiser leave out a bad step."""
        if self.scaled:
            # Fused optimisers are told by the scaler, others called for good steps only.
            bad = getattr(optimizer, 'found_inf', self.state.new_zeros(())) > 0
        else:
            groups = optimizer.param_groups
            grads = [param.grad for group in groups for param in group['params']]
            bad = _is_bad([grad for grad in grads if grad is not None])
            if getattr(optimizer, '_step_supports_amp_scaling', False):
                optimizer.found_inf = bad.float()  # how a gradient scaler tells a fused optimiser
            elif bad:
                optimizer.zero_grad(set_to_none=True)
        self._restore_buffers(bad)
        for good, buffer in zip(self.good_buffers, self.buffers, strict=True):
            good.copy_(buffer)
        self.bad = bad

    @torch.no_grad()
    def after_step(self) -> None:
        """Count the step that has ended, or that a gradient scaler has not even begun."""
        if self.bad is None:
            self.bad = torch.ones_like(self.state[0], dtype=torch.bool)
            self._restore_buffers(self.bad)
        skipped, in_a_row, taken = self.state[0], self.state[1], self.state[5]
        skipped.add_(self.bad)
        in_a_row.add_(1).mul_(self.bad)
        taken.add_(~self.bad)
        self.bad = None

    def follow(self, loss: Tensor) -> None:
        """Take the loss of a step, the mean over processes, into the smoothed one, if finite."""
        loss = loss.detach().float().clone()
        all_reduce(loss, op='mean')  # in every step, so that any checkpoint holds the same
        mean, lowest = self.state[3], self.state[4]
        new = torch.where(mean.isnan(), loss, mean + (loss - mean) / self.smoothing)
        mean.copy_(torch.where(loss.isfinite(), new, mean))
        lowest.copy_(torch.fmin(lowest, mean))

    def _restore_buffers(self, bad: Tensor) -> None:
        for good, buffer in zip(self.good_buffers, self.buffers, strict=True):
            buffer.copy_(torch.where(bad, good, buffer))


def _is_bad(grads: list[Tensor]) -> Tensor:
    """Whether the norm of gradients is not finite, a boolean on their device."""
    norm = torch.nn.utils.get_total_norm(grads)
    if hasattr(norm, 'full_tensor'):
        norm = norm.full_tensor()  # of gradients that are sharded over processes
    return ~norm.isfinite()


def _spread_bad_loss(
    model: nn.Module, args: tuple, output: Mapping[str, Tensor | list[Tensor]]
) -> Mapping[str, Tensor | list[Tensor]] | None:
    """Forward hook: give a loss that is not finite a gradient that is not finite either."""
    if not model.training or not isinstance(output, Mapping):
        return None
    losses = {name: value for name, value in output.items() if 'loss' in name}
    for name, value in losses.items():
        losses[name] = list(map(_spread, value)) if isinstance(value, list) else _spread(value)
    return {**output, **losses}


def _spread(loss: Tensor) -> Tensor:
    # Times 1, which changes no bit, or times not-a-number.
    one, nan = loss.new_ones(()), loss.new_full((), math.nan)
    return loss * torch.where(loss.detach().isfinite(), one, nan)
