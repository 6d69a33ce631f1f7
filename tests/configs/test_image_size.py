"""One line changes the size of an experiment; sizes that disagree are an error before it starts."""

import re
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import DefaultScope

import mmslip
from mmslip.cli import test as test_cli
from mmslip.cli import train as train_cli
from mmslip.engine import ImageSizeHook
from mmslip.registry import MODELS
from mmslip.utils.config import apply_options, image_size_of, load_config
from tests.configs.test_configs import CONFIGS, ROOT, name_of

EXPERIMENT = 'slip/slip_vit-b16_yfcc15m'
VIEWS = 'train_dataloader.dataset.pipeline.1'
# Side of self-supervised views that are smaller than the images.
SMALLER = {
    'slip_vit-b16_yfcc15m_cheap-ssl': 112,
    'slip_vit-tiny_emoji': 16,
}


def path_of(name: str) -> Path:
    return ROOT / 'configs' / f'{name}.py'


def outputs(steps: list[dict], image: Path) -> tuple[list[int], list[int]]:
    """Sides of the pictures and of the self-supervised views that a pipeline packs."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose(list(steps))
    inputs = pipeline(dict(img_path=str(image), text=['a dog'], gt_label=0))['inputs']
    inputs = inputs if isinstance(inputs, dict) else dict(image=inputs)
    images = [inputs['image']] if 'image' in inputs else []
    for view in images + inputs.get('views', []):
        assert view.shape[1] == view.shape[2]
    return [view.shape[1] for view in images], [view.shape[1] for view in inputs.get('views', [])]


def pipelines(cfg: Config) -> dict[str, list[dict]]:
    """The first pipeline of each loader."""
    found = {}
    for loader in ('train', 'val', 'test'):
        dataset = (cfg.get(f'{loader}_dataloader') or {}).get('dataset')
        if dataset:
            found[loader] = dataset.get('pipeline') or dataset.datasets[0].pipeline
    return found


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'a.jpg'), pixels)
    return tmp_path / 'a.jpg'


@pytest.mark.parametrize('path', CONFIGS, ids=name_of)
def test_one_setting_changes_every_size(path, image):
    cfg, plain = load_config(path, dict(image_size=128)), Config.fromfile(path)
    small = dict(_emoji=32, _photos=32, _flickr=64)
    assert image_size_of(plain) == next((small[name] for name in small if name in path.stem), 224)
    assert image_size_of(cfg) == 128
    assert cfg.model.backbone.get('img_size', 128) == 128
    as_a_batch = re.search('_tiny_(emoji|photos)', path.stem)  # whole pictures
    # Smaller on purpose, and so they stay.
    ssl_size = SMALLER.get(path.stem, 16 if as_a_batch else 128)
    found = pipelines(cfg)
    if as_a_batch:
        found.pop('train')
        preprocessor = cfg.model.data_preprocessor
        assert preprocessor.image_augment[0]['size'] == 128
        assert preprocessor.view_augment[0]['size'] == ssl_size
    for steps in found.values():
        images, views = outputs(steps, image)
        assert images or views
        assert set(images) <= {128}
        assert set(views) <= {ssl_size}


def test_every_part_of_a_config():
    """Sizes in groups of views, in transforms of one's own, in nested data sets, before a crop."""
    crop = dict(type='mmslip.RandomResizedCrop', scale=64)
    small = dict(type='RandomResizedCrop', scale=32)
    bare = dict(type='mmslip.SLIPViews', image=[crop], ssl=[small], image_views=0)
    cfg = Config(
        dict(
            image_size=96,
            model=dict(
                backbone=dict(type='mmslip.VisionTransformer', img_size=64, patch_size=8),
                ssl=dict(neck=dict(num_patches=64, patch_size=8)),
            ),
            train_dataloader=dict(
                dataset=dict(
                    datasets=[
                        dict(pipeline=[dict(type='mmslip.SLIPViews', size=64, ssl_size=[64, 32])]),
                        dict(pipeline=[dict(type='mmslip.SLIPViews', image=[crop], ssl=[crop])]),
                        dict(pipeline=[dict(type='mmslip.SLIPViews', image=[crop], ssl=[small])]),
                        dict(pipeline=[dict(type='mmslip.SLIPViews', size=64, ssl=[small])]),
                        dict(pipeline=[dict(type='mmslip.SLIPViews', image_views=0, ssl=[crop])]),
                        dict(pipeline=[dict(type='mmslip.SLIPViews', image=[crop])]),
                        dict(pipeline=[bare]),  # beside the third
                    ]
                )
            ),
            val_dataloader=dict(
                dataset=dict(
                    pipeline=[
                        dict(type='ResizeEdge', scale=72),
                        dict(type='CenterCrop', crop_size=(64, 64)),
                    ]
                )
            ),
            test_dataloader=dict(
                dataset=dict(pipeline=[dict(type='mmslip.ResizeCenterCrop', size=64, edge=80)])
            ),
        )
    )
    apply_options(cfg)
    assert (cfg.model.backbone.img_size, cfg.model.ssl.neck.num_patches) == (96, 144)
    one, two, three, four, five, six, bare = (
        part.pipeline[0] for part in cfg.train_dataloader.dataset.datasets
    )
    assert (one['size'], one.ssl_size) == (96, [96, 32])
    assert (two.image[0].scale, two.ssl[0].scale) == (96, 96)
    assert (three.image[0].scale, three.ssl[0].scale) == (96, 32)
    assert (four['size'], four.ssl[0].scale) == (96, 32)
    assert five.ssl[0].scale == 96
    assert (bare.image[0].scale, bare.ssl[0].scale) == (96, 32)
    assert (six.image[0].scale, six['size']) == (96, 96)
    edge, centre = cfg.val_dataloader.dataset.pipeline
    assert (edge.scale, centre.crop_size) == (108, (96, 96))
    (both,) = cfg.test_dataloader.dataset.pipeline
    assert (both['size'], both.edge) == (96, 120)


@pytest.mark.parametrize(
    ('views', 'key'),
    [
        (dict(size=32), 'size'),
        (dict(size=32, ssl_size=16), 'size'),
        (dict(ssl=[dict(type='RandomResizedCrop', scale=32)]), 'ssl.0.scale'),
    ],
)
def test_views_alone_are_what_the_tower_is_for(views: dict, key: str):
    """Without images, smaller views are legal where `ssl_size` says so."""
    pipeline = [dict(type='mmslip.SLIPViews', image_views=0, **views)]
    cfg = Config(
        dict(
            model=dict(backbone=dict(type='mmslip.VisionTransformer', img_size=64, patch_size=8)),
            train_dataloader=dict(dataset=dict(pipeline=pipeline)),
        )
    )
    wanted = rf'img_size is 64, but train_dataloader\.dataset\.pipeline\.0\.{key} is 32'
    with pytest.raises(ValueError, match=wanted):
        apply_options(cfg)
    cfg.train_dataloader.dataset.pipeline = [
        dict(type='mmslip.SLIPViews', image_views=0, size=64, ssl_size=32)
    ]
    apply_options(cfg)


def test_the_model_is_that_of_the_new_size():
    cfg = load_config(path_of('slip/slip_vit-tiny_emoji'), dict(image_size=64))
    assert MODELS.build(cfg.model).backbone.pos_embed.shape == (1, 8 * 8 + 1, 128)
    cfg = load_config(path_of('slip/slip_mae_vit-b16_yfcc15m'), dict(image_size=448))
    assert cfg.model.ssl.neck.num_patches == 28 * 28


def test_one_line_in_a_config_of_ones_own(tmp_path):
    child = tmp_path / 'child.py'
    child.write_text(f"_base_ = ['{path_of(EXPERIMENT)}']\nimage_size = 336\n")
    cfg = mmslip.load_config(child)
    assert cfg.model.backbone.img_size == cfg.train_dataloader.dataset.pipeline[1]['size'] == 336
    # Read without it, the line has no effect, and is not let pass.
    hook, raw = ImageSizeHook(), Config.fromfile(child)
    message = (
        'image_size is 336, but model.backbone.img_size is 224: read the config by mmslip.load'
    )
    with pytest.raises(ValueError, match=message):
        hook.before_run(SimpleNamespace(cfg=raw))
    hook.before_run(SimpleNamespace(cfg=cfg))
    assert dict(type='mmslip.ImageSizeHook') in raw.custom_hooks


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        (
            EXPERIMENT,
            {'model.backbone.img_size': 336},
            rf'model.backbone.img_size is 336, but {VIEWS}.size is 224: state .* image_size=N',
        ),
        (
            EXPERIMENT,
            {'model.backbone.img_size': 64},
            rf'model.backbone.img_size is 64, but {VIEWS}.size is 224',
        ),
        (EXPERIMENT, {f'{VIEWS}.size': 160}, rf'img_size is 224, but {VIEWS}.size is 160'),
        (EXPERIMENT, {f'{VIEWS}.ssl_size': 336}, r'ssl_size is 336: .* may be smaller .* not larg'),
        (
            'simclr/simclr_vit-b16_yfcc15m',
            {'model.backbone.img_size': 64},
            rf'img_size is 64, but {VIEWS}.size is 224',
        ),
        (
            'slip/slip_swin-tiny_yfcc15m',
            {f'{VIEWS}.size': 160},
            rf'model.backbone.img_size is 224, but {VIEWS}.size is 160',
        ),
        (
            'benchmarks/finetune/vit-b16_in1k',
            {'model.backbone.img_size': 384},
            rf'img_size is 384, but {VIEWS}.scale is 224',
        ),
        (
            'slip/slip_vit-tiny_emoji',
            {'val_dataloader.dataset.datasets.1.pipeline.1.scale': (64, 64)},
            r'img_size is 32, but val_dataloader.dataset.datasets.1.pipeline.1.scale is 64',
        ),
        (EXPERIMENT, dict(image_size='large'), "image_size is a side in pixels, .* not 'large'"),
    ],
)
def test_sizes_that_disagree(name, options, message):
    with pytest.raises(ValueError, match=message):
        load_config(path_of(name), options)


def test_an_option_that_disagrees_with_the_file(tmp_path):
    child = tmp_path / 'child.py'
    child.write_text(f"_base_ = ['{path_of(EXPERIMENT)}']\nimage_size = 336\n")
    with pytest.raises(ValueError, match='image_size is 336, but model'):
        load_config(child, {'model.backbone.img_size': 448})
    assert load_config(child, dict(image_size=448)).model.backbone.img_size == 448


def test_a_backbone_of_any_size():
    """A ResNet takes what it is given, in training another size than in evaluation."""
    cfg = load_config(path_of('slip/slip_resnet50_yfcc15m'), {f'{VIEWS}.size': 160})
    assert image_size_of(cfg) == 160


def test_training_stops_before_anything_runs(tmp_path):
    command = [str(path_of(EXPERIMENT)), '--work-dir', str(tmp_path / 'run')]
    with pytest.raises((ValueError, SystemExit), match=f'img_size is 336, but {VIEWS}.size is 224'):
        train_cli.main([*command, '--cfg-options', 'model.backbone.img_size=336'])
    assert not (tmp_path / 'run').exists()


def test_evaluation_takes_the_size_of_its_model(image):
    """A 32-pixel model at the 224 pixels of the benchmark never ended on a CPU."""
    cfg = load_config(path_of('benchmarks/zero_shot/zero_shot_26'))
    test_cli.use_model(cfg, str(path_of('slip/slip_vit-tiny_emoji')))
    apply_options(cfg)
    assert cfg.model.backbone.img_size == 32
    assert outputs(cfg.test_dataloader.dataset.pipeline, image) == ([32], [])


def test_an_option_beside_image_size_is_not_undone():
    options = {'image_size': 64, 'model.backbone.img_size': 32}
    with pytest.raises(ValueError, match=r'image_size is 64, but model\.backbone\.img_size is 32'):
        load_config(ROOT / 'configs' / 'slip' / 'slip_vit-tiny_emoji.py', options)
