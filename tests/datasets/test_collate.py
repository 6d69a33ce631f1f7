"""Batches of samples with and without a caption."""

import pytest
import torch
from mmengine.dataset import default_collate
from mmpretrain.structures import DataSample

from mmslip.datasets import collate, count_rows
from mmslip.registry import FUNCTIONS


def sample(number: int, captioned: bool, images: int = 1, mask: bool = False) -> dict:
    """A sample whose tensors say which one it is."""
    image = torch.full((3, 4, 4), number, dtype=torch.uint8)
    inputs = dict(views=[image[:, :2, :2], image[:, :3, :3] + 100])
    if captioned:
        inputs.update(image=image if images == 1 else [image, image + 50])
        inputs.update(text=torch.tensor([number, 0]), keys=torch.tensor([number, 7]))
    if mask:
        inputs['mask'] = torch.tensor([number])
    return dict(inputs=inputs)


@pytest.mark.parametrize('images', [1, 2])
def test_captioned_rows_come_first(images: int) -> None:
    kinds = [False, True, False, True, False]
    samples = [sample(n, has, images, mask=True) for n, has in enumerate(kinds)]
    batch = FUNCTIONS.get('mmslip.collate')(samples)
    inputs = batch['inputs']
    assert batch.keys() == {'inputs'}
    assert inputs.keys() == {'image', 'text', 'keys', 'views', 'mask'}
    assert inputs['text'].tolist() == [[1, 0], [3, 0]]
    assert inputs['keys'].tolist() == [[1, 7], [3, 7]]
    several = inputs['image'] if images == 2 else [inputs['image']]
    assert [view.shape for view in several] == images * [(2, 3, 4, 4)]
    assert [view[:, 0, 0, 0].tolist() for view in several] == [[1, 3], [51, 53]][:images]
    # The self-supervised half has all rows, in one order.
    assert [view.shape for view in inputs['views']] == [(5, 3, 2, 2), (5, 3, 3, 3)]
    assert [view[:, 0, 0, 0].tolist() for view in inputs['views']] == [
        [1, 3, 0, 2, 4],
        [101, 103, 100, 102, 104],
    ]
    assert inputs['mask'].tolist() == [[1], [3], [0], [2], [4]]
    assert count_rows(inputs) == (2, 5)


def test_an_image_without_caption_is_left_out() -> None:
    """Its pipeline may be that of others, and make the view of the language half."""
    bare = sample(1, captioned=True)
    del bare['inputs']['text']
    inputs = collate([bare, sample(2, captioned=True)])['inputs']
    assert inputs['image'][:, 0, 0, 0].tolist() == [2]
    assert inputs['views'][0][:, 0, 0, 0].tolist() == [2, 1]


@pytest.mark.parametrize('captioned', [True, False])
def test_samples_of_one_kind_are_stacked_as_they_come(captioned: bool) -> None:
    samples = [dict(sample(n, captioned), data_samples=DataSample()) for n in (2, 0, 1)]
    batch, expected = collate(samples), default_collate(samples)
    assert batch.keys() == expected.keys()
    assert batch['inputs'].keys() == expected['inputs'].keys()
    assert batch['inputs']['views'][0].equal(expected['inputs']['views'][0])
    assert len(batch['data_samples']) == 3
    assert count_rows(batch['inputs']) == (3 * captioned, 3)
