"""Batches in slices: the gradient of one pass, in the memory of a slice."""

import copy
import weakref
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import mmslip.models.chunks as chunks
from mmslip.engine.optim import BF16OptimWrapper
from mmslip.models import SLIP, SimCLR
from mmslip.models.selfsup import MethodNeeds

BATCH, CHUNK = 10, 4  # the last slice is shorter

MOCO = dict(
    type='MoCoV3',
    base_momentum=0.01,
    neck=dict(
        type='NonLinearNeck',
        in_channels=32,
        hid_channels=32,
        out_channels=16,
        num_layers=2,
        with_bias=False,
        with_last_bn=True,
        with_last_bn_affine=False,
        with_last_bias=False,
        with_avg_pool=False,
        norm_cfg=dict(type='BN1d'),
    ),
    head=dict(
        type='MoCoV3Head',
        temperature=0.2,
        loss=dict(type='CrossEntropyLoss', loss_weight=0.4),
        predictor=dict(
            type='NonLinearNeck',
            in_channels=16,
            hid_channels=32,
            out_channels=16,
            num_layers=2,
            with_bias=False,
            with_last_bn=False,
            with_last_bias=False,
            with_avg_pool=False,
            norm_cfg=dict(type='BN1d'),
        ),
    ),
)
NO_TEXT = dict(neck=None, text_backbone=None, text_neck=None, head=None)
HALVES = dict(slip={}, clip=dict(ssl=None), simclr=NO_TEXT, mocov3=dict(ssl=MOCO))


def make_batch(batch: int = BATCH, dtype: torch.dtype = torch.float32, size: int = 32) -> dict:
    generator = torch.Generator().manual_seed(3)
    image, *views = torch.randn(3, batch, 3, size, size, generator=generator).to(dtype)
    text = torch.randint(1, 400, (batch, 16), generator=generator)
    ends = torch.randint(1, 16, (batch,), generator=generator)
    for row, end in zip(text, ends, strict=True):
        row[end], row[end + 1 :] = 49407, 0
    return dict(image=image, views=views, text=text)


def step(model: SLIP, inputs: dict, autocast: bool = False) -> dict[str, Tensor]:
    """Losses, gradients and buffers after one backward pass."""
    torch.manual_seed(7)
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        losses = model.loss(inputs)
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    gradients = {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return {**losses, **gradients, **dict(model.named_buffers())}


def assert_equal(found: dict, expected: dict, **tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, msg=lambda m, n=name: f'{n}: {m}', **tolerance
        )


@pytest.mark.parametrize('half', HALVES)
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_gradient_of_the_whole_batch(
    make_slip: Callable[..., SLIP], half: str, dtype: torch.dtype
) -> None:
    whole = make_slip(**HALVES[half]).to(dtype)
    sliced = make_slip(chunk_size=CHUNK, **HALVES[half]).to(dtype)
    expected = step(whole, make_batch(dtype=dtype))
    assert sum(value.abs().max() > 0 for value in expected.values()) > 30
    found = step(sliced, make_batch(dtype=dtype))
    if dtype == torch.float64:
        assert_equal(found, expected, rtol=1e-10, atol=1e-10)
    else:
        # Single elements of both are further than this from their values in float64.
        assert found.keys() == expected.keys()
        expected_all, found_all = (
            torch.cat([value.flatten().double() for value in values.values()])
            for values in (expected, found)
        )
        assert (found_all - expected_all).norm() < 1e-5 * expected_all.norm()
    assert list(sliced.state_dict()) == list(whole.state_dict())


@pytest.mark.parametrize('autocast', [False, True])
def test_drawn_masks_are_repeated(
    make_slip: Callable[..., SLIP], monkeypatch: pytest.MonkeyPatch, autocast: bool
) -> None:
    """With dropout and drop path, dropping activations changes nothing, not by a bit."""
    backbone = dict(
        type='mmslip.VisionTransformer',
        arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
        img_size=32,
        patch_size=16,
        drop_rate=0.2,
        drop_path_rate=0.3,
    )
    sliced = make_slip(chunk_size=CHUNK, backbone=backbone)
    kept = copy.deepcopy(sliced)
    found = step(sliced, make_batch(), autocast)
    monkeypatch.setattr(
        chunks, 'checkpoint', lambda run, *args, use_reentrant, **kw: run(*args, **kw)
    )
    assert_equal(found, step(kept, make_batch(), autocast), rtol=0, atol=0)
    other = step(make_slip(backbone=backbone), make_batch(), autocast)
    assert not torch.equal(found['loss_clip'], other['loss_clip'])  # masks are drawn by slice


def test_mixed_precision(make_slip: Callable[..., SLIP]) -> None:
    """bfloat16 rounds gradients of weights, summed in another order, by up to 2 ** -8."""
    expected = step(make_slip(), make_batch(), autocast=True)
    found = step(make_slip(chunk_size=CHUNK), make_batch(), autocast=True)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        error = (found[name].float() - value.float()).norm()
        assert error <= 0.02 * value.float().norm() + 1e-6, name


def test_a_step_under_mmengine(make_slip: Callable[..., SLIP]) -> None:
    updates = []
    for chunk_size in (None, CHUNK):
        model = make_slip(chunk_size=chunk_size)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        inputs = make_batch()
        inputs = {
            'image': inputs['image'].byte(),
            'views': [view.byte() for view in inputs['views']],
            'text': inputs['text'],
        }
        model.train_step(dict(inputs=inputs), BF16OptimWrapper(optimizer))
        updates.append(
            model.backbone.patch_embed.projection.weight
            - make_slip().backbone.patch_embed.projection.weight
        )
    assert (updates[1] - updates[0]).norm() < 0.05 * updates[0].norm()


def bytes_of(inputs: dict) -> dict:
    """The batch as the loader gives it."""

    def pixels(view: Tensor) -> Tensor:
        return (60 * view + 128).clamp(0, 255).byte()

    views = [pixels(view) for view in inputs['views']]
    return dict(image=pixels(inputs['image']), views=views, text=inputs['text'])


BYOL = dict(
    type='BYOL',
    base_momentum=0.01,
    neck=MOCO['neck'],
    head=dict(
        type='LatentPredictHead',
        loss=dict(type='CosineSimilarityLoss'),
        predictor=MOCO['head']['predictor'],
    ),
)


@pytest.mark.parametrize('half', [*HALVES, 'byol', 'two_images', 'augmented'])
def test_bytes_are_finished_slice_by_slice(make_slip: Callable[..., SLIP], half: str) -> None:
    """Losses and gradients are those of views that were made floats all at once, to the bit."""
    changes = {
        **HALVES,
        'byol': dict(ssl=BYOL),
        'two_images': {},
        'augmented': dict(
            data_preprocessor=dict(
                type='mmslip.SLIPDataPreprocessor', view_augment=dict(type='mmslip.DeviceAugment')
            )
        ),
    }[half]
    late = make_slip(chunk_size=CHUNK, **changes)
    at_once = copy.deepcopy(late)
    at_once.data_preprocessor.in_slices = ()
    found = []
    for model in (late, at_once):
        torch.manual_seed(5)
        batch = bytes_of(make_batch())
        if half == 'two_images':
            batch['image'] = [batch['image'], batch['image'].flip(-1)]
        inputs = model.data_preprocessor(dict(inputs=batch), training=True)['inputs']
        kinds = [type(view) for view in (inputs['image'], *inputs['views'])]
        if half == 'two_images':
            kinds[0] = type(inputs['image'][0])
        if model is late:
            views = Tensor if half == 'augmented' else chunks.ByteImages
            assert kinds == [chunks.ByteImages, views, views]
        else:
            assert kinds == [Tensor] * 3
        found.append(step(model, inputs))
    assert_equal(*found, rtol=0, atol=0)


def test_who_reads_pixels_gets_floats(make_slip: Callable[..., SLIP]) -> None:
    """A method of one's own may look at its views; a small batch and a prediction are no slices."""

    class Reads(SimCLR):
        needs = MethodNeeds()

    model = make_slip(chunk_size=CHUNK)
    assert tuple(model.data_preprocessor.in_slices) == ('image', 'views')
    ssl = dict(type=Reads, neck=MOCO['neck'], head=dict(type='mmslip.SimCLRHead'))
    own = make_slip(chunk_size=CHUNK, ssl=ssl)
    assert tuple(own.data_preprocessor.in_slices) == ('image',)
    assert tuple(make_slip().data_preprocessor.in_slices) == ()

    model.eval()
    for number in (CHUNK - 1, BATCH):
        batch = dict(inputs=dict(image=bytes_of(make_batch(number))['image']))
        late = model.data_preprocessor(batch)['inputs']
        model.data_preprocessor.in_slices = ()
        at_once = model.data_preprocessor(batch)['inputs']
        model.data_preprocessor.in_slices = ('image',)
        assert isinstance(late['image'], chunks.ByteImages)
        assert torch.equal(model.embed(late)['image_feat'], model.embed(at_once)['image_feat'])
    wrong = dict(image=torch.zeros(BATCH, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(ValueError, match='makes images of 16 x 16'):
        model.embed(model.data_preprocessor(dict(inputs=wrong))['inputs'])


def test_no_batch_of_floats(make_slip: Callable[..., SLIP]) -> None:
    """Of the views only slices exist as floats, in the backward pass too."""
    batch, size = 64, 32
    model = make_slip(chunk_size=CHUNK, ssl=None)
    inputs = dict(inputs=bytes_of(make_batch(batch)))
    floats = 4 * batch * 3 * size**2
    peaks = []
    for names in (('image', 'views'), ()):
        model.data_preprocessor.in_slices = names
        with _LiveMemory(model.parameters()) as memory:
            # Held until the step ends, as mmengine does.
            data = model.data_preprocessor(inputs, training=True)
            model.loss(**data)['loss_clip'].backward()
        peaks.append(memory.peak)
        model.zero_grad()
        del data
    assert peaks[1] - peaks[0] > 2.5 * floats  # three views, of which a slice is left


def test_copies_slice_with_their_own_weights(make_slip: Callable[..., SLIP]) -> None:
    """Momentum encoders and averaged models are deep copies."""
    model = make_slip(chunk_size=CHUNK, ssl=MOCO)
    image = make_batch()['image']
    for replica in (copy.deepcopy(model).backbone, model.ssl.momentum_encoder.module[0]):
        assert isinstance(replica.forward, chunks._ChunkedForward)
        before = model.backbone(image)[0]
        nn.init.constant_(replica.ln1.bias, 5.0)
        assert not torch.equal(replica(image)[0], before)
        assert torch.equal(model.backbone(image)[0], before)


def test_masks_of_a_masked_backbone_are_sliced_too(make_slip: Callable[..., SLIP]) -> None:
    mae = dict(
        backbone=dict(
            type='MAEViT',
            arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
            img_size=32,
            patch_size=8,
        ),
        ssl=dict(
            type='MAE',
            neck=dict(
                type='MAEPretrainDecoder',
                num_patches=16,
                patch_size=8,
                embed_dim=32,
                decoder_embed_dim=32,
                decoder_depth=1,
                decoder_num_heads=2,
            ),
            head=dict(
                type='MAEPretrainHead',
                norm_pix=True,
                patch_size=8,
                loss=dict(type='PixelReconstructionLoss', criterion='L2'),
            ),
        ),
        chunk_size=CHUNK,
    )
    inputs = make_batch()
    inputs['views'] = inputs['views'][:1]
    sliced = make_slip(**mae)
    kept = copy.deepcopy(sliced)
    found = step(sliced, inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            chunks, 'checkpoint', lambda run, *args, use_reentrant, **kw: run(*args, **kw)
        )
        assert_equal(found, step(kept, inputs), rtol=0, atol=0)


def test_batch_norm_of_a_tower_is_refused(make_slip: Callable[..., SLIP]) -> None:
    resnet = dict(
        neck=dict(type='mmslip.LinearProjection', in_channels=2048, out_channels=16),
        ssl=None,
        chunk_size=CHUNK,
    )
    model = make_slip(backbone=dict(type='ResNet', depth=50), **resnet)
    with pytest.raises(ValueError, match='bn1 of ResNet is batch norm in training mode'):
        model.loss(make_batch())
    model = make_slip(backbone=dict(type='ResNet', depth=50, norm_eval=True), **resnet)
    model.train()
    whole = copy.deepcopy(model)
    whole.backbone.forward = whole.backbone.forward.forward
    found, expected = (step(each, make_batch()) for each in (model, whole))
    assert_equal(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('size', [0, 2.5, 'large'])
def test_chunk_size_is_a_positive_integer(make_slip: Callable[..., SLIP], size: object) -> None:
    with pytest.raises(ValueError, match='chunk_size must be a whole number from 1 on'):
        make_slip(chunk_size=size)


class _LiveMemory(TorchDispatchMode):
    """Peak of the bytes that tensors hold at a time, but for those that were there before."""

    def __init__(self, before: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known = {tensor.untyped_storage()._cdata for tensor in before}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, Tensor):
                self._track(value.untyped_storage())
        return out

    def _track(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self.known:
            return
        self.known.add(storage._cdata)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, key: int, nbytes: int) -> None:
        self.known.discard(key)
        self.live -= nbytes


def peak_memory(model: SLIP, batch: int) -> int:
    """Bytes that one step allocates at its peak."""
    inputs = make_batch(batch)
    before = [inputs['image'], *inputs['views'], inputs['text'], *model.parameters()]
    with _LiveMemory(before) as memory:
        losses = model.loss(inputs)
        sum(value for name, value in losses.items() if 'loss' in name).backward()
    return memory.peak


def test_memory_of_a_slice(make_slip: Callable[..., SLIP]) -> None:
    """Only features, and what the heads make of them, grow with the batch."""
    peaks = {
        (half, size, batch): peak_memory(make_slip(chunk_size=size, **HALVES[half]), batch)
        for half in ('clip', 'simclr')
        for size in (None, 16)
        for batch in (32, 256)
    }
    for half in ('clip', 'simclr'):
        assert peaks[half, None, 256] > 2 * peaks[half, None, 32]
    assert peaks['clip', 16, 256] < 1.1 * peaks['clip', 16, 32]
    # Here the head is wider than the tower and keeps its activations.
    assert peaks['simclr', 16, 256] < 0.4 * peaks['simclr', None, 256]


@pytest.mark.parametrize('frozen', [['backbone'], ['backbone', 'text_backbone', 'text_neck']])
def test_frozen_parts(make_slip: Callable[..., SLIP], frozen: list[str]) -> None:
    model = make_slip(frozen=frozen)
    model.train()
    assert model.training
    assert not any(getattr(model, name).training for name in frozen)
    found = step(model, make_batch())
    gradients = {name.partition('.')[0] for name, _ in model.named_parameters() if name in found}
    parts = {'backbone', 'neck', 'text_backbone', 'text_neck', 'head', 'ssl'}
    assert gradients == parts - set(frozen)
    # What is trained gets the gradient it gets beside a trained tower.
    expected = step(make_slip(), make_batch())
    for name in ('neck.weight', 'head.logit_scale'):
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"'bakbone', which is none of .*backbone, neck"):
        make_slip(frozen=['bakbone'])
    with pytest.raises(ValueError, match=r"frozen takes a list, \['backbone'\]"):
        make_slip(frozen='backbone')
