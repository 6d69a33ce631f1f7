"""Loading by mmengine: every address is read as data, and what does not fit is said."""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner import CheckpointLoader, Runner
from torch import nn

from mmslip.apis import init_model
from mmslip.cli import convert
from mmslip.models import SLIP
from mmslip.registry import MODELS
from mmslip.weights import FORMATS, export_weights, import_weights, load
from mmslip.weights.load import Pretrained, load_from_local
from mmslip.weights.stated import require_stated
from tests.test_training import small_config
from tests.weights.foreign_models import (
    CLIP,
    ModelSpec,
    Runs,
    assert_same,
    random_slip,
    save,
    vit,
    write_bare_open_clip,
    write_hugging_face,
    write_open_clip,
    write_openai_archive,
)


def test_every_address_of_mmengine_is_ours() -> None:
    """A release with one more would load it by unpickling."""
    loaders = CheckpointLoader._schemes
    assert {loader.__module__ for loader in loaders.values()} == {load.__name__}
    assert len(loaders) == 11
    assert WEIGHT_INITIALIZERS.get('Pretrained') is Pretrained
    with pytest.raises(ValueError, match='pavi:// is not supported; fetch the file'):
        CheckpointLoader.load_checkpoint('pavi://a/b.pth')


@pytest.mark.parametrize('address', ['ftp://a/b.pth', 'HDFS://a/b.pth', 'gs://a', 'file://a/b.pth'])
def test_an_unknown_scheme_is_named(address: str) -> None:
    with pytest.raises(ValueError, match=f'(?i)There is no way to read {address}: .*give its path'):
        CheckpointLoader.load_checkpoint(address)


@pytest.mark.parametrize('scheme', ['file', 'FILE'])
def test_addresses_of_files_are_read(tmp_path: Path, scheme: str) -> None:
    torch.save(dict(state_dict=WEIGHTS), tmp_path / 'a b.pth')
    loaded = CheckpointLoader.load_checkpoint(f'{scheme}://{tmp_path}/a%20b.pth')
    assert_same(loaded['state_dict'], WEIGHTS)
    with pytest.raises(FileNotFoundError, match=f'There is no checkpoint {tmp_path}/none.pth'):
        CheckpointLoader.load_checkpoint(f'{scheme}://{tmp_path}/none.pth')


def test_schemes_may_be_written_in_capitals(serve: tuple, tmp_path: Path) -> None:
    address, _ = serve
    torch.save(dict(state_dict=WEIGHTS), tmp_path / 'file.pth')
    address = address.replace('http://', 'HTTP://')
    assert_same(CheckpointLoader.load_checkpoint(f'{address}/file.pth')['state_dict'], WEIGHTS)


WEIGHTS = {'backbone.w': torch.arange(4.0), 'head.w': torch.ones(2)}
NAMES = [
    'torchvision://x',
    'modelzoo://x',
    'open-mmlab://x',
    'openmmlab://x',
    'mmcls://x',
    's3://x',
]


@pytest.fixture
def by_name(serve: tuple, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every name that mmengine knows leads to ``tmp_path / 'file.pth'``."""
    address, _ = serve
    for function in ('get_torchvision_models', 'get_external_models', 'get_mmcls_models'):
        monkeypatch.setattr(load, function, lambda: dict(x=f'{address}/file.pth'))
    store = SimpleNamespace(get=lambda name: (tmp_path / 'file.pth').read_bytes())
    monkeypatch.setattr(load, 'get_file_backend', lambda *args, **kwargs: store)


@pytest.mark.usefixtures('by_name')
@pytest.mark.parametrize('name', [*NAMES, 'cluster:petrel://x'])
def test_names_and_stores(name: str, tmp_path: Path) -> None:
    torch.save(dict(state_dict=WEIGHTS), tmp_path / 'file.pth')
    weights = CheckpointLoader.load_checkpoint(name)['state_dict']
    assert_same(weights, dict(w=WEIGHTS['backbone.w']) if name == 'mmcls://x' else WEIGHTS)
    if '://x' in name and 's3' not in name and 'petrel' not in name:
        with pytest.raises(KeyError, match=f'mmengine knows no weights {name[:-1]}other'):
            CheckpointLoader.load_checkpoint(f'{name[:-1]}other')


@pytest.mark.usefixtures('by_name')
@pytest.mark.parametrize('name', [*NAMES, 'cluster:petrel://x'])
def test_names_and_stores_run_no_code(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    mark = tmp_path / 'executed'
    torch.save(dict(state_dict=WEIGHTS, a=Runs(os.mkdir, str(mark))), tmp_path / 'file.pth')
    with pytest.raises(RuntimeError, match='never runs code from a checkpoint'):
        CheckpointLoader.load_checkpoint(name)
    assert not mark.exists()
    torch.load(tmp_path / 'file.pth')
    assert mark.exists()  # it would have


def test_a_file_is_fetched_once(serve: tuple, tmp_path: Path) -> None:
    address, asked = serve
    for folder, value in (('a', 1.0), ('b', 2.0)):
        (tmp_path / folder).mkdir()
        torch.save(dict(w=torch.tensor(value)), tmp_path / folder / 'model.pth')
    url = f'{address}/a/model.pth?download=true'
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(CheckpointLoader.load_checkpoint, [url] * 8))
    assert {x['state_dict']['w'].item() for x in found} == {1.0}
    # Another file of that name at another address is another file.
    other = CheckpointLoader.load_checkpoint(f'{address}/b/model.pth')
    assert other['state_dict']['w'].item() == 2.0
    assert asked == ['/a/model.pth?download=true', '/b/model.pth']
    with pytest.raises(OSError, match=rf'{address}/c\.pth cannot be fetched: HTTP Error 404'):
        CheckpointLoader.load_checkpoint(f'{address}/c.pth')


def test_a_cut_download_is_not_kept(serve, tmp_path, monkeypatch) -> None:
    address, _ = serve
    torch.save(dict(w=torch.rand(1000)), tmp_path / 'model.pth')
    monkeypatch.setattr(shutil, 'copyfileobj', lambda source, file: file.write(source.read(100)))
    with pytest.raises(OSError, match=r'model\.pth cannot be fetched: .* after 100 of \d+ bytes'):
        CheckpointLoader.load_checkpoint(f'{address}/model.pth')
    monkeypatch.undo()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch_home'))
    loaded = CheckpointLoader.load_checkpoint(f'{address}/model.pth')
    assert loaded['state_dict']['w'].shape == (1000,)


def test_no_program_of_a_folder_runs(tmp_path: Path) -> None:
    """A folder describes itself by JSON; its ``config.py`` is for people."""
    ours = save(random_slip(CLIP), CLIP, tmp_path / 'ours')
    mark = tmp_path / 'executed'
    config = (ours / 'config.py').read_text()
    marking = f'made = __import__("pathlib").Path({str(mark)!r}).touch()'
    (ours / 'config.py').write_text(f'{config}\n{marking}\n')
    convert.main([str(ours), str(tmp_path / 'out')])
    init_model(ours, device='cpu')
    for name in FORMATS:
        (ours / 'mmslip.json').unlink(missing_ok=True)
        with pytest.raises((SystemExit, ValueError)):
            convert.main([str(ours), str(tmp_path / 'out'), '--from', name])
    assert not mark.exists()
    convert.main([str(ours), str(tmp_path / 'out'), '--config', str(ours / 'config.py')])
    assert mark.exists()  # which the user named


DESCRIPTIONS = [
    (lambda x: x.update(model=dict(type='os.system')), None),  # no key of ours is no matter
    (lambda x: x.pop('vision'), "lacks 'vision'"),
    (lambda x: x['vision'].update(heads='os.system'), "'os.system' is no number of attention"),
    (lambda x: x['vision'].update(activation='relu'), "activation 'relu' is not one of"),
    (lambda x: x['vision'].update(layers=10**9), 'does not fit the shapes .* in vision'),
    (lambda x: x['text'].update(heads=3), 'not a multiple of num_heads 3|divisible'),
    (lambda x: x['preprocessing'].update(type='x'), 'does not describe a model of mmslip'),
    (lambda x: x.update(text=[1]), 'does not describe a model of mmslip'),
    (lambda x: x['preprocessing'].update(mean=['a', 'b', 'c']), 'not three numbers'),
]


@pytest.mark.parametrize(('change', 'message'), DESCRIPTIONS)
def test_descriptions_are_data(change: Callable, message: str | None, tmp_path: Path) -> None:
    ours = save(random_slip(CLIP), CLIP, tmp_path / 'ours')
    content = json.loads((ours / 'mmslip.json').read_text())
    change(content)
    (ours / 'mmslip.json').write_text(json.dumps(content))
    if message is None:
        assert import_weights(ours).spec == CLIP
    else:
        with pytest.raises((ValueError, AssertionError), match=message):
            import_weights(ours)


@pytest.mark.parametrize(
    'changes',
    [
        dict(model_args=dict(checkpoint_path='evil.pth')),
        dict(model_args=dict(pretrained_cfg=dict(file='evil.pth'), pretrained=True)),
        dict(architecture='local-dir:.'),
        dict(architecture='hf-hub:someone/something'),
    ],
)
def test_timm_is_asked_for_sizes_alone(changes: dict, tmp_path: Path) -> None:
    pytest.importorskip('timm')
    imported = import_weights(save(random_slip(CLIP), CLIP, tmp_path / 'ours'))
    export_weights(imported, tmp_path / 'timm', 'timm')
    path = tmp_path / 'timm' / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match='the architecture has to be one of timm'):
        import_weights(tmp_path / 'timm')


def test_folders_of_other_libraries_are_models(tmp_path: Path) -> None:
    peer, encode_image, _ = write_hugging_face(tmp_path / 'clip')
    model = init_model(tmp_path / 'clip', device='cpu')
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_image(x), encode_image(x), rtol=0, atol=1e-5)
    pipeline = model._config.test_pipeline
    assert pipeline[1].interpolation == 'bicubic'
    assert model.head.logit_scale.item() == peer.logit_scale.item()


PREFIXES = {
    'compiled': lambda name: f'module._orig_mod.{name}',
    'lightning': lambda name: f'model.{name}',
}


@pytest.mark.parametrize('prefix', PREFIXES)
def test_converter_finds_names_behind_prefixes(prefix: str, tmp_path: Path) -> None:
    """Of mmslip's own weights and of other libraries', with what a trainer adds beside them."""
    model = random_slip(CLIP)
    ours = save(model, CLIP, tmp_path / 'ours')
    theirs, _ = FORMATS['openai'].from_mmslip(model.state_dict(), CLIP)
    for weights, config in ((model.state_dict(), ours / 'config.py'), (theirs, None)):
        named = {PREFIXES[prefix](name): value for name, value in weights.items()}
        if prefix == 'lightning':
            named['criterion.weight'] = torch.ones(1)
        torch.save({'state_dict': named, 'pytorch-lightning_version': '2'}, tmp_path / 'a.ckpt')
        imported = import_weights(tmp_path / 'a.ckpt', config=config)
        assert imported.spec == CLIP
        assert_same(imported.weights, model.state_dict())
        assert ('criterion.weight' in imported.left_out) == (prefix == 'lightning')


def test_several_models_in_a_file_are_not_chosen_from(tmp_path: Path) -> None:
    theirs, _ = FORMATS['openai'].from_mmslip(random_slip(CLIP).state_dict(), CLIP)
    both = {f'{who}.{name}': x for name, x in theirs.items() for who in ('student', 'teacher')}
    torch.save(both, tmp_path / 'both.pth')
    for read in (import_weights, load_from_local):
        with pytest.raises(ValueError, match=r'begin with student\., teacher\.: save the weights'):
            read(tmp_path / 'both.pth')


# init_cfg=dict(type='Pretrained')


@pytest.fixture
def tower() -> nn.Module:
    return random_slip(ModelSpec(vit(32, 2))).backbone


def build(checkpoint: Path, prefix: str | None = None, **changes: object) -> nn.Module:
    init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint), prefix=prefix)
    backbone = ModelSpec(vit(32, 2, **changes)).model()['backbone']
    model = MODELS.build(dict(backbone, init_cfg=init_cfg))
    model.init_weights()
    return model


@pytest.mark.parametrize('prefix', [None, 'backbone', 'backbone.'])
@pytest.mark.parametrize('before', ['', 'module.', 'model.', '_orig_mod.', 'model._orig_mod.'])
def test_pretrained_tower(tower, tmp_path: Path, prefix: str | None, before: str) -> None:
    weights = {f'{before}backbone.{name}': x for name, x in tower.state_dict().items()}
    weights[f'{before}head.weight'] = torch.ones(2)
    torch.save(dict(model_state_dict=weights), tmp_path / 'a.pth')
    assert_same(build(tmp_path / 'a.pth', prefix).state_dict(), tower.state_dict())


def test_pretrained_tower_that_does_not_fit(tower, tmp_path: Path) -> None:
    weights = {f'backbone.{name}': x for name, x in tower.state_dict().items()}
    torch.save(dict(state_dict=weights), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r"a\.pth has no weights 'vision\.': its names begin with"):
        build(tmp_path / 'a.pth', 'vision')
    wide = random_slip(ModelSpec(vit(48, 3))).state_dict()
    torch.save(wide, tmp_path / 'wide.pth')
    with pytest.raises(ValueError, match=r'Not one weight of .*wide\.pth fits the model: it has'):
        build(tmp_path / 'wide.pth', 'backbone.')
    both = {f'{who}.{name}': x for name, x in weights.items() for who in ('student', 'teacher')}
    torch.save(both, tmp_path / 'both.pth')
    with pytest.raises(ValueError, match=r"both\.pth has several parts 'backbone\.'"):
        build(tmp_path / 'both.pth', 'backbone.')
    # Another image size is interpolated.
    large = build(tmp_path / 'a.pth', 'backbone.', image_size=128)
    assert large.pos_embed.shape == (1, 65, 32)
    assert large.cls_token.equal(tower.cls_token)


# load_from


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., tuple[Runner, str]]:
    """Begin a run with ``load_from``; returns it and its log."""

    def begin(path: Path, model: dict | None = None) -> tuple[Runner, str]:
        shutil.rmtree(tmp_path / f'run_{path.stem}', ignore_errors=True)
        cfg = small_config(tmp_path / f'run_{path.stem}', load_from=str(path))
        cfg.model = model or cfg.model
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.default_hooks.checkpoint.pop('save_best')
        runner = Runner.from_cfg(cfg)
        runner.load_or_resume()
        (log,) = (tmp_path / f'run_{path.stem}').glob('*/*.log')
        return runner, log.read_text()

    return begin


WRONG = {
    'activation': (
        dict(backbone=dict(layer_cfgs=dict(act_cfg=dict(type='GELU')))),
        'act_cfg is GELU, of the weights QuickGELU',
    ),
    'heads': (dict(backbone=dict(arch=dict(num_heads=4))), 'arch.num_heads is 4, of the weights 2'),
    'eps': (dict(backbone=dict(norm_cfg=dict(eps=1e-6))), 'norm_cfg.eps is 1e-06'),
    'text': (dict(text_backbone=dict(quick_gelu=False)), 'quick_gelu) is GELU, of the weights Q'),
    'mean': (
        dict(data_preprocessor=dict(mean=[123.675, 116.28, 103.53])),
        'data_preprocessor.mean is [123.7, 116.3, 103.5], of the weights [122.8, 116.7, 104.1]',
    ),
}  # fmt: skip


@pytest.mark.parametrize('kind', WRONG)
def test_settings_that_no_shape_shows_are_compared(kind: str) -> None:
    """A model with another activation or mean would run, and score worse."""
    changes, message = WRONG[kind]
    require_stated(CLIP, MODELS.build(CLIP.model()), 'clip')
    model = MODELS.build(Config._merge_a_into_b(changes, CLIP.model()))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        require_stated(CLIP, model, 'clip')
    assert 'mmslip init NAME --data DATA --from clip` writes' in str(caught.value)


def test_other_sources_that_say_what_they_are(start, tmp_path: Path) -> None:
    wrong = CLIP.model()
    wrong['data_preprocessor']['mean'] = [0.0, 0.0, 0.0]
    write_openai_archive(tmp_path / 'openai.pt')
    write_open_clip(tmp_path / 'open_clip')
    save(random_slip(CLIP), CLIP, tmp_path / 'ours')
    write_hugging_face(tmp_path / 'clip')
    message = r'mean is \[0, 0, 0\], of the weights \[122'
    for name in ('openai.pt', 'open_clip', 'clip', 'ours', 'ours/model.safetensors'):
        init_model(Config(dict(model=CLIP.model())), tmp_path / name, 'cpu')
        with pytest.raises(ValueError, match=message):
            init_model(Config(dict(model=wrong)), tmp_path / name, 'cpu')
    with pytest.raises(ValueError, match=message):
        start(tmp_path / 'clip', wrong)
    gelu = dict(CLIP.backbone(), layer_cfgs=dict(act_cfg=dict(type='GELU')))
    gelu['init_cfg'] = dict(type='Pretrained', checkpoint=str(tmp_path / 'ours'), prefix='backbone')
    with pytest.raises(ValueError, match='act_cfg is GELU, of the weights QuickGELU'):
        MODELS.build(gelu).init_weights()
    # Weights alone say nothing.
    write_bare_open_clip(tmp_path / 'bare.bin')
    assert load_from_local(tmp_path / 'bare.bin')['spec'] is None


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, torch.Tensor]:
    model = MODELS.build(small_config(tmp_path / 'x').model)
    with torch.no_grad():
        for param in model.parameters():
            param.normal_(0, 0.02)
    return model.state_dict()


@pytest.mark.parametrize('before', ['', 'module._orig_mod.', 'model.'])
def test_load_from_with_prefixes(before: str, start, weights, tmp_path: Path) -> None:
    torch.save(dict(model={before + n: x for n, x in weights.items()}), tmp_path / 'a.pth')
    runner, log = start(tmp_path / 'a.pth')
    assert_same(runner.model.state_dict(), weights)
    assert f'{len(weights)} of {len(weights)} weights of the model are loaded' in log
    assert 'do not match exactly' not in log


def test_load_from_in_part(start, weights, tmp_path: Path) -> None:
    image = {n.removeprefix('backbone.'): x for n, x in weights.items() if n[:9] == 'backbone.'}
    torch.save(image, tmp_path / 'a.pth')
    runner, log = start(tmp_path / 'a.pth')
    assert_same(runner.model.backbone.state_dict(), image)
    assert (
        f'{len(image)} of {len(weights)} weights of the model are loaded, with "backbone."' in log
    )
    assert 'other shape      missing   unexpected' in log


@pytest.mark.parametrize('content', ['random names', 'empty', 'no weights', 'other sizes'])
def test_load_from_of_what_does_not_fit_is_an_error(content, start, weights, tmp_path) -> None:
    saved = {
        'random names': dict(state_dict={f'a.{i}': x for i, x in enumerate(weights.values())}),
        'empty': dict(state_dict={}),
        'no weights': dict(epoch=3, args=dict(lr=0.1)),
        'other sizes': dict(state_dict={n: torch.ones(7) for n in weights}),
    }[content]
    torch.save(saved, tmp_path / 'a.pth')
    message = {
        'no weights': r'There are no weights',
        'other sizes': r'\(backbone\) cannot take the weights',
    }.get(content, r'Not one weight of')
    with pytest.raises(ValueError, match=message):
        start(tmp_path / 'a.pth')


def test_incomplete_models_name_what_is_missing(make_slip: Callable[..., SLIP], files_of) -> None:
    config, path, model = files_of
    weights = {f'model._orig_mod.{name}': x for name, x in model.state_dict().items()}
    torch.save(dict(model_state_dict=weights), path)
    loaded = init_model(config, path, 'cpu')
    assert_same(loaded.state_dict(), model.state_dict())
    weights.pop('model._orig_mod.neck.weight')
    torch.save(dict(model_state_dict=weights), path)
    with pytest.raises(ValueError, match=r'does not fit the model: neck\.weight is missing'):
        init_model(config, path, 'cpu')


@pytest.fixture
def files_of(tmp_path: Path) -> tuple[Path, Path, nn.Module]:
    ours = save(random_slip(CLIP), CLIP, tmp_path / 'ours')
    model = MODELS.build(Config.fromfile(ours / 'config.py').model)
    return ours / 'config.py', tmp_path / 'weights.pth', model


def test_pickle_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / 'a.pth').write_bytes(pickle.dumps(dict(a=1)))
    with pytest.raises((RuntimeError, ValueError), match=r'was refused|no weights'):
        load_from_local(tmp_path / 'a.pth')
