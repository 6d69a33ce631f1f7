"""A tiny model in files, and images."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.utils import progress

from mmslip.apis import init_model
from mmslip.models import SLIP
from tests.conftest import draw_shape

CONFIG = """
model = dict(
    type='mmslip.SLIP',
    backbone=dict(
        type='mmslip.VisionTransformer',
        arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
        img_size=32,
        patch_size=16,
    ),
    neck=dict(type='mmslip.LinearProjection', in_channels=32, out_channels=16),
    text_backbone=dict(
        type='mmslip.TextTransformer', context_length=16, width=32, num_layers=1, num_heads=2
    ),
    text_neck=dict(type='mmslip.LinearProjection', in_channels=32, out_channels=16),
    head=dict(type='mmslip.CLIPHead'),
    ssl=dict(
        type='mmslip.SimCLR',
        neck=dict(type='NonLinearNeck', in_channels=32, hid_channels=16, out_channels=8,
                  with_avg_pool=False, norm_cfg=dict(type='BN1d')),
        head=dict(type='mmslip.SimCLRHead'),
    ),
)
"""  # without a test pipeline: the default one, of 32 pixels, is used


@pytest.fixture(autouse=True)
def _no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, 'disable_progress_bar', True)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A config, and a checkpoint as training writes it, with the self-supervised half."""
    from mmslip.registry import MODELS

    config, checkpoint = tmp_path / 'config.py', tmp_path / 'weights.pth'
    config.write_text(CONFIG)
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    torch.manual_seed(1)
    for parameter in model.parameters():  # all of them, those that start at 0, too
        parameter.data.normal_(std=0.3)
    model.head.logit_scale.data.fill_(1.0)
    torch.save(dict(meta=dict(epoch=1), state_dict=model.state_dict()), checkpoint)
    return config, checkpoint


@pytest.fixture
def model(files: tuple[Path, Path]) -> SLIP:
    return init_model(*files)


def draw_images(folder: Path, numbers: range | list[int]) -> Path:
    """Write ``NN.png`` of different content."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        cv2.imwrite(str(folder / f'{number:02d}.png'), draw_shape(number))
    return folder


def reference_pixels(path: Path) -> torch.Tensor:
    """Pixels of an image that the towers should see, ``(1, 3, 32, 32)``, by other code."""
    from PIL import Image
    from torchvision.transforms import functional as tv

    image = Image.open(path).convert('RGB')
    image = tv.center_crop(tv.resize(image, 32, tv.InterpolationMode.BILINEAR), [32, 32])
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    return ((pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))[None]


@torch.no_grad()
def reference_feat(model: SLIP, path: Path) -> torch.Tensor:
    """The normalised embedding of an image ``(D,)``, by other code than the inferencers'."""
    feat = model.encode_image(reference_pixels(path))[0]
    return feat / feat.norm()
