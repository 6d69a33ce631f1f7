"""Files of weights: what is read, what is refused, and loading foreign ones by mmengine."""

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader, load_checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import mmslip.engine  # noqa: F401  (registers the loader)
from mmslip.registry import MODELS
from mmslip.weights import FORMATS, import_weights, read_weights
from mmslip.weights.files import state_dict_of, write_weights
from mmslip.weights.rules import Rule, to_ours, to_theirs
from tests.weights.foreign_models import CLIP, DATA, Runs, random_slip, shake, tiny_config


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.mask = torch.ones(2, 2)  # a tensor that is no part of the state dict

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), nn.ReLU())
        self.scale = nn.Parameter(torch.tensor(2.0).half())
        self.empty = nn.Parameter(torch.zeros(0, 3))
        self.register_buffer('number', torch.tensor(224))
        shared = torch.arange(6.0)
        self.register_buffer('whole', shared)
        self.register_buffer('part', shared[2:5])  # an offset into the same memory
        self.register_buffer('turned', torch.arange(6.0).view(2, 3).T)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x) * self.scale


@pytest.mark.parametrize('name', ['archive.pt', 'other name.pt'])
@pytest.mark.parametrize('make', [torch.jit.script, None], ids=['script', 'trace'])
def test_torchscript_archive(name: str, make: Callable | None, tmp_path: Path) -> None:
    net = shake(Net())
    x = torch.rand(2, 3)
    module = make(net) if make else torch.jit.trace(net, x)
    module.save(tmp_path / name)
    read = read_weights(tmp_path / name)
    expected = module.state_dict()
    assert set(expected) == set(net.state_dict())
    for key, value in expected.items():
        assert torch.equal(read[key], value), key
        assert read[key].dtype == value.dtype
    # Attributes that are tensors cannot be told from buffers.
    assert set(read) - set(expected) <= {'blocks.0.mask'}


def with_data(source: Path, target: Path, data: bytes) -> Path:
    """A copy of an archive with another pickle in it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, 'w') as new:
        for name in old.namelist():
            new.writestr(name, data if name.endswith('/data.pkl') else old.read(name))
    return target


def test_torchscript_runs_no_code(tmp_path: Path) -> None:
    torch.jit.script(Net()).save(tmp_path / 'good.pt')
    mark = tmp_path / 'executed'
    evil = pickle.dumps(Runs(os.mkdir, str(mark)), protocol=2)
    path = with_data(tmp_path / 'good.pt', tmp_path / 'evil.pt', evil)
    with pytest.raises(RuntimeError, match=r'evil\.pt was refused: it names posix\.mkdir'):
        read_weights(path)
    assert not mark.exists()
    pickle.loads(evil)
    assert mark.exists()  # it would have

    # Nor does it read beyond a tensor's memory.
    with zipfile.ZipFile(tmp_path / 'good.pt') as archive:
        data = archive.read('good/data.pkl')
    assert data.count(b'(K\x04K\x03t') == 1  # the size (4, 3) of a weight
    beyond = data.replace(b'(K\x04K\x03t', b'(K\xf4K\x03t')
    path = with_data(tmp_path / 'good.pt', tmp_path / 'beyond.pt', beyond)
    with pytest.raises(RuntimeError, match=r'beyond\.pt is a damaged TorchScript archive'):
        read_weights(path)


def test_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / 'executed'
    content = dict(state_dict=dict(w=torch.ones(1)), extra=Runs(os.mkdir, str(mark)))
    torch.save(content, tmp_path / 'pytorch_model.bin')
    for source in (tmp_path / 'pytorch_model.bin', tmp_path):
        with pytest.raises(RuntimeError, match='never runs code from a checkpoint'):
            import_weights(source)
        with pytest.raises(RuntimeError, match='never runs code from a checkpoint'):
            load_checkpoint(nn.Linear(1, 1), str(source))
    assert not mark.exists()


def test_safetensors(tmp_path: Path) -> None:
    weights = dict(a=torch.rand(3, 2), b=torch.rand(4).half(), n=torch.tensor(7))
    weights['view'] = weights['a'].T
    write_weights(tmp_path / 'model.safetensors', weights)
    for path in (tmp_path / 'model.safetensors', tmp_path):
        read = read_weights(path)
        assert read.keys() == weights.keys()
        assert all(torch.equal(read[name], value) for name, value in weights.items())
    moved = read_weights(tmp_path, 'meta')
    assert {value.device.type for value in moved.values()} == {'meta'}

    whole = (tmp_path / 'model.safetensors').read_bytes()
    for length in (len(whole) - 1, 20, 0):
        (tmp_path / 'cut.safetensors').write_bytes(whole[:length])
        with pytest.raises(RuntimeError, match=r'cut\.safetensors cannot be read: it is damaged'):
            read_weights(tmp_path / 'cut.safetensors')
    with pytest.raises(FileNotFoundError, match='There is no checkpoint'):
        read_weights(tmp_path / 'none.safetensors')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match=r'empty holds none of model\.safetensors'):
        read_weights(tmp_path / 'empty')


def test_weights_in_parts(tmp_path: Path) -> None:
    save_file(dict(a=torch.ones(1)), tmp_path / 'model-1.safetensors')
    save_file(dict(b=torch.zeros(1)), tmp_path / 'model-2.safetensors')
    index = dict(a='model-1.safetensors', b='model-2.safetensors')

    def write() -> None:
        text = json.dumps(dict(weight_map=index))
        (tmp_path / 'model.safetensors.index.json').write_text(text)

    write()
    assert read_weights(tmp_path) == dict(a=torch.ones(1), b=torch.zeros(1))
    index['c'] = 'model-2.safetensors'
    write()
    with pytest.raises(RuntimeError, match='lack c'):
        read_weights(tmp_path)
    index['c'] = '../elsewhere.safetensors'
    write()
    with pytest.raises(RuntimeError, match='names a file outside its folder'):
        read_weights(tmp_path)


def test_state_dict_of() -> None:
    weights = dict(a=torch.ones(1), b=torch.zeros(2))
    averages = {name: value + 1 for name, value in weights.items()}
    moments = dict(state={0: dict(exp_avg=torch.ones(2))}, param_groups=[dict(lr=0.1)])
    for checkpoint in (
        weights,
        dict(state_dict=weights, state_dict_ema=averages, optimizer=moments),
        dict(model_state_dict=weights, epoch=3, optimizer_state_dict=moments),
        dict(model=weights, model_ema=averages, epoch=3),
        dict(ema_state_dict=weights, optimizer=moments),
        dict(student=averages, teacher=weights),
        dict(my_weights=weights, args=dict(lr=0.1)),
        dict(state_dict={}, model=weights),
    ):
        assert state_dict_of(checkpoint) == weights, list(checkpoint)
    for wrong in (dict(epoch=1, args='x'), dict(state_dict={}), torch.ones(2), [1]):
        with pytest.raises(ValueError, match=r'no weights among its keys|is no checkpoint'):
            state_dict_of(wrong)
    with pytest.raises(ValueError, match=r'several sets \(one, two\) among .* save those you mean'):
        state_dict_of(dict(one=weights, two=averages))


def test_rules_are_read_in_both_directions() -> None:
    rules = [
        Rule('h.{i}.{part}.{p}', 'layers.{i}.qkv.{p}', parts=('q', 'k')),
        Rule('out.{p}', 'last.{p}'),
        Rule('out', 'first'),
    ]
    q, k = torch.full((2, 3), 1.0), torch.full((2, 3), 2.0)
    theirs = {'h.10.q.weight': q, 'h.10.k.weight': k, 'out.bias': q[0], 'out': k[0]}
    ours, unknown = to_ours({**theirs, 'h.x.q.weight': q, 'xout': q, 'out.scale': q}, rules)
    assert unknown == ['h.x.q.weight', 'xout', 'out.scale']
    assert ours.keys() == {'layers.10.qkv.weight', 'last.bias', 'first'}
    assert ours['layers.10.qkv.weight'].tolist() == [[1] * 3] * 2 + [[2] * 3] * 2
    back, unknown = to_theirs({**ours, 'other': q}, rules)
    assert unknown == ['other']
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], value) for name, value in theirs.items())
    with pytest.raises(ValueError, match=r"layers\.0\.qkv\.bias is joined .* lacks \['q'\]"):
        to_ours({'h.0.k.bias': q[0]}, rules)


# mmengine's loading of foreign files, which `load_from` and `init_cfg` use.


def foreign(library: str, model: nn.Module, folder: Path) -> Path:
    """The weights of a mmslip CLIP as a file of another library."""
    theirs, _ = FORMATS[library].from_mmslip(model.state_dict(), CLIP)
    torch.save(theirs, folder / 'foreign.pt')
    return folder / 'foreign.pt'


@pytest.mark.parametrize('library', ['openai', 'open_clip', 'hugging_face', 'timm'])
def test_foreign_file_as_load_from(library: str, tmp_path: Path) -> None:
    model = random_slip(CLIP)
    path = foreign(library, model, tmp_path)
    other = shake(MODELS.build(CLIP.model()), seed=5)
    load_checkpoint(other, str(path))
    expected = model.state_dict()
    for name, value in other.state_dict().items():
        loaded = library != 'timm' or name.startswith('backbone.')
        assert torch.equal(value, expected[name]) == loaded, name


def test_official_file_as_load_from(tmp_path: Path) -> None:
    (tmp_path / 'tiny.py').write_text(tiny_config('slip'))
    cfg = Config.fromfile(tmp_path / 'tiny.py').model
    model = MODELS.build(cfg)
    load_checkpoint(model, str(DATA / 'slip_vit-tiny_official.pt'), strict=True)
    official = read_weights(DATA / 'slip_vit-tiny_official.pt')['state_dict']
    assert torch.equal(model.neck.weight, official['module.image_projection'])
    assert torch.equal(model.backbone.cls_token, official['module.visual.cls_token'])

    # The image tower alone, as a downstream config takes it.
    backbone = dict(cfg.backbone, init_cfg=dict(type='Pretrained', prefix='backbone.'))
    backbone['init_cfg']['checkpoint'] = str(DATA / 'slip_vit-tiny_official.pt')
    tower = MODELS.build(backbone)
    tower.init_weights()
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(tower.state_dict()[name], value), name


def test_own_checkpoint_is_loaded_as_it_is(tmp_path: Path) -> None:
    model = random_slip(CLIP)
    content = dict(state_dict=model.state_dict(), meta=dict(iter=3), optimizer=dict(lr=0.1))
    torch.save(content, tmp_path / 'a.pth')
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))
    assert loaded.pop('spec') is None  # it describes no model
    assert loaded.keys() == content.keys()
    assert (loaded['meta'], loaded['optimizer']) == (dict(iter=3), dict(lr=0.1))


def test_foreign_model_without_counterpart_names_the_command(tmp_path: Path) -> None:
    weights = torch.load(foreign('openai', random_slip(CLIP), tmp_path))
    weights['visual.attnpool.k_proj.weight'] = torch.ones(2, 2)
    torch.save(weights, tmp_path / 'resnet.pt')
    with pytest.raises(
        ValueError, match=r'resnet\.pt is of OpenAI.*visual\.attnpool.*mmslip convert'
    ):
        load_checkpoint(random_slip(CLIP), str(tmp_path / 'resnet.pt'))


def test_written_file_is_read_by_its_own_library(tmp_path: Path) -> None:
    write_weights(tmp_path / 'a.safetensors', dict(a=torch.arange(3)))
    assert load_file(tmp_path / 'a.safetensors')['a'].tolist() == [0, 1, 2]
