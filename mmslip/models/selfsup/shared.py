"""How a self-supervised method runs on the backbone of SLIP, and what each method needs for it."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmpretrain.structures import DataSample
from torch import Tensor, nn

__all__ = ['METHODS', 'MethodNeeds', 'SharedBackbone', 'needs_of', 'selfsup_loss']


class SharedBackbone(nn.Module):
    """Stands for ``owner.backbone`` inside a self-supervised method.

    It asks its owner at every call, so that a backbone which is wrapped or replaced later is the
    one that the method runs. The backbone's parameters stay the owner's: in the state dict they
    have one name. Methods that average weights (MoCo, BYOL) read the parameters through this
    reference, and a deep copy of it alone is a copy of the backbone itself; they follow parameters
    by name, so a backbone that replaces another later has to keep the names of its parameters.

    Args:
        owner: The model; has ``backbone``.
    """

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self.owner = (owner,)  # in a tuple: as an attribute it would be registered as a child

    @property
    def backbone(self) -> nn.Module:
        """The owner's backbone as it is now."""
        return self.owner[0].backbone

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the backbone."""
        return self.backbone(*args, **kwargs)

    def init_weights(self) -> None:
        """Nothing: the owner initialises its backbone."""

    def named_modules(
        self, memo: set | None = None, prefix: str = '', remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Those of the backbone, from which PyTorch reads parameters and buffers."""
        return self.backbone.named_modules(memo, prefix, remove_duplicate)

    def __getattr__(self, name: str) -> Any:
        if 'owner' not in self.__dict__ or '_modules' not in self.__dict__:  # being copied
            return super().__getattr__(name)
        return getattr(self.backbone, name)

    def __deepcopy__(self, memo: dict) -> nn.Module:
        (owner,) = self.owner
        if id(owner) in memo:  # copied as a part of its owner
            return SharedBackbone(memo[id(owner)])
        return copy.deepcopy(self.backbone, memo)


@dataclass(frozen=True)
class MethodNeeds:
    """Input that the ``loss`` of a self-supervised method takes.

    A method of one's own states it as a class attribute ``needs``; without, it takes two views.

    Args:
        views: Views of each image, one or more.
        mask: Whether it takes a mask of patches with each image.
        backbones: Classes that the backbone has to be of, one of them; any, if there is none.
        reason: Why it has to be one of these; or, with ``works=False``, why the method will not do.
        works: Whether the method can share the backbone of SLIP.
        reads_pixels: Whether anything but the backbone, or a copy of it, reads the views; if not,
            a backbone in slices gets them as :class:`mmslip.models.chunks.ByteImages`.
    """

    views: int = 2
    mask: bool = False
    backbones: tuple[str, ...] = ()
    reason: str = ''
    works: bool = True
    reads_pixels: bool = True


def _refused(reason: str) -> MethodNeeds:
    return MethodNeeds(works=False, reason=reason)


_TWO_VIEWS = MethodNeeds(reads_pixels=False)
_MASKS_ITSELF = 'that masks patches and returns which'
_REPLACES = 'that puts a learned token in the place of masked patches'
_CLIP_TARGET = (
    'its targets come from the published weights of another image-text model, in a form that '
    'mmpretrain loads as code'
)

# The methods of mmpretrain 1.2; what is not listed is refused.
METHODS = dict(
    BYOL=_TWO_VIEWS,
    BarlowTwins=_TWO_VIEWS,
    MoCo=MethodNeeds(),  # shuffles the views over the processes
    MoCoV3=_TWO_VIEWS,
    SimSiam=_TWO_VIEWS,
    MAE=MethodNeeds(1, backbones=('MAEViT', 'MAEHiViT'), reason=_MASKS_ITSELF),
    SimMIM=MethodNeeds(1, True, ('SimMIMSwinTransformer',), _REPLACES),
    MaskFeat=MethodNeeds(1, True, ('MaskFeatViT',), _REPLACES),
    BEiT=MethodNeeds(2, True, ('BEiTPretrainViT',), _REPLACES),
    SimCLR=_refused(
        'its gradient is divided by the number of processes: write mmslip.SimCLR, with the prefix'
    ),
    EVA=_refused(_CLIP_TARGET),
    MILAN=_refused(_CLIP_TARGET),
)


def needs_of(method: type, backbone: nn.Module) -> MethodNeeds:
    """Look up what a method needs: its own ``needs``, else the table, by class and base classes.

    Args:
        method: Class of the method.
        backbone: The backbone that it is to run on.

    Raises:
        ValueError: The method cannot share the backbone of SLIP, or not this one.
    """
    needs = next((found for cls in method.__mro__ if (found := _stated(cls))), MethodNeeds())
    if not needs.works:
        works = ', '.join(name for name, needs in METHODS.items() if needs.works)
        raise ValueError(
            f'ssl.type={method.__name__!r} does not work as the self-supervised half of SLIP: '
            f'{needs.reason}. These do: mmslip.SimCLR, {works}.'
        )
    classes = {cls.__name__ for cls in type(backbone).__mro__}
    if needs.backbones and classes.isdisjoint(needs.backbones):
        raise ValueError(
            f'ssl.type={method.__name__!r} needs a backbone of type '
            f'{" or ".join(needs.backbones)}, {needs.reason}; {type(backbone).__name__} '
            'does not: take such a backbone, or a method of two views.'
        )
    return needs


def _stated(cls: type) -> MethodNeeds | None:
    """Needs that a class itself states, or that are known of it; not of its base classes."""
    if 'needs' in vars(cls):
        return cls.needs
    if not cls.__module__.startswith('mmpretrain.models.selfsup.'):
        return None
    if cls.__name__ == 'BaseSelfSupervisor':
        return MethodNeeds()  # the base of one's own methods
    return METHODS.get(cls.__name__, _refused('mmslip does not know what it needs'))


def selfsup_loss(method: nn.Module, needs: MethodNeeds, inputs: dict) -> dict[str, Tensor]:
    """Losses of a self-supervised method on a batch.

    Args:
        method: Has ``loss(views, data_samples)``, as the methods of mmpretrain.
        needs: Of :func:`needs_of`.
        inputs: ``views``, a list of ``(B, 3, h, w)``; and ``mask`` ``(B, ...)``, if it is needed.

    Raises:
        KeyError: The batch has no mask, and the method needs it.
        ValueError: There are more or fewer views than the method takes.
    """
    views, name = inputs['views'], type(method).__name__
    if len(views) != needs.views:
        raise ValueError(
            f'ssl.type={name!r} takes {needs.views} view{"s" * (needs.views > 1)} of an image, and '
            f'the pipeline makes {len(views)}: let the number of self-supervised views agree.'
        )
    samples = None
    if needs.mask:
        if 'mask' not in inputs:
            raise KeyError(
                f"ssl.type={name!r} needs a mask with each image: add mmpretrain's "
                'SimMIMMaskGenerator or BEiTMaskGenerator to the pipeline, in front of '
                'mmslip.PackSLIPInputs.'
            )
        samples = [DataSample(mask=mask) for mask in inputs['mask']]
    return method.loss(views if len(views) > 1 else views[0], samples)
