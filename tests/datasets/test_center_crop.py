import time

import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from mmslip.datasets.transforms import ResizeCenterCrop
from mmslip.registry import TRANSFORMS


def by_mmpretrain(image, size, edge, interpolation):
    init_default_scope('mmpretrain')
    steps = (
        dict(type='ResizeEdge', scale=edge, backend='pillow', interpolation=interpolation),
        dict(type='CenterCrop', crop_size=size),
    )
    return Compose([TRANSFORMS.build(step) for step in steps])(dict(img=image))['img']


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('size', [1, 7, 32])
def test_pixels_are_those_of_resizing_the_whole_image(size, interpolation):
    draw = np.random.default_rng(size)
    for _ in range(150):
        height, width = np.exp(draw.uniform(0, 7, 2)).astype(int)
        edge = size * draw.integers(7, 15) // 7
        image = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = by_mmpretrain(image, size, edge, interpolation)
        found = ResizeCenterCrop(size, edge, interpolation)(dict(img=image))
        np.testing.assert_array_equal(found['img'], expected, f'{height} x {width} to {edge}')
        assert found['img_shape'] == (size, size)


@pytest.mark.parametrize('shape', [(1, 20_000), (20_000, 1), (2**26, 1), (2, 2**25)])
def test_a_banner_takes_milliseconds(shape):
    image = np.full((*shape, 3), 7, np.uint8)
    start = time.perf_counter()
    found = ResizeCenterCrop(224)(dict(img=image))['img']
    assert time.perf_counter() - start < 0.5
    np.testing.assert_array_equal(found, np.full((224, 224, 3), 7))


def test_usual_sizes():
    image = np.random.default_rng(0).integers(0, 256, (427, 640, 3), dtype=np.uint8)
    for edge in (224, 256):
        expected = by_mmpretrain(image, 224, edge, 'bilinear')
        np.testing.assert_array_equal(ResizeCenterCrop(224, edge)(dict(img=image))['img'], expected)


@pytest.mark.parametrize(
    ('settings', 'word'),
    [
        (dict(size=32, edge=31), 'edge=31'),
        (dict(size=0), 'size=0'),
        (dict(size=32, interpolation='lanczos'), "'lanczos'"),
    ],
)
def test_settings_that_make_no_sense(settings, word):
    with pytest.raises(ValueError, match=word):
        ResizeCenterCrop(**settings)
