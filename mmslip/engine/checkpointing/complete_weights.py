"""No evaluation of weights that were not loaded."""

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmslip.engine.unwrap import unwrap
from mmslip.registry import HOOKS
from mmslip.weights.fit import fit_weights

__all__ = ['CompleteWeightsHook', 'check_complete']


@HOOKS.register_module()
class CompleteWeightsHook(Hook):
    """Refuse a checkpoint that does not fill the whole model.

    mmengine warns of missing weights and goes on with random ones, whose scores look like those of
    a bad model. ``mmslip test`` adds this hook; what a checkpoint has beyond the model (a
    self-supervised half, say) is fine.

    Raises:
        ValueError: A weight is missing or of another shape; the message names some.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare names and shapes."""
        model = unwrap(runner.model)
        check_complete(model, checkpoint)


def check_complete(model: nn.Module, checkpoint: dict) -> dict[str, Tensor]:
    """Compare names and shapes of weights with those of a model.

    Args:
        model: What the weights are for.
        checkpoint: Weights by name, or a dict with them as ``state_dict``.

    Returns:
        The weights under the names of the model.

    Raises:
        ValueError: A weight is missing or of another shape; the message names some.
    """
    fit = fit_weights(checkpoint.get('state_dict', checkpoint), model)
    shapes = {**fit.resized, **fit.other_shape}
    wrong = [f'{name} is missing' for name in fit.missing]
    wrong += [f'{name} is {found}, not {wanted}' for name, (found, wanted) in shapes.items()]
    if wrong:
        more = f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''
        raise ValueError(
            f'The checkpoint does not fit the model: {"; ".join(wrong[:5])}{more}. Give the '
            'config that the checkpoint was trained with (`--model` of mmslip test).'
        )
    return fit.weights
