"""Losses refuse what is no batch of pairs."""

import pytest
import torch

from mmslip.models.losses import clip_loss, siglip_loss, simclr_loss

LOSSES = {
    'clip': lambda a, b: clip_loss(a, b, torch.ones(1)),
    'siglip': lambda a, b: siglip_loss(a, b, torch.ones(1), torch.zeros(1)),
    'simclr': simclr_loss,
}


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('shapes', [[(4, 8), (3, 8)], [(3, 8), (4, 8)], [(0, 8), (0, 8)]], ids=str)
def test_unequal_and_empty_batches(loss: str, shapes: list[tuple]) -> None:
    first, second = map(torch.ones, shapes)
    message = rf'embeddings of shapes \({shapes[0][0]}, 8\) and \({shapes[1][0]}, 8\) are no pairs'
    with pytest.raises(ValueError, match=message):
        LOSSES[loss](first, second)
