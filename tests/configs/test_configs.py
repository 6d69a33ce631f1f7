"""Every config parses and builds, says what was published, and learns when it is shrunk."""

import json
import math
import re
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmslip.datasets import CaptionTable, CLIPTokenizer
from mmslip.models import SLIP
from mmslip.registry import DATASETS, MODELS, TRANSFORMS
from tests.datasets.test_shards import pack

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    path
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.relative_to(ROOT).parts
)
# family, size, data set, epochs where they are not the default of the data set
NAME = re.compile(r'(slip|clip|simclr)_vit-([sbl])16_([a-z0-9]+)(?:_(\d+)e)?')
OFFICIAL = [path for path in CONFIGS if NAME.fullmatch(path.stem)]
FAMILIES = [
    'slip/slip_vit-b16_yfcc15m',
    'clip/clip_vit-b16_yfcc15m',
    'simclr/simclr_vit-b16_yfcc15m',
    'slip/slip_resnet50_yfcc15m',
    'slip/slip_mocov3_vit-b16_yfcc15m',
]
SOURCES = [path for path in OFFICIAL if '_vit-b16_' in path.stem and not path.stem.endswith('0e')]

WIDTH_LAYERS_HEADS = dict(s=(384, 12, 12), b=(768, 12, 12), l=(1024, 24, 16))
LR_DECAY = dict(slip=(3e-3, 0.1), clip=(5e-4, 0.5), simclr=(3.2e-3, 0.1))
EPOCHS = dict(yfcc15m=25, cc3m=40, cc12m=35)  # published; those of other data sets are our choice

BATCH, STEPS = 16, 8


def load(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / f'{name}.py')


def name_of(path: Path) -> str:
    return path.stem


def build(cfg: Config) -> nn.Module:
    kind = cfg.model.backbone.type
    if kind == 'TIMMBackbone':
        pytest.importorskip('timm', reason='timm is not installed')
    # On 'meta' a ViT-L costs nothing; these read a tensor's value when they are built.
    with torch.device('cpu' if kind in ('ResNet', 'SwinTransformer', 'ConvNeXt') else 'meta'):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize('path', CONFIGS, ids=name_of)
def test_builds(path):
    cfg = Config.fromfile(path)
    model = build(cfg)
    if isinstance(model, SLIP):
        names = [name for name, _ in model.named_parameters()]
        assert not any(name.startswith('ssl.backbone') for name in names)
        assert any(name.startswith('backbone.') for name in names)


@pytest.mark.parametrize('path', OFFICIAL, ids=name_of)
def test_official_shapes(path):
    family, size, *_ = NAME.fullmatch(path.stem).groups()
    width, layers, heads = WIDTH_LAYERS_HEADS[size]
    model = build(Config.fromfile(path))
    vit = model.backbone
    assert len(vit.layers) == layers
    assert vit.pos_embed.shape == (1, 14 * 14 + 1, width)
    assert vit.cls_token.shape == (1, 1, width)
    assert vit.patch_embed.projection.weight.shape == (width, 3, 16, 16)
    for block in vit.layers:
        assert block.attn.num_heads == heads
        assert block.attn.qkv.weight.shape == (3 * width, width)
        assert block.ffn.layers[0][0].weight.shape == (4 * width, width)
        assert block.ln1.eps == block.ln2.eps == vit.ln1.eps == 1e-6
    assert all(param.requires_grad for param in model.parameters())

    assert (model.text_backbone is None) == (family == 'simclr')
    if model.text_backbone is not None:
        text = model.text_backbone
        assert text.token_embedding.weight.shape == (49408, 512)
        assert text.pos_embed.shape == (77, 512)
        assert len(text.layers) == 12
        assert {block.num_heads for block in text.layers} == {8}
        assert model.neck.weight.shape == (width, 512)
        assert model.text_neck.weight.shape == (512, 512)
        assert model.head.max_log_scale == pytest.approx(4.6052, abs=1e-4)
        assert model.head.gather_with_grad

    assert (model.ssl is None) == (family == 'clip')
    if model.ssl is not None:
        shapes = {
            name.removeprefix('ssl.'): tuple(param.shape)
            for name, param in model.named_parameters()
            if name.startswith('ssl.')
        }
        assert shapes == {
            'neck.fc0.weight': (4096, width),
            'neck.fc0.bias': (4096,),
            'neck.bn0.weight': (4096,),
            'neck.bn0.bias': (4096,),
            'neck.fc1.weight': (4096, 4096),
            'neck.fc1.bias': (4096,),
            'neck.bn1.weight': (4096,),
            'neck.bn1.bias': (4096,),
            'neck.fc2.weight': (256, 4096),
            'neck.fc2.bias': (256,),
        }
        assert model.ssl.head.temperature == 0.1
        assert model.ssl_weight == 1.0


@pytest.mark.parametrize('path', OFFICIAL, ids=name_of)
def test_official_recipe(path):
    family, _, data, epochs = NAME.fullmatch(path.stem).groups()
    cfg = Config.fromfile(path)
    lr, decay = LR_DECAY[family]
    assert cfg.optim_wrapper == dict(
        type='OptimWrapper',
        constructor='mmslip.NoDecay1dOptimWrapperConstructor',
        optimizer=dict(
            type='AdamW', lr=lr, weight_decay=decay, betas=(0.9, 0.98), eps=1e-8, fused=True
        ),
    )
    assert 64 * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 4096
    assert cfg.train_dataloader.drop_last
    assert cfg.sync_bn == 'torch'
    expected = int(epochs) if epochs else EPOCHS.get(data)
    if expected:
        assert cfg.train_cfg.max_epochs == expected
    assert cfg.train_dataloader.dataset.data_root == f'data/{data}/'


def test_every_published_run_has_a_config():
    names = {path.stem for path in OFFICIAL}
    for size in 'sbl':
        yfcc = f'vit-{size}16_yfcc15m'
        assert {f'{family}_{yfcc}' for family in LR_DECAY} <= names
        assert {f'slip_{yfcc}_50e', f'slip_{yfcc}_100e'} <= names
    assert {f'{f}_vit-b16_{data}' for f in ('slip', 'clip') for data in ('cc3m', 'cc12m')} <= names


@pytest.mark.parametrize('name', FAMILIES[:2])
def test_switches_to_official_behaviour(name):
    """The command line of the READMEs."""
    cfg = load(name)
    tokenizer = 'train_dataloader.dataset.pipeline.2.tokenizer'
    cfg.merge_from_dict(
        {
            'model.head.gather_with_grad': False,
            f'{tokenizer}.keep_end_token': False,
            f'{tokenizer}.parse_control_tokens': True,
        }
    )
    assert not build(cfg).head.gather_with_grad
    transform = TRANSFORMS.build(cfg.train_dataloader.dataset.pipeline[2])
    assert not transform.tokenizer.keep_end_token
    assert transform.tokenizer.parse_control_tokens


def test_cheap_views(tmp_path):
    """Half of 14 x 14 and of 7 x 7 patches, and the class token; all else as in the paper's run."""
    cfg, official = (load(f'slip/slip_vit-b16_yfcc15m{end}') for end in ('_cheap-ssl', ''))
    dataset_cfg = cfg.train_dataloader.dataset
    write_source('yfcc15m', tmp_path)
    dataset_cfg.data_root = str(tmp_path)
    inputs = DATASETS.build(dataset_cfg)[0]['inputs']
    assert inputs['image'].shape == (3, 224, 224)
    assert [view.shape for view in inputs['views']] == 2 * [(3, 112, 112)]
    model = build(cfg)
    lengths = []
    model.backbone.layers[0].register_forward_pre_hook(
        lambda block, inputs: lengths.append(inputs[0].shape[1])
    )
    for size in (224, 112):
        model.backbone(torch.empty(2, 3, size, size, device='meta'))
    assert lengths == [1 + 98, 1 + 24]
    views, published = (c.train_dataloader.dataset.pipeline[1] for c in (cfg, official))
    assert views == dict(published, ssl_size=112, blur_sigma=(0.05, 1.0))
    assert cfg.optim_wrapper == official.optim_wrapper
    assert cfg.model.backbone.pop('patch_dropout') == 0.5
    assert cfg.model == official.model


@pytest.mark.parametrize('path', OFFICIAL, ids=name_of)
def test_official_views(path):
    """`mmslip.SLIPViews` has the published views as its defaults."""
    views = Config.fromfile(path).train_dataloader.dataset.pipeline[1]
    half = dict(slip={}, clip=dict(ssl_views=0), simclr=dict(image_views=0))
    family = NAME.fullmatch(path.stem)[1]
    assert views == dict(type='mmslip.SLIPViews', size=224, **half[family])


def write_source(data: str, root: Path) -> list[str]:
    """One sample in the layout that the config of a data set describes; returns its captions."""
    image = dict(
        coco='train2017/1.jpg',
        redcaps='images/aww/x1.jpg',
        cc3m='images/00000/000000000.jpg',
        cc12m='images/00000/000000000.jpg',
    ).get(data, '003.jpg')
    (root / image).parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (240, 300, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / image)
    (root / 'annotations').mkdir()
    if data == 'coco':
        captions = [dict(image_id=1, caption=caption) for caption in ('a dog', 'a cat')]
        content = dict(images=[dict(id=1, file_name='1.jpg')], annotations=captions)
        (root / 'annotations' / 'captions_train2017.json').write_text(json.dumps(content))
        return ['a dog', 'a cat']
    if data == 'redcaps':
        content = dict(annotations=[dict(image_id='x1', subreddit='aww', caption='a dog')])
        (root / 'annotations' / 'aww_2017.json').write_text(json.dumps(content))
    elif data == 'cc3m':
        (root / 'Train_GCC-training.tsv').write_text('a dog\thttp://a.example/1\n')
    elif data == 'cc12m':
        (root / 'cc12m.tsv').write_text('http://a.example/1\ta dog\n')
    else:
        CaptionTable.write(root / 'train.table', [('1002003', ['a dog'])])
        (root / 'images' / '01').mkdir(parents=True)
        with zipfile.ZipFile(root / 'images' / '01' / '002.zip', 'w') as archive:
            archive.write(root / image, image)
    return ['a dog']


@pytest.mark.parametrize('path', SOURCES, ids=name_of)
def test_dataset_and_pipeline(path, tmp_path):
    """The layout the READMEs describe goes through the pipeline of every family."""
    dataset_cfg = Config.fromfile(path).train_dataloader.dataset
    captions = write_source(NAME.fullmatch(path.stem)[3], tmp_path)
    dataset_cfg.data_root = str(tmp_path)
    dataset = DATASETS.build(dataset_cfg)
    assert len(dataset) == 1
    assert dataset.get_data_info(0)['text'] == captions

    inputs = dataset[0]['inputs']
    family = NAME.fullmatch(path.stem)[1]
    language = {'image', 'text', 'keys'}
    parts = dict(slip=language | {'views'}, clip=language, simclr={'views'})
    assert inputs.keys() == parts[family]
    images = inputs.get('views', []) + [inputs[key] for key in ('image',) if key in inputs]
    assert len(images) == dict(slip=3, clip=1, simclr=2)[family]
    for image in images:
        assert image.shape == (3, 224, 224)
        assert image.dtype == torch.uint8
    if 'text' in inputs:
        assert inputs['text'].shape == (77,)


BASES = ['image_text', 'few_captions', 'table', 'shards', 'parquet', 'mixed', 'stream']


@pytest.mark.parametrize('name', BASES)
def test_bases_for_own_and_several_sources(name, tmp_path, monkeypatch):
    """Each reads what its docstring asks for."""
    monkeypatch.chdir(tmp_path)
    image = cv2.imencode('.jpg', np.zeros((24, 32, 3), np.uint8))[1].tobytes()
    members = [('000000012.jpg', image), ('000000012.json', b'{"caption": "a dog"}')]
    loader_cfg = Config.fromfile(ROOT / 'configs' / '_base_' / 'datasets' / f'{name}.py')[
        'train_dataloader'
    ]
    if name == 'mixed':
        for source in ('cc3m', 'cc12m'):
            write_source(source, tmp_path / 'data' / source)
    elif name == 'parquet':
        pyarrow = pytest.importorskip('pyarrow', reason='pyarrow is not installed')
        from pyarrow import parquet

        folder = tmp_path / 'data' / 'parquet'
        folder.mkdir(parents=True)
        table = pyarrow.table(dict(image=[dict(bytes=image, path='1.jpg')], caption=['a dog']))
        parquet.write_table(table, folder / 'train-00000-of-00001.parquet')
    elif name in ('image_text', 'few_captions', 'table'):
        folder = tmp_path / 'data' / 'pairs'
        (folder / 'images' / 'a').mkdir(parents=True)
        (folder / 'images' / 'a' / '1.jpg').write_bytes(image)
        (folder / 'train.jsonl').write_text('{"image": "a/1.jpg", "caption": "a dog"}\n')
        (folder / 'bare' / 'a').mkdir(parents=True)
        (folder / 'bare' / 'a' / '2.jpg').write_bytes(image)
        CaptionTable.write(folder / 'train.table', [('a/1.jpg', ['a dog'])])
    elif name == 'stream':
        pytest.importorskip('webdataset', reason='webdataset is not installed')
        loader_cfg.dataset.shards = pack(tmp_path / '00000.tar', members)
    else:
        pack(tmp_path / 'data' / 'shards' / '00000.tar', members)
    rows = 8 if name == 'few_captions' else 1
    loader_cfg.update(batch_size=rows, num_workers=0)
    inputs = next(iter(Runner.build_dataloader(loader_cfg, seed=0)))['inputs']
    assert CLIPTokenizer().decode(inputs['text'][0]) == 'a dog'
    assert inputs['image'].shape == (1, 3, 224, 224)
    assert [view.shape for view in inputs['views']] == 2 * [(rows, 3, 224, 224)]


def shrink(cfg: Config) -> Config:
    """The same model in small: the structure of the config stays, its widths go."""
    model = cfg.model
    if model.backbone.type == 'ResNet':
        model.backbone.update(stem_channels=8, base_channels=4)
    else:
        arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
        model.backbone.update(arch=arch, img_size=32)
    if model.text_backbone:
        model.text_backbone.update(
            vocab_size=32, context_length=8, width=32, num_layers=2, num_heads=2
        )
        model.neck.out_channels = model.text_neck.out_channels = 32
    if model.get('ssl'):
        model.ssl.neck.update(hid_channels=64, out_channels=32)
        if 'predictor' in model.ssl.head:
            model.ssl.head.predictor.update(in_channels=32, hid_channels=64, out_channels=32)
    return cfg


def make_batch(model: nn.Module) -> dict:
    """A collated batch with what the model's halves need and nothing else."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(32, 224, (BATCH, 3, 32, 32), generator=rng)

    def view() -> Tensor:
        return (images + torch.randint(-32, 32, images.shape, generator=rng)).to(torch.uint8)

    inputs = {}
    if model.with_text:
        text = torch.randint(1, 31, (BATCH, 8), generator=rng)
        text[:, -1] = 31  # the end token has the highest id
        inputs.update(image=view(), text=text)
    if model.ssl is not None:
        inputs['views'] = [view(), view()]
    return dict(inputs=inputs)


@pytest.fixture(params=FAMILIES)
def small(request) -> tuple[Config, nn.Module]:
    torch.manual_seed(0)
    # MoCo v3's momentum runs along a cosine over the training that the runner announces here.
    MessageHub.get_current_instance().update_info('max_iters', STEPS)
    cfg = shrink(load(request.param))
    model = MODELS.build(cfg.model)
    model.init_weights()
    return cfg, model.train()


def test_learns(small):
    cfg, model = small
    batch, wrapper = make_batch(model), build_optim_wrapper(model, cfg.optim_wrapper)
    logs = [model.train_step(batch, wrapper) for _ in range(STEPS)]
    losses = [name for name in logs[0] if name.startswith('loss')]
    halves = {'loss_clip': model.with_text, 'loss_ssl': model.ssl is not None}
    assert set(losses) == {'loss', *(name for name, there in halves.items() if there)}
    for name in losses:
        values = [log[name].item() for log in logs]
        assert all(map(math.isfinite, values)), name
        assert values[-1] < values[0], f'{name}: {values}'


def test_gradients_reach_every_part(small):
    _, model = small
    if hasattr(model.backbone, 'depth'):
        # Residual branches of mmpretrain's ResNet start at zero and would hide what is behind.
        for name, param in model.backbone.named_parameters():
            if name.endswith('bn3.weight'):
                nn.init.ones_(param)
    batch = model.data_preprocessor(make_batch(model), training=True)
    model.parse_losses(model(**batch, mode='loss'))[0].backward()
    reached = set()
    for name, param in model.named_parameters():
        if param.requires_grad:
            assert param.grad is not None, name
            assert param.grad.isfinite().all(), name
            if param.grad.any():
                reached.add(name.partition('.')[0])
    parts = {'backbone'}
    if model.with_text:
        parts |= {'neck', 'text_backbone', 'text_neck', 'head'}
    if model.ssl is not None:
        parts.add('ssl')
    assert reached == parts


def test_parameters_stand_once(small):
    cfg, model = small
    state = model.state_dict()
    storages = [value.data_ptr() for value in state.values() if value.numel()]
    assert len(set(storages)) == len(storages)
    assert not any(name.startswith('ssl.backbone') for name in state)

    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    held = [id(param) for group in groups for param in group['params']]
    trained = [id(param) for param in model.parameters() if param.requires_grad]
    assert sorted(held) == sorted(trained)
    decays = {
        param.ndim >= 2: group['weight_decay'] for group in groups for param in group['params']
    }
    assert decays == {True: cfg.optim_wrapper.optimizer.weight_decay, False: 0.0}


class Line(BaseModel):
    """Smallest model that a runner trains."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1))
        self.bias = nn.Parameter(torch.ones(1))

    def forward(self, inputs: Tensor, mode: str) -> dict[str, Tensor]:
        return dict(loss=(inputs @ self.weight + self.bias).square().mean())


class RecordLR(Hook):
    def __init__(self) -> None:
        self.values: list[list[float]] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.values.append([group['lr'] for group in runner.optim_wrapper.param_groups])


@pytest.mark.parametrize(
    ('name', 'epochs'),
    [
        ('slip/slip_vit-b16_yfcc15m', 25),
        ('slip/slip_vit-b16_yfcc15m_100e', 100),
        ('clip/clip_vit-b16_cc3m', 40),
        ('simclr/simclr_vit-b16_yfcc15m', 25),
    ],
)
def test_learning_rates(name, epochs, tmp_path):
    cfg = load(name)
    epoch_length = 5
    rows = [dict(inputs=torch.ones(1)) for _ in range(epoch_length)]
    record = RecordLR()
    Runner(
        model=Line(),
        work_dir=str(tmp_path),
        train_dataloader=DataLoader(rows),
        train_cfg=cfg.train_cfg,
        optim_wrapper=cfg.optim_wrapper,
        param_scheduler=cfg.param_scheduler,
        default_hooks=dict(timer=None, logger=None, checkpoint=None, sampler_seed=None),
        custom_hooks=[record],
        default_scope='mmpretrain',
        experiment_name=f'learning_rates_{name}',
        log_level='WARNING',
    ).train()

    base = cfg.optim_wrapper.optimizer.lr
    cosine = np.arange((epochs - 1) * epoch_length)
    cosine = 1e-5 + 0.5 * (base - 1e-5) * (1 + np.cos(math.pi * cosine / len(cosine)))
    expected = np.concatenate([np.linspace(1e-6, base, epoch_length), cosine])
    assert len(record.values) == epochs * epoch_length
    for group in np.transpose(record.values):  # with and without decay
        np.testing.assert_allclose(group, expected, rtol=1e-9)


def test_metafiles():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text(encoding='utf-8'))
    found = [str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('metafile.yml')]
    assert sorted(index['Import']) == sorted(found)
    listed = []
    for name in index['Import']:
        content = yaml.safe_load((ROOT / name).read_text(encoding='utf-8'))
        collections = {collection['Name'] for collection in content['Collections']}
        for collection in content['Collections']:
            assert (ROOT / collection['README']).is_file()
        for model in content['Models']:
            path = ROOT / model['Config']
            assert path.is_file()
            assert model['Name'] == path.stem
            assert model['In Collection'] in collections
            cfg = Config.fromfile(path)
            assert model['Metadata']['Epochs'] == cfg.train_cfg.max_epochs
            listed.append(path)
            if 'Weights' in model:  # ours, in the package
                assert (ROOT / model['Weights']).is_file()
                assert model['Metadata']['Batch Size'] == cfg.train_dataloader.batch_size
                continue
            # Whoever reads the numbers by machine must not take them for ours.
            assert bool(model['Results']) == ('Results From' in model['Metadata'])
            assert model['Metadata']['Batch Size'] == 4096
    # These emoji jobs publish nothing, and those below benchmarks/ judge the others.
    benchmarks = ROOT / 'configs' / 'benchmarks'
    runs = [path for path in CONFIGS if benchmarks not in path.parents]
    silent = {'slip_vit-tiny_emoji', 'slip_tiny_emoji_few-captions'}
    silent.add('slip_tiny_emoji_ten-languages')
    assert sorted(listed) == [path for path in runs if path.stem not in silent]
