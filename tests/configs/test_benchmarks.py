"""Linear classification, fine-tuning and frozen features, from their configs."""

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmslip.registry import MODELS, TRANSFORMS
from tests.configs.test_configs import Line, RecordLR
from tests.conftest import draw_shape

CONFIGS = Path(__file__).parents[2] / 'configs' / 'benchmarks'
SHAPES = dict(s=(384, 12, 12), b=(768, 12, 12), l=(1024, 24, 16))
ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
CLASSES = ['disc', 'square']


def load(name: str) -> Config:
    return Config.fromfile(CONFIGS / f'{name}.py')


@pytest.fixture(autouse=True)
def _plain_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep runners from formatting their config for the log, which takes several seconds."""
    monkeypatch.setattr(Config, 'pretty_text', '')


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """Eight images of two classes in each split, in ImageNet's layout."""
    for split in ('train', 'val'):
        for index in range(8):
            folder = tmp_path / 'imagenet' / split / ('n1', 'n0')[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f'{index}.JPEG'), draw_shape(index))
    return tmp_path / 'imagenet'


def pretrain(make_slip: Callable, path: Path, **changes: object) -> dict[str, Tensor]:
    """Save a SLIP whose backbone has no parameter at its initial value; returns the backbone."""
    model = make_slip(backbone=dict(type='mmslip.VisionTransformer', arch=ARCH), **changes)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) * 0.2 + 0.1)
    torch.save(dict(state_dict=model.state_dict()), path)
    return model.backbone.state_dict()


def shrink(cfg: Config, imagenet: Path, work_dir: Path, **options: object) -> Config:
    """Two classes, two steps of four images."""
    cfg.merge_from_dict(
        {
            'work_dir': str(work_dir),
            'experiment_name': f'{work_dir.parent.name}_{work_dir.name}',
            'model.backbone.init_cfg.checkpoint': str(work_dir.parent / 'pretrained.pth'),
            'model.head.in_channels': 16,
            'model.head.num_classes': 2,
            'data_preprocessor.num_classes': 2,
            'train_dataloader.batch_size': 4,
            'train_cfg.max_epochs': 1,
            'param_scheduler': None,  # whose warm-up is longer
            'val_evaluator.topk': (1, 2),
            'default_hooks.logger.interval': 1,
            **options,
        }
    )
    cfg.model.backbone.arch = ARCH
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.num_workers = 0
        loader.dataset.data_root = str(imagenet)
        loader.dataset.metainfo = dict(classes=CLASSES)
    return cfg


def state_of(model: nn.Module, part: str) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in getattr(model, part).state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Names of the values that are not the same bit for bit."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_linear_probe_trains_the_head_alone(make_slip, imagenet, tmp_path):
    expected = pretrain(make_slip, tmp_path / 'pretrained.pth')
    cfg = load('linear_probe/vit-b16_in1k')
    runner = Runner.from_cfg(
        shrink(cfg, imagenet, tmp_path / 'run', **{'model.backbone.frozen_stages': 2})
    )
    runner.model.init_weights()
    assert changed(expected, state_of(runner.model, 'backbone')) == set()
    head = state_of(runner.model, 'head')
    assert not head['fc.bias'].any()
    assert head['fc.weight'].std() == pytest.approx(0.01, rel=0.6)
    trained = [name for name, param in runner.model.named_parameters() if param.requires_grad]
    assert trained == ['head.fc.weight', 'head.fc.bias']

    model = runner.train()
    assert runner.iter == 2
    assert changed(expected, state_of(model, 'backbone')) == set()
    assert changed(head, state_of(model, 'head')) == {'fc.weight', 'fc.bias'}
    assert list((tmp_path / 'run').glob('best_linear_imagenet_top1_epoch_1.pth'))


@pytest.mark.parametrize('frozen', [True, False])
def test_linear_probe_leaves_batch_norm_alone(frozen, imagenet, tmp_path):
    """Any backbone that can be frozen; and the same run notices one that is not."""
    backbone = dict(_delete_=True, type='ResNet', depth=18, stem_channels=8, base_channels=8)
    if frozen:
        backbone.update(frozen_stages=4, norm_eval=True)
    cfg = load('linear_probe/vit-b16_in1k')
    cfg.merge_from_dict(dict(model=dict(backbone=backbone)))
    options = {'model.neck': dict(type='GlobalAveragePooling'), 'model.head.in_channels': 64}
    cfg = shrink(cfg, imagenet, tmp_path / 'run', **options)
    del cfg.model.backbone['arch'], cfg.model.backbone['init_cfg']
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    before = state_of(runner.model, 'backbone')
    model = runner.train()
    different = changed(before, state_of(model, 'backbone'))
    if frozen:
        assert different == set()
    else:
        assert {'bn1.running_mean', 'layer4.1.bn2.num_batches_tracked'} < different
    assert model.head.fc.bias.any()


@pytest.mark.parametrize('size', 'sbl')
def test_linear_probe_recipe(size):
    cfg = load(f'linear_probe/vit-{size}16_in1k')
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=0.4, momentum=0.9, weight_decay=0.0)
    assert 8 * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 1024
    model = build(cfg)
    assert shape_of(model) == SHAPES[size]
    assert not any(param.requires_grad for param in model.backbone.parameters())
    assert all(param.requires_grad for param in model.head.parameters())
    assert f'vit-{size}16' in cfg.model.backbone.init_cfg.checkpoint


def build(cfg: Config) -> nn.Module:
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def shape_of(model: nn.Module) -> tuple[int, int, int]:
    """Width, layers and heads of the backbone, which the head must fit."""
    assert model.head.fc.weight.shape == (1000, model.backbone.embed_dims)
    layers = model.backbone.layers
    return model.backbone.embed_dims, len(layers), layers[0].attn.num_heads


@pytest.mark.parametrize(
    ('size', 'epochs', 'warmup', 'rate', 'drop_path'),
    [('s', 100, 20, 0.65, 0.0), ('b', 100, 20, 0.65, 0.1), ('l', 50, 5, 0.75, 0.1)],
)
def test_finetune_recipe(size, epochs, warmup, rate, drop_path):
    cfg = load(f'finetune/vit-{size}16_in1k')
    model = build(cfg)
    assert shape_of(model) == SHAPES[size]
    assert cfg.model.backbone.drop_path_rate == drop_path
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[0].end) == (epochs, warmup)
    assert 8 * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 1024
    assert f'vit-{size}16' in cfg.model.backbone.init_cfg.checkpoint
    names = {id(param): name for name, param in model.named_parameters()}
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    layers, seen = len(model.backbone.layers), set()
    for group in groups:
        (param,) = group['params']
        name = names[id(param)]
        seen.add(name)
        *_, tail = name.split('backbone.')
        if tail.startswith('layers.'):
            power = layers - int(tail.split('.')[1])
        else:
            power = layers + 1 if tail.startswith(('cls', 'pos', 'patch')) else 0
        assert group['lr'] == pytest.approx(4e-3 * rate**power), name
        exempt = param.ndim == 1 or tail in ('cls_token', 'pos_embed')
        assert group['weight_decay'] == (0 if exempt else 0.05), name
    assert seen == set(names.values())


def test_finetune_loads_the_backbone_and_trains_all_of_it(make_slip, imagenet, tmp_path):
    expected = pretrain(make_slip, tmp_path / 'pretrained.pth')
    runner = Runner.from_cfg(shrink(load('finetune/vit-b16_in1k'), imagenet, tmp_path / 'run'))
    runner.model.init_weights()
    assert changed(expected, state_of(runner.model, 'backbone')) == set()
    model = runner.train()
    assert runner.iter == 2
    # A step of drop path may leave out the whole of a layer, two steps hardly do.
    moved = changed(expected, state_of(model, 'backbone'))
    assert {'cls_token', 'pos_embed', 'patch_embed.projection.weight', 'ln1.weight'} <= moved
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_a_backbone_without_language_half_loads_alike(make_slip, imagenet, tmp_path):
    """A checkpoint of SimCLR; mmpretrain's own ViT has the same names."""
    alone = dict(neck=None, text_backbone=None, text_neck=None, head=None)
    ssl = dict(
        type='mmslip.SimCLR',
        neck=dict(type='NonLinearNeck', in_channels=16, hid_channels=8, out_channels=8),
        head=dict(type='mmslip.SimCLRHead'),
    )
    expected = pretrain(make_slip, tmp_path / 'pretrained.pth', ssl=ssl, **alone)
    cfg = shrink(load('finetune/vit-b16_in1k'), imagenet, tmp_path / 'run')
    for name in ('mmslip.VisionTransformer', 'VisionTransformer'):
        cfg.model.backbone.type = name
        model = MODELS.build(cfg.model)
        model.init_weights()
        assert changed(expected, state_of(model, 'backbone')) == set()


@pytest.mark.parametrize('name', ['finetune/vit-b16', 'finetune/vit-l16', 'linear_probe/vit-b16'])
def test_learning_rates(name, tmp_path):
    cfg = load(f'{name}_in1k')
    length, epochs = 2, cfg.train_cfg.max_epochs
    record = RecordLR()
    Runner(
        model=Line(),
        work_dir=str(tmp_path),
        train_dataloader=DataLoader([dict(inputs=torch.ones(1)) for _ in range(length)]),
        train_cfg=cfg.train_cfg,
        optim_wrapper=dict(optimizer=cfg.optim_wrapper.optimizer),
        param_scheduler=cfg.param_scheduler,
        default_hooks=dict(timer=None, logger=None, checkpoint=None, sampler_seed=None),
        custom_hooks=[record],
        default_scope='mmpretrain',
        experiment_name=f'benchmark_learning_rates_{name}',
        log_level='WARNING',
    ).train()
    if name.startswith('linear'):
        steps = np.repeat(np.arange(epochs), length)
        expected = 0.4 * 0.5 * (1 + np.cos(math.pi * steps / epochs))
    else:
        warmup = length * (20 if epochs == 100 else 5)
        steps = np.arange(length * epochs - warmup)
        cosine = 1e-6 + (4e-3 - 1e-6) * 0.5 * (1 + np.cos(math.pi * steps / len(steps)))
        expected = np.concatenate([np.linspace(1e-6, 4e-3, warmup), cosine])
    np.testing.assert_allclose(np.ravel(record.values), expected, rtol=1e-7)


def test_every_augmentation_of_fine_tuning_runs():
    (augment,) = (
        TRANSFORMS.build(step)
        for step in load('finetune/vit-b16_in1k').train_dataloader.dataset.pipeline
        if step.type == 'RandAugment'
    )
    image = cv2.resize(draw_shape(1), (64, 48))
    kinds = set()
    for transform in augment.transforms:
        kinds.add(type(transform).__name__)
        for _ in range(8):  # signs and magnitudes are random
            transform.prob = 1.0
            out = transform(dict(img=image.copy(), img_shape=image.shape[:2]))['img']
            assert (out.shape, out.dtype) == (image.shape, np.uint8), transform
    assert len(kinds) >= 12


@pytest.mark.parametrize('text_tower', [True, False])
def test_frozen_features(text_tower, make_slip, imagenet, tmp_path):
    cfg = load('features/knn_linear_in1k')
    cfg.merge_from_dict(
        {
            'work_dir': str(tmp_path / 'run'),
            'experiment_name': f'{tmp_path.name}_run',
            'model.text_backbone': dict(vocab_size=8, width=8, num_layers=1, num_heads=1),
            'test_dataloader.num_workers': 0,
        }
    )
    cfg.model.backbone.arch = ARCH
    if not text_tower:
        cfg.model.update(neck=None, text_backbone=None, text_neck=None, head=None)
    for part in cfg.test_dataloader.dataset.datasets.values():
        part.task = dict(
            name='imagenet', classes=CLASSES, templates=['a {}.'], metric='top1', labels=CLASSES
        )
        part.samples = 8
        part.dataset.update(data_root=str(imagenet), metainfo=dict(classes=CLASSES))
    cfg.test_evaluator[1].l2 = (1e-6,)  # hardly any: what is learned is known
    for part in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        cfg[part] = None  # as tools/test.py does
    got = Runner.from_cfg(cfg).test()
    # The same eight images are learned from and asked for.
    assert got['linear/imagenet_top1'] == 100
    for name in ('knn', 'linear'):
        assert got[f'{name}/imagenet_top1_low'] <= got[f'{name}/imagenet_top1']


def test_frozen_features_of_the_full_config():
    cfg = load('features/knn_linear_in1k')
    knn, probe = cfg.test_evaluator
    assert (knn.k, knn.temperature) == (20, 0.07)
    assert probe == dict(type='mmslip.LinearProbe')
    parts = cfg.test_dataloader.dataset.datasets
    assert (parts.reference.dataset.split, parts.query.dataset.split) == ('train', 'val')
    assert parts.reference.role == 'reference'
