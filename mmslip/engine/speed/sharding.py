"""Fully sharded training: every process keeps a part of each parameter (PyTorch's FSDP2)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.model import BaseAveragedModel, BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.utils import apply_to
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from mmslip.engine.mmengine_compat import averages_of, follow_parameters, surround_saving
from mmslip.models import SLIP
from mmslip.models.blocks import find_blocks
from mmslip.registry import MODEL_WRAPPERS

__all__ = ['FullyShard', 'distribute_checkpoint', 'is_sharded', 'shard_run']

# Parts that are run by calling them. Heads and self-supervised algorithms are run by their `loss`,
# which FSDP does not see: their parameters are gathered with those of the whole model.
_TOWERS = ('backbone', 'neck', 'text_backbone', 'text_neck')


@MODEL_WRAPPERS.register_module()
class FullyShard(nn.Module):
    """Shard parameters, gradients and optimiser state over all processes, where DDP copies them.

    ``model_wrapper_cfg=dict(type='mmslip.FullyShard')`` in a config is all there is to set; the
    gradient is that of DDP. The model stays whole until training begins, so that it is initialised,
    loaded and resumed as ever; :class:`mmslip.engine.SpeedHook`, a hook of the default runtime,
    then shards it, block by block, and lets checkpoints be written whole. Until then model, and
    when resuming optimiser state, have to fit into each GPU once.

    Args:
        module: The model, set by the Runner.
        param_dtype: Type in which the towers' parameters are gathered and used, such as
            ``'bfloat16'``, which halves the traffic; heads and losses stay in float32. By default
            that of the parameters; ``--amp`` works with it.
        reshard_after_forward: Free a gathered block after its forward pass, and gather it again for
            the backward pass. ``False`` is faster and keeps the gathered model during a step; use
            it together with ``chunk_size``, which runs the towers many times in a step.

    Raises:
        ValueError: The model averages weights within its loss (MoCo v3, BYOL), which shards do not
            allow.

    Source: Zhao et al., arXiv 2304.11277.
    """

    def __init__(
        self,
        module: BaseModel,
        param_dtype: str | None = None,
        reshard_after_forward: bool = True,
    ) -> None:
        super().__init__()
        for name, part in module.named_modules():
            if isinstance(part, BaseAveragedModel):
                raise ValueError(
                    f'mmslip.FullyShard cannot shard {type(module).__name__}.{name}: an average of '
                    'weights that is updated within the loss. Train this method with DDP (leave '
                    'model_wrapper_cfg out).'
                )
        self.module = module
        self.param_dtype = getattr(torch, param_dtype) if param_dtype else None
        self.reshard_after_forward = reshard_after_forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """That of the model."""
        return self.module(*args, **kwargs)

    def train_step(self, data: dict, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """That of the model, on its shards.

        Raises:
            RuntimeError: Nobody has sharded the model.
        """
        if not is_sharded(self.module):
            raise RuntimeError(
                'mmslip.FullyShard needs speed=dict(type="mmslip.SpeedHook") in default_hooks, as '
                'configs/_base_/default_runtime.py has it.'
            )
        return self.module.train_step(data, optim_wrapper)

    def val_step(self, data: dict) -> list:
        """That of the model, which is gathered until :meth:`release`.

        Batches of an evaluation differ between processes: the text tower runs where there are
        captions, and in as many slices as these fill. To gather block by block, all processes have
        to run the same ones.
        """
        self._gather()
        return self.module.val_step(data)

    def test_step(self, data: dict) -> list:
        """As :meth:`val_step`."""
        self._gather()
        return self.module.test_step(data)

    def _gather(self) -> None:
        for part in self._sharded_parts():
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()  # nothing, where it is gathered already

    def release(self) -> None:
        """End an evaluation: parameters are sharded again."""
        for part in self._sharded_parts():
            part.set_reshard_after_forward(self.reshard_after_forward, recurse=False)
            part.reshard()

    def _sharded_parts(self) -> list[FSDPModule]:
        return [part for part in self.module.modules() if isinstance(part, FSDPModule)]

    def shard(self, model: nn.Module, block_types: Sequence[str] = ()) -> None:
        """Shard ``model``, this wrapper's or one of the same structure, in place.

        Args:
            model: A whole model.
            block_types: See :func:`mmslip.models.blocks.find_blocks`; a block is gathered at a
                time.
        """
        device = get_device().split(':')[0]
        shared = dict(
            mesh=init_device_mesh(device, (dist.get_world_size(),)),
            reshard_after_forward=self.reshard_after_forward,
        )
        block_policy = MixedPrecisionPolicy(self.param_dtype, reduce_dtype=torch.float32)
        tower_policy = MixedPrecisionPolicy(
            self.param_dtype, reduce_dtype=torch.float32, output_dtype=torch.float32
        )
        if self.param_dtype is None:
            block_policy = tower_policy = MixedPrecisionPolicy()
        for block in find_blocks(model, block_types).values():
            fully_shard(block, mp_policy=block_policy, **shared)
        for tower in (getattr(model, name, None) for name in _TOWERS):
            if tower is not None:
                fully_shard(tower, mp_policy=tower_policy, **shared)
        fully_shard(model, **shared)


def shard_run(runner: Runner, block_types: Sequence[str] = ()) -> None:
    """Shard the model in a run's :class:`FullyShard`, its averages and its optimiser state.

    Checkpoints of the run are written whole from now on: each is the one that DDP or a single
    process writes, and resumes with any number of processes, sharded or not.
    """
    averages = averages_of(runner)
    models = [runner.model.module, *(average.module for average in averages)]
    optimizer = runner.optim_wrapper.optimizer
    names = {param: name for name, param in models[0].named_parameters()}
    for model in models:
        runner.model.shard(model, block_types)
    for average in averages:
        follow_parameters(average)
    if isinstance(models[0], SLIP):
        # FSDP takes what runs first for the whole model, and a validation before training begins
        # with the text tower. Without input nothing runs, but its own parameters are gathered.
        with torch.no_grad():
            models[0]({}, mode='tensor')
        models[0].reshard()
    params = dict(models[0].named_parameters())
    _replace(optimizer, lambda param: params[names[param]])

    @contextmanager
    def gathered() -> Iterator[None]:
        with ExitStack() as stack:
            for part in (*models, optimizer):
                stack.enter_context(_whole_state(part))
            yield

    surround_saving(runner, gathered)


def distribute_checkpoint(runner: Runner, checkpoint: dict) -> None:
    """Cut a whole checkpoint, in place, for loading it into a run that is sharded already."""
    model = runner.model.module.state_dict()
    for key, prefix in (('state_dict', ''), ('ema_state_dict', 'module.')):
        for name, value in checkpoint.get(key, {}).items():
            like = model.get(name.removeprefix('module.').removeprefix(prefix))
            checkpoint[key][name] = _distribute(value, like)
    if 'optimizer' in checkpoint:
        groups = runner.optim_wrapper.optimizer.param_groups
        params = [param for group in groups for param in group['params']]
        for number, state in checkpoint['optimizer']['state'].items():
            for name, value in state.items():
                state[name] = _distribute(value, params[number])


def is_sharded(model: nn.Module) -> bool:
    """Whether a model's parameters are spread over processes."""
    return any(isinstance(param, DTensor) for param in model.parameters())


def _distribute(value: Any, like: Tensor | None) -> Any:
    """A whole tensor, sharded as ``like``; anything else (a step count, a buffer) as it is."""
    if not isinstance(like, DTensor) or getattr(value, 'shape', None) != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def _replace(optimizer: Optimizer, new: Callable[[nn.Parameter], nn.Parameter]) -> None:
    """Put sharded parameters, and their state, in the place of the whole ones."""
    state = {
        new(param): {name: _distribute(value, new(param)) for name, value in values.items()}
        for param, values in optimizer.state.items()
    }
    for group in optimizer.param_groups:
        group['params'] = [new(param) for param in group['params']]
    optimizer.state.clear()
    optimizer.state.update(state)


@contextmanager
def _whole_state(part: nn.Module | Optimizer) -> Iterator[None]:
    """Within, ``part.state_dict()`` is whole on the main process. All have to enter.

    ``torch.distributed.checkpoint.state_dict`` is not used: it names moments where mmengine's
    checkpoints number them, and lets an optimiser that has no moments yet take a step.
    """

    def gather(value: DTensor) -> Tensor | None:
        whole = value.full_tensor()  # one at a time: a GPU need not hold the whole model
        return whole.cpu() if is_main_process() else None

    whole = apply_to(dict(part.state_dict()), lambda value: isinstance(value, DTensor), gather)

    def fill_in(owner: Any, state: dict, prefix: str = '', *_: Any) -> None:
        state.update({prefix + name: value for name, value in whole.items()})

    handle = part.register_state_dict_post_hook(fill_in)
    try:
        yield
    finally:
        handle.remove()
