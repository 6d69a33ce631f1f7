"""Tests of the transforms and of what leaves the pipeline and the preprocessor."""

import colorsys
import io
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as reference
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from PIL import Image, ImageOps

from mmslip.datasets import ImageTextDataset
from mmslip.datasets.transforms import (
    ColorJitter,
    LoadImage,
    PackSLIPInputs,
    TokenizeCaption,
    color_jitter,
)
from mmslip.models import SLIPDataPreprocessor
from mmslip.registry import MODELS, TRANSFORMS
from mmslip.utils import seeded

ROOT = Path(__file__).parents[2]
MEAN = np.array([123.675, 116.28, 103.53])
STD = np.array([58.395, 57.12, 57.375])


def picture(kind: str) -> np.ndarray:
    """RGB uint8: noise, or colours that change slowly."""
    if kind == 'noise':
        return np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:64, :60]
    return np.stack([4 * columns, 4 * rows, 250 - 2 * columns - 2 * rows], -1).astype(np.uint8)


def adjust(name: str, image: np.ndarray, factor: float) -> np.ndarray:
    """One of our operations, RGB to RGB."""
    bgr = np.ascontiguousarray(image[..., ::-1])
    before = bgr.copy()
    out = getattr(color_jitter, f'adjust_{name}')(bgr, factor)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(bgr, before)
    return out[..., ::-1]


def difference(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    assert one.shape == two.shape
    return np.abs(one.astype(int) - two.astype(int))


@pytest.mark.parametrize('kind', ['noise', 'smooth'])
@pytest.mark.parametrize('name', ['brightness', 'contrast', 'saturation'])
def test_operation_equals_torchvision(name: str, kind: str) -> None:
    image = picture(kind)
    for factor in (0.0, 0.3, 0.6, 0.97, 1.4, 1.9):
        expected = getattr(reference, f'adjust_{name}')(Image.fromarray(image), factor)
        ours = adjust(name, image, factor)
        # Rounding instead of truncation, at most.
        assert difference(ours, np.asarray(expected)).max() <= 1, factor
    np.testing.assert_array_equal(adjust(name, image, 1.0), image)


@pytest.mark.parametrize('kind', ['noise', 'smooth'])
@pytest.mark.parametrize('shift', [-0.5, -0.1, -0.03, 0.0, 0.03, 0.1, 0.5])
def test_hue_is_close_to_torchvision(shift: float, kind: str) -> None:
    image = picture(kind)
    expected = np.asarray(reference.adjust_hue(Image.fromarray(image), shift))
    gap = difference(adjust('hue', image, shift), expected)
    # A step of one byte of hue is six grey levels of a pure colour; Pillow truncates where OpenCV
    # rounds, so the two are up to three steps apart.
    assert gap.max() <= 20
    assert gap.mean() <= 2.5


@pytest.mark.parametrize('shift', [-0.5, -0.1, 0.0, 0.1, 0.25, 0.5])
def test_hue_turns_by_a_part_of_the_circle(shift: float) -> None:
    image = picture('noise')[:10, :10]
    expected = np.empty(image.shape)
    for place in np.ndindex(10, 10):
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[place] / 255))
        expected[place] = np.multiply(
            colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value), 255
        )
    gap = difference(adjust('hue', image, shift), expected.round())
    assert gap.max() <= 9
    assert gap.mean() <= 2


def test_hue_leaves_grey_alone() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    np.testing.assert_array_equal(adjust('hue', grey, 0.3), grey)


def jitter_once(transform: ColorJitter, image: np.ndarray) -> np.ndarray:
    return transform(dict(img=image))['img']


def test_probability() -> None:
    image = np.full((1, 1, 3), 100, np.uint8)
    draws = 2000
    for prob in (0.0, 0.3, 0.8, 1.0):
        # Contrast and saturation change nothing on one grey pixel; brightness hardly ever misses.
        transform = ColorJitter(brightness=0.9, prob=prob)
        with seeded(0):
            changed = sum((jitter_once(transform, image) != 100).any() for _ in range(draws))
        # 4.5 standard deviations, and 1 in 180 brightness factors that round to 100.
        slack = 4.5 * (prob * (1 - prob) / draws) ** 0.5 + 0.012 * prob
        assert abs(changed / draws - prob) <= slack


@pytest.mark.parametrize(
    ('settings', 'low', 'high'),
    [
        (dict(brightness=0.4), 0.6, 1.4),
        (dict(contrast=0.3), 0.7, 1.3),
        (dict(saturation=0.2), 0.8, 1.2),
        (dict(hue=0.1), -0.1, 0.1),
        (dict(brightness=1.5), 0.0, 2.5),  # as torchvision cuts the range at zero
    ],
)
def test_factors_are_uniform(
    monkeypatch: pytest.MonkeyPatch, settings: dict, low: float, high: float
) -> None:
    drawn = []
    (name,) = settings
    for operation in ('brightness', 'contrast', 'saturation', 'hue'):
        monkeypatch.setattr(
            color_jitter,
            f'adjust_{operation}',
            lambda image, factor, operation=operation: drawn.append((operation, factor)) or image,
        )
    transform = ColorJitter(**settings)
    with seeded(1):
        for _ in range(2000):
            jitter_once(transform, np.zeros((1, 1, 3), np.uint8))
    assert {operation for operation, _ in drawn} == {name}
    factors = np.sort([(factor - low) / (high - low) for _, factor in drawn])
    assert len(factors) == 2000
    assert factors[0] >= 0
    assert factors[-1] <= 1
    # Kolmogorov-Smirnov distance; 2 / sqrt(n) is passed by chance once in 1,500 seeds.
    steps = np.arange(1, 2001) / 2000
    assert np.abs(factors - steps).max() <= 2 / 2000**0.5


def test_order_of_operations_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    for operation in ('brightness', 'contrast', 'saturation', 'hue'):
        monkeypatch.setattr(
            color_jitter,
            f'adjust_{operation}',
            lambda image, factor, operation=operation: order.append(operation) or image,
        )
    transform = ColorJitter(0.4, 0.4, 0.4, 0.1)
    with seeded(2):
        for _ in range(1200):
            jitter_once(transform, np.zeros((1, 1, 3), np.uint8))
    found = Counter(zip(*[iter(order)] * 4, strict=True))
    assert len(found) == 24
    # 50 expected of each, standard deviation 6.9.
    assert 20 <= min(found.values()) <= max(found.values()) <= 85


def test_jitter_without_extent_changes_nothing() -> None:
    image = picture('noise')
    np.testing.assert_array_equal(jitter_once(ColorJitter(), image), image)
    with pytest.raises(ValueError, match=r'hue must be in \[0, 0.5\], not 0.6'):
        ColorJitter(hue=0.6)


def test_jitter_keeps_its_input_and_views_apart() -> None:
    image = picture('smooth')
    before = image.copy()
    transform = ColorJitter(0.4, 0.4, 0.4, 0.1)
    with seeded(3):
        out = jitter_once(transform, image)
    assert out.dtype == np.uint8
    assert out.shape == image.shape
    assert difference(out, before).mean() > 3
    np.testing.assert_array_equal(image, before)

    jitter = dict(type='mmslip.ColorJitter', brightness=0.4, contrast=0.4, hue=0.1)
    views = dict(type='mmslip.SLIPViews', image=[], ssl=[jitter])
    with seeded(4):
        results = TRANSFORMS.build(views)(dict(img=image))
    (one, two), plain = results['views'], results['image']
    np.testing.assert_array_equal(plain, before)
    assert difference(one, before).mean() > 3
    assert difference(two, before).mean() > 3
    assert difference(one, two).mean() > 3


def encode(image: Image.Image, kind: str = 'PNG', **kwargs: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **kwargs)
    return buffer.getvalue()


def load(content: bytes) -> np.ndarray:
    """Decode to RGB."""
    results = LoadImage()(dict(img_bytes=content, img_name='shard.tar:7', sample_idx=3))
    assert results['img'].dtype == np.uint8
    assert results['img_shape'] == results['ori_shape'] == results['img'].shape[:2]
    assert 'img_bytes' not in results
    return results['img'][..., ::-1]


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_rotation_is_undone(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(Image.fromarray(picture('smooth')), 'JPEG', quality=95, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    # Two builds of the JPEG decoder may round differently.
    assert difference(load(content), np.asarray(upright)).max() <= 3


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'])
def test_modes_become_three_channels(mode: str) -> None:
    image = Image.fromarray(picture('smooth'))
    if mode == 'I;16':
        deep = np.asarray(image.convert('L')).astype(np.uint16) * 257
        content, expected = encode(Image.fromarray(deep)), image.convert('L').convert('RGB')
    else:
        image = image.convert(mode)
        if mode == 'RGBA':
            image.putalpha(Image.fromarray(picture('smooth')[..., 0]))
        content, expected = encode(image), image.convert('RGB')
        if mode == 'RGBA':  # stands on white
            expected = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
            expected = expected.convert('RGB')
    np.testing.assert_array_equal(load(content), np.asarray(expected))


def test_file_and_bytes_decode_alike(tmp_path: Path) -> None:
    content = encode(Image.fromarray(picture('noise')))
    path = tmp_path / 'ä b.png'
    path.write_bytes(content)
    out = LoadImage()(dict(img_path=str(path)))
    np.testing.assert_array_equal(out['img'][..., ::-1], picture('noise'))
    np.testing.assert_array_equal(load(content), picture('noise'))
    assert out['img_path'] == str(path)


@pytest.mark.parametrize('content', [b'', b'text', encode(Image.new('RGB', (9, 9)))[:40]])
def test_bytes_that_are_no_image(content: bytes) -> None:
    message = rf'shard.tar:7, sample 3 \({len(content)} bytes\) is not an image .* replace the file'
    with pytest.raises(ValueError, match=message):
        load(content)


def test_image_of_absurd_size_is_named() -> None:
    content = bytearray(encode(Image.new('RGB', (9, 9))))
    content[16:24] = (100_000).to_bytes(4, 'big') * 2  # width and height
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, 'big')
    with pytest.raises(ValueError, match=r'shard\.tar:7'):
        load(bytes(content))


def test_every_caption_is_drawn() -> None:
    transform = TokenizeCaption(dict(type='mmslip.CLIPTokenizer', context_length=8))
    captions = ['a cat', 'two dogs', 'one tree']
    found = Counter()
    with seeded(0):
        for _ in range(600):
            out = transform(dict(text=list(captions)))
            found[out['text']] += 1
            assert out['text_ids'].shape == (8,)
            assert out['text_ids'].equal(transform.tokenizer(out['text'])[0])
    assert set(found) == set(captions)
    # 200 expected of each, standard deviation 11.5.
    assert 150 <= min(found.values()) <= max(found.values()) <= 250
    cat = transform(dict(text='a cat'))
    assert cat['text_ids'].tolist() == [49406, 320, 2368, 49407, 0, 0, 0, 0]
    assert cat['text_ids'].dtype == torch.int64


@pytest.mark.parametrize(
    ('number', 'counts'), [(2, {0, 1}), (5, {1}), (7, {1, 2}), (10, {2}), (13, {2, 3})]
)
def test_several_captions_come_in_rounds(number: int, counts: set[int]) -> None:
    transform = TokenizeCaption(number=number)
    captions = [f'picture {name}' for name in 'abcde']
    orders = set()
    for seed in range(20):
        with seeded(seed):
            out = transform(dict(text=list(captions)))
        orders.add(tuple(out['text']))
        found = Counter(out['text'])
        assert {found[caption] for caption in captions} == counts
        assert out['text_ids'].equal(transform.tokenizer(out['text']))
        assert out['text_ids'].shape == (number, 77)
    assert len(orders) > 10


def test_one_caption_is_repeated() -> None:
    assert TokenizeCaption(number=3)(dict(text='a cat'))['text'] == ['a cat'] * 3


def test_weights_are_those_of_places() -> None:
    """The last one holds for all that follow; drawn first, a heavy one is there in most pairs."""
    one, two = (TokenizeCaption(number=n, weights=(6, 1)) for n in (1, 2))
    captions, found, pairs = list('abcd'), Counter(), Counter()
    with seeded(0):
        for _ in range(900):
            found[one(dict(text=captions))['text']] += 1
            pairs.update(two(dict(text=captions))['text'])
    assert 550 <= found['a'] <= 650  # 600 of 900 expected, standard deviation 14
    assert min(found[name] for name in 'bcd') >= 70  # 100 of each
    # 2/3, and 1/3 x 6/8 as the second: 11/12.
    assert pairs['a'] == pytest.approx(825, abs=30)
    assert max(pairs.values()) <= 900  # never twice


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(number=0), 'number of TokenizeCaption is 0'),
        (dict(weights=()), 'weights'),
        (dict(weights=(1, 0)), 'finite and above zero'),
    ],
)
def test_unusable_draws(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenizeCaption(**arguments)


def test_keys_are_of_image_and_caption() -> None:
    image = np.zeros((4, 4, 3), np.uint8)

    def keys(text: str | list[str], **names: str) -> list[int]:
        return PackSLIPInputs()(dict(img=image, text=text, text_ids=0, **names))['inputs']['keys']

    first = keys('A  cat', img_path='a/1.jpg')
    assert first.dtype == torch.int64
    assert first.shape == (2,)
    same = keys(['a cat', 'a dog'], img_path='a/1.jpg')
    assert same.shape == (3,)
    assert same[:2].equal(first)  # captions are clean
    assert len({*first.tolist(), *same.tolist()}) == 3
    other = keys('a cat', img_name='shard.tar/1.jpg')
    assert other[1] == first[1]
    assert other[0] != first[0]
    assert keys('a cat')[0] == keys('a dog')[0]  # nameless: by their pixels
    image = image + 1
    assert keys('a cat')[0] != keys('a cat', img_path='a/1.jpg')[0]


@pytest.mark.parametrize('text', ['', ' \n', ['', ' ']])
@pytest.mark.parametrize('key', ['img_name', 'img_path'])
def test_empty_caption_names_the_sample(text: str | list[str], key: str) -> None:
    with pytest.raises(ValueError, match=r'here/7.jpg \(sample 5\) has no caption: .* Remove'):
        TokenizeCaption()({'text': text, key: 'here/7.jpg', 'sample_idx': 5})


def channels_first(image: np.ndarray) -> list:
    return np.moveaxis(image, 2, 0).tolist()


def test_packing() -> None:
    rng = np.random.default_rng(5)
    views = [rng.integers(0, 256, (4 + n, 5, 3), dtype=np.uint8) for n in range(3)]
    ids = torch.arange(6)

    one = PackSLIPInputs()(dict(img=views[0], text_ids=ids))
    assert set(one) == {'inputs'}
    assert set(one['inputs']) == {'image', 'text', 'keys'}
    assert one['inputs']['image'].dtype == torch.uint8
    assert one['inputs']['image'].tolist() == channels_first(views[0])
    assert one['inputs']['text'].equal(ids)

    three = PackSLIPInputs()(dict(image=views[0], views=views[1:], text_ids=ids))['inputs']
    assert set(three) == {'image', 'views', 'text', 'keys'}
    assert three['image'].tolist() == channels_first(views[0])
    assert [view.tolist() for view in three['views']] == [channels_first(v) for v in views[1:]]

    two = PackSLIPInputs()(dict(views=views[:2]))['inputs']
    assert set(two) == {'views'}
    assert [view.tolist() for view in two['views']] == [channels_first(v) for v in views[:2]]

    several = PackSLIPInputs()(dict(image=views[:2]))['inputs']
    assert [view.tolist() for view in several['image']] == [channels_first(v) for v in views[:2]]


def test_packing_refuses_views_of_no_half() -> None:
    """The list that mmpretrain's MultiView makes."""
    with pytest.raises(ValueError, match='list of 3 views: make them by mmslip'):
        PackSLIPInputs()(dict(img=[np.zeros((2, 2, 3), np.uint8)] * 3))


def test_packing_of_an_evaluation_sample() -> None:
    results = dict(img=np.zeros((2, 2, 3), np.uint8), gt_label=4, task='pets', sample_idx=9)
    sample = PackSLIPInputs()(results)['data_samples']
    assert sample.gt_label.tolist() == [4]
    assert (sample.task, sample.sample_idx) == ('pets', 9)


def test_packing_of_a_label_without_a_task() -> None:
    results = dict(img=np.zeros((2, 2, 3), np.uint8), gt_label=4, sample_idx=9)
    try:
        sample = PackSLIPInputs()(results)['data_samples']
    except KeyError:
        pytest.fail("KeyError: 'task'")
    assert sample.gt_label.tolist() == [4]


def normalise(images: torch.Tensor) -> np.ndarray:
    """``(B, 3, H, W)`` BGR bytes to normalised RGB, in float64."""
    rgb = images.numpy()[:, ::-1].astype(np.float64)
    return (rgb - MEAN[:, None, None]) / STD[:, None, None]


def test_emoji_pipeline_and_preprocessor(make_pairs: Callable[..., Path]) -> None:
    cfg = Config.fromfile(ROOT / 'configs' / 'slip' / 'slip_vit-tiny_emoji.py')
    dataset = ImageTextDataset(
        'pairs.jsonl', data_root=str(make_pairs(4)), data_prefix=dict(img_path='images')
    )
    pipeline = Compose(cfg.train_dataloader.dataset.pipeline)
    with seeded(0):
        items = [pipeline(dataset.get_data_info(index)) for index in range(4)]
    for item in items:
        inputs = item['inputs']
        assert [view.shape for view in inputs['views']] == [(3, 16, 16)] * 2
        assert inputs['image'].shape == (3, 32, 32)
        assert {view.dtype for view in [inputs['image'], *inputs['views']]} == {torch.uint8}
        assert inputs['text'].shape == (32,)
        assert not inputs['views'][0].equal(inputs['views'][1])
        assert not inputs['views'][0].equal(inputs['image'])

    batch = default_collate(items)
    raw = {key: batch['inputs'][key] for key in ('image', 'views', 'text')}
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    preprocessor.trim_text = MODELS.build(cfg.model.text_backbone).trim  # as SLIP sets it
    out = preprocessor(batch, training=True)['inputs']
    np.testing.assert_allclose(out['image'], normalise(raw['image']), atol=1e-5)
    assert out['image'].dtype == torch.float32
    assert len(out['views']) == 2
    for ours, bytes_ in zip(out['views'], raw['views'], strict=True):
        np.testing.assert_allclose(ours, normalise(bytes_), atol=1e-5)
    # 'shape 0 told in way 1' is six words, between a start and an end token.
    assert raw['text'].shape == (4, 32)
    assert out['text'].tolist() == raw['text'][:, :8].tolist()
    assert (out['text'][:, -1] == 49407).all()
    assert raw['image'].dtype == torch.uint8


def test_preprocessor_values_and_switches() -> None:
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)  # blue, green, red
    text = torch.tensor([[49406, 5, 49407, 0, 0], [49406, 5, 6, 49407, 0]])
    data = dict(inputs=dict(image=image, text=text))
    out = SLIPDataPreprocessor()(data)
    expected = [(30 - 123.675) / 58.395, (20 - 116.28) / 57.12, (10 - 103.53) / 57.375]
    np.testing.assert_allclose(out['inputs']['image'].flatten(), expected, rtol=1e-6)
    assert out['inputs']['text'].equal(text)  # a tower has its own rule, the default is none
    assert out['data_samples'] is None
    # What came in is as it was.
    assert data['inputs']['text'].shape == (2, 5)
    assert data['inputs']['image'].flatten().tolist() == [10, 20, 30]

    plain = SLIPDataPreprocessor(mean=(1, 2, 3), std=(2, 4, 8), to_rgb=False)
    assert plain(dict(inputs=image))['inputs']['image'].flatten().tolist() == [4.5, 4.5, 3.375]
    assert not plain.state_dict()
