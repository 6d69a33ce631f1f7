"""Weights of another run or library: their names fitted to the model, and a word on the rest."""

import logging

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmslip.engine.mmengine_compat import checkpoint_to_load
from mmslip.engine.unwrap import unwrap
from mmslip.registry import HOOKS
from mmslip.weights.fit import fit_weights
from mmslip.weights.stated import require_stated

__all__ = ['LoadReportHook']


@HOOKS.register_module()
class LoadReportHook(Hook):
    """Say what a checkpoint fills, in a short table, and refuse one that fills nothing.

    mmengine goes on with random weights and one long line. Names are fitted first: prefixes of
    ``torch.compile``, DDP, Lightning and others are taken off, see
    :func:`mmslip.weights.fit.fit_weights`. Weights that say what they were trained with, as those
    of published models do, are refused by a model with another activation or mean.

    Raises:
        ValueError: Not one weight fits, or the model has other settings.
    """

    priority = 'VERY_HIGH'  # the other hooks (averages, sharding) look weights up by name

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Rename, report."""
        model = unwrap(runner.model)
        fit = fit_weights(checkpoint.get('state_dict', checkpoint), model)
        source = checkpoint_to_load(runner) or 'the checkpoint'
        fit.require_some(source)
        if checkpoint.get('spec') is not None:
            require_stated(checkpoint['spec'], model, source)
        checkpoint['state_dict'] = fit.weights
        level = logging.INFO if fit.exact else logging.WARNING
        runner.logger.log(level, f'Checkpoint: {fit.report()}')
