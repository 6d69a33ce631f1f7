"""The fast views against Pillow and torchvision: the same distributions, nearly the same pixels."""

import inspect
import io
import random
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from PIL import Image, ImageFilter
from torchvision import transforms as tv

from mmslip.datasets.transforms import (
    GaussianBlur,
    LoadImage,
    RandomFlip,
    RandomGrayscale,
    RandomResizedCrop,
    SLIPViews,
    blur,
)
from mmslip.datasets.transforms.crop import Box, resize
from mmslip.datasets.transforms.load_image import EncodedImage
from mmslip.models import DeviceAugment
from mmslip.registry import MODELS, TRANSFORMS
from mmslip.utils import seeded
from mmslip.utils.config import load_config

CONFIGS = Path(__file__).parents[2] / 'configs' / 'slip'
PUBLISHED = 'slip_vit-b16_yfcc15m'


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """BGR uint8 with what photographs have: slopes, sharp edges, some texture."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    image = 255 * np.stack([rows, 1 - columns, (rows + columns) / 2], -1)
    for _ in range(12):
        x, y, radius = (rng.integers(0, max(height, width), 3) / (1, 1, 5)).astype(int).tolist()
        cv2.circle(image, (x, y), radius + 2, rng.integers(0, 256, 3).tolist(), -1)
    texture = cv2.GaussianBlur(rng.normal(0, 60, image.shape), (0, 0), 1.5)
    return (image + texture).clip(0, 255).astype(np.uint8)


def difference(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    assert one.shape == two.shape
    return np.abs(one.astype(int) - two.astype(int))


def to_jpeg(image: np.ndarray, **kwargs: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., ::-1]).save(buffer, 'JPEG', quality=92, **kwargs)
    return buffer.getvalue()


def load(content: bytes, defer: bool = True) -> dict:
    return LoadImage(defer=defer)(dict(img_bytes=content, img_name='a.jpg', sample_idx=3))


def check_array(image: np.ndarray, size: int) -> None:
    assert image.dtype == np.uint8
    assert image.shape == (size, size, 3)
    assert image.flags.c_contiguous


# Where and what is cropped


@pytest.mark.parametrize('shape', [(300, 400), (90, 400), (400, 90)])
@pytest.mark.parametrize('scale', [(0.08, 1.0), (0.5, 1.0)])
def test_crops_are_drawn_as_torchvision_draws_them(shape: tuple, scale: tuple) -> None:
    number = 2000
    ours, crop = [], RandomResizedCrop(224, scale)
    theirs, canvas = [], torch.empty(3, *shape)
    with seeded(0):
        for _ in range(number):
            ours.append(crop.draw(*shape))
            theirs.append(tv.RandomResizedCrop.get_params(canvas, scale, (3 / 4, 4 / 3)))
    ours, theirs = np.array(ours, float), np.array(theirs, float)
    for boxes in (ours, theirs):
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= shape).all()
    for measure in (
        lambda box: box[:, 2] * box[:, 3],  # area
        lambda box: box[:, 3] / box[:, 2],  # aspect
        lambda box: box[:, 0] + box[:, 2] / 2,  # centre
        lambda box: box[:, 1] + box[:, 3] / 2,
    ):
        one, two = np.sort(measure(ours)), np.sort(measure(theirs))
        grid = np.concatenate([one, two])
        gap = np.searchsorted(one, grid, 'right') - np.searchsorted(two, grid, 'right')
        # Kolmogorov-Smirnov distance of two samples; passed by chance once in 1,000 seeds.
        assert np.abs(gap).max() / number <= 1.95 * (2 / number) ** 0.5


@pytest.mark.parametrize('shape', [(100, 900), (900, 100)])
def test_crop_that_never_fits_is_central(shape: tuple) -> None:
    expected = tv.RandomResizedCrop.get_params(torch.empty(3, *shape), (0.9, 1.0), (3 / 4, 4 / 3))
    assert RandomResizedCrop(64, (0.9, 1.0)).draw(*shape) == expected


@pytest.mark.parametrize(
    ('height', 'width'),
    [(1, 1), (150, 130), (224, 224), (240, 300), (420, 560), (900, 700), (100, 1000)],
)
@pytest.mark.filterwarnings('error')  # as PyTorch would about a read-only picture
def test_resize_is_that_of_pillow(height: int, width: int) -> None:
    image = picture(height + 7, width + 9)
    image.flags.writeable = False
    for crop in (image[3 : 3 + height, 5 : 5 + width], image[:height, :width].copy()):
        before = crop.copy()
        expected = Image.fromarray(before).resize((224, 224), Image.Resampling.BILINEAR)
        out = resize(crop, 224)
        check_array(out, 224)  # not contiguous if PyTorch went its slow way
        np.testing.assert_array_equal(crop, before)
        assert difference(out, np.asarray(expected)).max() <= 1
        assert out.flags.writeable
        assert not np.shares_memory(out, image)


def test_crop_is_what_the_box_holds() -> None:
    image = picture(120, 160)
    out = RandomResizedCrop(40)(dict(img=image, crop_box=Box(13, 31, 40, 40)))
    np.testing.assert_array_equal(out['img'], image[13:53, 31:71])
    assert out['img_shape'] == (40, 40)
    assert 'crop_box' not in out


# Decoding no larger than the crops need


def test_reduction_keeps_the_output_resolution() -> None:
    rng, crop = np.random.default_rng(1), RandomResizedCrop(50)
    found = set()
    with seeded(1):
        for height, width in rng.integers(30, 900, (2000, 2)).tolist():
            box = crop.draw(height, width)
            factor = crop.reduction(box)
            found.add(factor)
            small = box.shrink(factor)
            if factor > 1:
                assert min(small.height, small.width) >= crop.scale
            ends = np.array([*small[:2], small.top + small.height, small.left + small.width])
            exact = np.array([*box[:2], box.top + box.height, box.left + box.width]) / factor
            assert np.abs(ends - exact).max() <= 0.5
            assert (ends[:2] >= 0).all()
            assert (ends[2:] <= (-(-height // factor), -(-width // factor))).all()
    assert found == {1, 2, 4, 8}
    sides = [(50, 1), (101, 1), (102, 2), (203, 2), (204, 4), (408, 8), (5000, 8)]
    assert [(side, crop.reduction(Box(0, 0, side, 9999))) for side, _ in sides] == sides


@pytest.mark.parametrize('shape', [(700, 901), (1333, 1000)])
def test_scaled_decoding_shows_the_same(monkeypatch: pytest.MonkeyPatch, shape: tuple) -> None:
    content = to_jpeg(picture(*shape))
    factors, decode = [], EncodedImage.decode

    def decode_and_note(source: EncodedImage, factor: int = 1) -> np.ndarray:
        factors.append(factor)
        return decode(source, factor)

    monkeypatch.setattr(EncodedImage, 'decode', decode_and_note)
    crop = RandomResizedCrop(96, (0.3, 1.0))
    full, scaled = [], []
    for seed in range(6):
        with seeded(seed):
            full.append(crop(load(content, defer=False))['img'])
        with seeded(seed):
            scaled.append(crop(load(content))['img'])
    assert min(factors) >= 2
    gaps = [difference(one, two) for one, two in zip(full, scaled, strict=True)]
    # Half a pixel of the result at the edges, and another way of averaging.
    assert max(gap.mean() for gap in gaps) <= 5
    # A shift by one pixel of the result changes several times as much.
    shift = difference(full[0][:, 1:], full[0][:, :-1]).mean()
    assert np.mean([gap.mean() for gap in gaps]) <= shift


@pytest.mark.parametrize('factor', [1, 2, 4, 8])
def test_encoded_image(factor: int) -> None:
    odd = load(to_jpeg(picture(101, 166)))['img']
    assert isinstance(odd, EncodedImage)
    assert odd.shape == (101, 166)
    assert odd.decode(factor).shape == (-(-101 // factor), -(-166 // factor), 3)

    image = picture(104, 168)
    out = load(to_jpeg(image))['img'].decode(factor)
    coarse = cv2.resize(image, (168 // factor, 104 // factor), interpolation=cv2.INTER_AREA)
    assert difference(out, coarse).mean() <= 5


def test_what_is_decoded_at_once() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = load(to_jpeg(picture(40, 60), exif=exif))['img']
    assert turned.shape == (60, 40, 3)
    png = cv2.imencode('.png', picture(40, 60))[1].tobytes()
    np.testing.assert_array_equal(load(png)['img'], picture(40, 60))
    with pytest.raises(ValueError, match=r'a.jpg, sample 3 \(9 bytes\) is not an image'):
        load(b'\xff\xd8\xffnothing'[:9])


def test_damage_found_late_names_the_sample() -> None:
    source = EncodedImage(b'nothing', (40, 60), 'a.jpg, sample 3')
    with pytest.raises(ValueError, match=r'a.jpg, sample 3 \(7 bytes\) is not an image'):
        RandomResizedCrop(8)(dict(img=source))


# Several views


def crop(size: int, low: float, high: float = 1.0) -> dict:
    return dict(type='mmslip.RandomResizedCrop', scale=size, crop_ratio_range=(low, high))


def changes(sigma: tuple[float, float] = (0.1, 2.0), blur_prob: float = 0.5) -> list[dict]:
    """Transforms of a published self-supervised view after its crop."""
    jitter = dict(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, prob=0.8)
    return [
        dict(type='mmslip.ColorJitter', **jitter),
        dict(type='mmslip.RandomGrayscale', prob=0.2),
        dict(type='mmslip.GaussianBlur', sigma=sigma, prob=blur_prob),
        dict(type='mmslip.RandomFlip', prob=0.5),
    ]


JITTER_FLIP = [dict(type='mmslip.ColorJitter', brightness=0.4, hue=0.1), changes()[-1]]
# Arguments of SLIPViews; number and transforms of each kind of view, written out.
VIEWS = dict(
    published=(dict(), [1, 2], [[crop(224, 0.5)], [crop(224, 0.08), *changes()]]),
    clip=(dict(size=32, ssl_views=0), [1], [[crop(32, 0.5)]]),
    simclr=(dict(size=32, image_views=0), [2], [[crop(32, 0.08), *changes()]]),
    smaller=(
        dict(size=32, ssl_size=16, ssl_crop=(0.3, 1.0), blur_sigma=(0.05, 1.0)),
        [1, 2],
        [[crop(32, 0.5)], [crop(16, 0.3), *changes(sigma=(0.05, 1.0))]],
    ),
    flipped=(
        dict(size=32, ssl_views=1, ssl_crop=(0.2, 1.0), jitter=None, gray_prob=0, blur_prob=0),
        [1, 1],
        [[crop(32, 0.5)], [crop(32, 0.2), changes()[-1]]],
    ),
    groups=(
        dict(
            size=32,
            image_views=2,
            image_crop=[0.4, 1.0],
            ssl_views=[1, 3],
            ssl_size=[24, 16],
            ssl_crop=[[0.4, 1.0], [0.05, 0.4]],
            jitter=[[0.4, 0.4, 0.4, 0.1], None],
            blur_prob=[1.0, 0.1],
        ),
        [2, 1, 3],
        [
            [crop(32, 0.4)],
            [crop(24, 0.4), *changes(blur_prob=1.0)],
            [crop(16, 0.05, 0.4), *changes(blur_prob=0.1)[1:]],
        ],
    ),
    own=(
        dict(image=[crop(32, 0.5), *JITTER_FLIP], ssl_views=[2, 1], ssl=[crop(16, 0.2)]),
        [1, 3],
        [[crop(32, 0.5), *JITTER_FLIP], [crop(16, 0.2)]],
    ),
)


def made_by(transform: Callable, image: np.ndarray | EncodedImage) -> list[np.ndarray]:
    """All views, those of the language half first."""
    results = transform(dict(img=image, text='as it was'))
    assert 'img' not in results
    first = results.get('image', [])
    return [*(first if isinstance(first, list) else [first]), *results.get('views', [])]


@pytest.mark.parametrize('name', VIEWS)
def test_views_equal_nested_lists_of_transforms(name: str) -> None:
    """Bit for bit, and the random numbers in the same order."""
    arguments, numbers, kinds = VIEWS[name]
    views = SLIPViews(**arguments)
    expected = TRANSFORMS.build(dict(type='MultiView', num_views=numbers, transforms=kinds))
    for seed in range(3):
        image = picture(90, 120, seed)
        before = image.copy()
        with seeded(seed):
            theirs = expected(dict(img=before))['img']
        with seeded(seed):
            ours = made_by(views, image)
        for view, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(view, other)
        assert not any(np.shares_memory(view, image) for view in ours)
        np.testing.assert_array_equal(image, before)


def test_views_by_group() -> None:
    views = SLIPViews(**VIEWS['groups'][0])(dict(img=picture(90, 120)))
    assert [view.shape for view in views['image']] == 2 * [(32, 32, 3)]
    assert [view.shape for view in views['views']] == [(24, 24, 3), *3 * [(16, 16, 3)]]
    assert difference(*views['image']).mean() > 3
    assert difference(*views['views'][2:]).mean() > 3


def test_arguments_without_effect_are_refused() -> None:
    with pytest.raises(ValueError, match='has ssl, transforms of your own, and gray_prob, which'):
        SLIPViews(ssl=[crop(16, 0.2)], gray_prob=0.1)
    with pytest.raises(ValueError, match='has image, transforms of your own'):
        SLIPViews(image=[crop(16, 0.2)], image_crop=(0.1, 1.0))
    with pytest.raises(ValueError, match=r'ssl_size=\[24\] .* 1 values for 2 groups of ssl_views'):
        SLIPViews(ssl_views=[2, 6], ssl_size=[24])


def test_views_share_one_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    content = to_jpeg(picture(600, 800))
    factors, decode = [], EncodedImage.decode

    def decode_and_note(source: EncodedImage, factor: int = 1) -> np.ndarray:
        factors.append(factor)
        return decode(source, factor)

    monkeypatch.setattr(EncodedImage, 'decode', decode_and_note)
    transform = SLIPViews(32)
    allowed = []
    for seed in range(8):
        with seeded(seed):
            one = made_by(transform, load(content)['img'])
        with seeded(seed):
            two = made_by(transform, load(content)['img'])
        with seeded(seed):
            crops = [RandomResizedCrop(32, (low, 1.0)) for low in (0.5, 0.08, 0.08)]
            boxes = [crop.draw(600, 800) for crop in crops]
        allowed += 2 * [min(map(RandomResizedCrop(32).reduction, boxes))]
        for view, again in zip(one, two, strict=True):
            check_array(view, 32)
            np.testing.assert_array_equal(view, again)
    assert factors == allowed
    assert max(factors) > 1


def test_view_of_the_full_picture() -> None:
    views = SLIPViews(32, ssl_views=1, ssl=[])(load(to_jpeg(picture(300, 400))))
    check_array(views['image'], 32)
    assert views['views'][0].shape == (300, 400, 3)


def test_writing_into_the_shared_picture_fails() -> None:
    class Darken:
        def __call__(self, results: dict) -> dict:
            results['img'] //= 2
            return results

    with pytest.raises(ValueError, match='read-only'):
        SLIPViews(image=[Darken()])(dict(img=picture(9, 9)))


# Grey, blur, flip


def test_operations_are_close_to_pillow() -> None:
    image = picture(120, 150)
    before = image.copy()
    pillow = Image.fromarray(image[..., ::-1])
    grey = RandomGrayscale(1.0)(dict(img=image))['img']
    assert difference(grey, np.asarray(pillow.convert('L').convert('RGB'))).max() <= 1
    mirrored = RandomFlip(1.0)(dict(img=image))['img']
    np.testing.assert_array_equal(mirrored, image[:, ::-1])
    assert mirrored.flags.c_contiguous
    for sigma in (0.1, 0.5, 1.0, 1.5, 2.0):
        out = GaussianBlur((sigma, sigma), 1.0)(dict(img=image))['img']
        expected = pillow.filter(ImageFilter.GaussianBlur(sigma))
        gap = difference(out[..., ::-1], np.asarray(expected))
        assert gap.mean() <= 1, sigma  # three box filters are not quite a Gaussian
        exact = cv2.GaussianBlur(image.astype(np.float64), (25, 25), sigma)
        assert np.abs(out - exact).max() <= 2, sigma  # 8-bit kernel weights, rounding
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize('prob', [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize('kind', [RandomGrayscale, GaussianBlur, RandomFlip])
def test_probabilities(kind: type, prob: float) -> None:
    image, draws = picture(12, 15), 1500
    transform = kind(prob=prob)
    with seeded(5):
        changed = sum(transform(dict(img=image))['img'] is not image for _ in range(draws))
    assert abs(changed / draws - prob) <= 4 * (prob * (1 - prob) / draws) ** 0.5


def test_sigma_is_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(blur, 'blur', lambda image, sigma: drawn.append(sigma) or image)
    with seeded(6):
        for _ in range(2000):
            GaussianBlur((0.1, 2.0), 1.0)(dict(img=None))
    steps = (np.sort(drawn) - 0.1) / 1.9
    assert np.abs(steps - np.arange(1, 2001) / 2000).max() <= 2 / 2000**0.5


# All together


def torchvision_view() -> Callable:
    """SLIP's self-supervised view as published, for a BGR array, at 48 pixels."""
    view = tv.Compose(
        [
            tv.RandomResizedCrop(48, scale=(0.08, 1.0)),
            tv.RandomApply([tv.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            tv.RandomGrayscale(p=0.2),
            tv.RandomApply(
                [lambda image: image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))],
                p=0.5,
            ),
            tv.RandomHorizontalFlip(),
        ]
    )
    return lambda image: np.asarray(view(Image.fromarray(image[..., ::-1])))[..., ::-1]


def config_view(name: str, half: str) -> Callable:
    """One view of a config, at 48 pixels."""
    cfg = load_config(CONFIGS / f'{name}.py', dict(image_size=48))
    pipeline = Compose([cfg.train_dataloader.dataset.pipeline[1]])

    def view(image: np.ndarray) -> np.ndarray:
        made = pipeline(dict(img=image))[half]
        return made if half == 'image' else made[0]

    return view


def statistics(image: np.ndarray) -> list[float]:
    """Level and spread of each channel, colourfulness, sharpness, and left against right."""
    image = image.astype(np.float64)
    colour = (image.max(2) - image.min(2)).mean()
    sharpness = np.abs(np.diff(image, axis=1)).mean()
    side = image[:, :24].mean() - image[:, 24:].mean()
    return [*image.mean((0, 1)), *image.std((0, 1)), colour, sharpness, side, abs(side)]


@pytest.mark.parametrize('name', [PUBLISHED, f'{PUBLISHED}_torchvision-views'])
def test_ssl_view_has_the_statistics_of_torchvision(name: str) -> None:
    image, draws = picture(150, 200), 500
    ours, theirs = config_view(name, 'views'), torchvision_view()
    with seeded(7):
        one = np.array([statistics(ours(image)) for _ in range(draws)])
        two = np.array([statistics(theirs(image)) for _ in range(draws)])
    error = ((one.var(0) + two.var(0)) / draws) ** 0.5
    # Ten numbers within four standard errors of their difference: once in 1,500 seeds by chance.
    assert (np.abs(one.mean(0) - two.mean(0)) / error).max() <= 4
    # Standard deviations over the draws; theirs are known to some 4 %.
    np.testing.assert_allclose(one.std(0), two.std(0), rtol=0.2)


def test_views_of_torchvision_equal_torchvision() -> None:
    """The switch for repeating a published run: the same pixels from the same seed."""
    image = picture(150, 200)
    expected = tv.RandomResizedCrop(48, scale=(0.5, 1.0))
    with seeded(8):
        out = config_view(f'{PUBLISHED}_torchvision-views', 'image')(image)
    with seeded(8):
        reference = np.asarray(expected(Image.fromarray(image[..., ::-1])))
    np.testing.assert_array_equal(out[..., ::-1], reference)


@pytest.mark.parametrize('name', ['', '_torchvision-views', '_device-views'])
def test_config_makes_bytes_for_the_model(name: str) -> None:
    cfg = load_config(CONFIGS / f'{PUBLISHED}{name}.py')
    augment = MODELS.build(cfg.model.data_preprocessor).view_augment
    assert isinstance(augment, DeviceAugment) == (name == '_device-views')
    load, views, _, pack = cfg.train_dataloader.dataset.pipeline
    pipeline = Compose([load, views, pack])
    content = to_jpeg(picture(300, 400))
    with seeded(9):
        inputs = pipeline(dict(img_bytes=content, img_name='a.jpg'))['inputs']
    tensors = [inputs['image'], *inputs['views']]
    assert len(tensors) == 3
    for tensor in tensors:
        assert tensor.shape == (3, 224, 224)
        assert tensor.dtype == torch.uint8
        assert tensor.is_contiguous()


def test_device_augment_has_the_published_changes() -> None:
    """Those that the views on the device leave to it, as SLIPViews would make them."""
    ours, theirs = (inspect.signature(part).parameters for part in (SLIPViews, DeviceAugment))
    jitter = tuple(theirs[name].default for name in ('brightness', 'contrast', 'saturation', 'hue'))
    assert jitter == ours['jitter'].default
    for name in ('jitter_prob', 'gray_prob', 'blur_prob'):
        assert theirs[name].default == ours[name].default
    assert theirs['sigma'].default == ours['blur_sigma'].default
