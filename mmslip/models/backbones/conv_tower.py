"""A small convolutional tower, for small drawings on a CPU."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmslip.registry import MODELS

__all__ = ['ConvTower']


def _norm(channels: int) -> nn.GroupNorm:
    """Norm over eight channels and all places of one image (Wu and He, arXiv 1803.08494).

    Batch norm would average over whole images and over the smaller self-supervised crops, which
    have other statistics, and evaluate with neither.
    """
    return nn.GroupNorm(channels // 8, channels)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al., arXiv 1512.03385)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = _norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = _norm(channels)
        # The block starts as its shortcut (Goyal et al., arXiv 1706.02677).
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        branch = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(branch)))


@MODELS.register_module()
class ConvTower(BaseModule):
    """Residual convolutions that end in a vector which knows where things are.

    The first stage begins with patches, as a ViT does; every further stage halves the map and
    doubles the channels. The last map is brought to ``grid x grid`` places and goes through one
    matrix: a drawing is centred, so the place of a feature tells as much as the feature, and a mean
    over places would forget it.

    Args:
        width: Channels of the first stage, a multiple of 8.
        patch_size: Side of a patch in pixels.
        num_stages: Number of stages.
        num_blocks: Residual blocks of each stage.
        grid: Places along each side of the last map, to which larger maps are averaged. Smaller
            self-supervised views give a smaller map, which is repeated.
        out_channels: Width ``C`` of the feature.
        init_cfg: mmengine's initialisation config.

    Raises:
        ValueError: ``width`` is no multiple of 8.
    """

    def __init__(
        self,
        width: int = 64,
        patch_size: int = 4,
        num_stages: int = 2,
        num_blocks: int = 1,
        grid: int = 4,
        out_channels: int = 256,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if width % 8:
            raise ValueError(f'width={width} is no multiple of 8, the channels of a group norm.')
        self.grid = grid
        widths = [width * 2**stage for stage in range(num_stages)]
        entries = [
            nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False),
            *(
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
                for before, after in pairwise(widths)
            ),
        ]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    entry,
                    _norm(channels),
                    nn.ReLU(),
                    *(ResidualBlock(channels) for _ in range(num_blocks)),
                )
                for entry, channels in zip(entries, widths, strict=True)
            )
        )
        self.fc = nn.Linear(widths[-1] * grid**2, out_channels, bias=False)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, and the number of depths, as mmpretrain's backbones count them.

        The patch convolution has depth 0, stage ``i`` has ``i + 1``, the last matrix the largest.
        """
        number = len(self.stages) + 2
        part, *places = param_name.removeprefix(prefix).split('.')
        if part != 'stages':
            return number - 1, number
        return (0 if places[:2] == ['0', '0'] else int(places[0]) + 1), number

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Encode images.

        Args:
            x: ``(B, 3, H, W)``.

        Returns:
            One-tuple of the features ``(B, C)``.
        """
        # CPUs and tensor cores convolve fastest with the channels last in memory.
        x = self.stages(x.contiguous(memory_format=torch.channels_last))  # (B, C', h, w)
        x = F.adaptive_avg_pool2d(x, self.grid)  # (B, C', grid, grid)
        return (self.fc(x.flatten(1)),)  # (B, C)
