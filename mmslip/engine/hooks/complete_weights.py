"""No evaluation of weights that were not loaded."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmslip.registry import HOOKS

__all__ = ['CompleteWeightsHook', 'check_complete']


@HOOKS.register_module()
class CompleteWeightsHook(Hook):
    """Refuse a checkpoint that does not fill the whole model.

    mmengine warns of missing weights and goes on with random ones, whose scores look like those of
    a bad model. ``tools/test.py`` adds this hook; what a checkpoint has beyond the model (a
    self-supervised half, say) is fine.

    Raises:
        ValueError: A weight is missing or of another shape; the message names some.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare names and shapes."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        check_complete(model, checkpoint)


def check_complete(model: nn.Module, checkpoint: dict) -> dict[str, Tensor]:
    """Compare names and shapes of weights with those of a model.

    Args:
        model: What the weights are for.
        checkpoint: Weights by name, or a dict with them as ``state_dict``.

    Returns:
        The weights by name, without the prefix of a wrapper.

    Raises:
        ValueError: A weight is missing or of another shape; the message names some.
    """
    weights = checkpoint.get('state_dict', checkpoint)
    given = {name.removeprefix('module.'): value for name, value in weights.items()}
    wrong = []
    for name, value in model.state_dict().items():
        if name not in given:
            wrong.append(f'{name} is missing')
        elif given[name].shape != value.shape:
            shapes = tuple(given[name].shape), tuple(value.shape)
            wrong.append(f'{name} is {shapes[0]}, not {shapes[1]}')
    if wrong:
        more = f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''
        raise ValueError(
            f'The checkpoint does not fit the model: {"; ".join(wrong[:5])}{more}. Give the '
            'config that the checkpoint was trained with (`--model` of tools/test.py).'
        )
    return given
