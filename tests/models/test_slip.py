"""The algorithm: its halves, what it logs, what it refuses."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample
from torch import nn

from mmslip.evaluation import embed_texts
from mmslip.registry import MODELS

WIDTH, JOINT = 16, 8


def projection() -> dict:
    return dict(type='mmslip.LinearProjection', in_channels=WIDTH, out_channels=JOINT)


def language() -> dict:
    return dict(
        neck=projection(),
        text_backbone=dict(
            type='mmslip.TextTransformer',
            vocab_size=50,
            context_length=10,
            width=WIDTH,
            num_layers=1,
            num_heads=2,
        ),
        text_neck=projection(),
        head=dict(type='mmslip.CLIPHead'),
    )


def simclr() -> dict:
    neck = dict(
        type='NonLinearNeck',
        in_channels=WIDTH,
        hid_channels=WIDTH,
        out_channels=JOINT,
        with_avg_pool=False,
    )
    neck.update(norm_cfg=dict(type='BN1d'))
    return dict(type='mmslip.SimCLR', neck=neck, head=dict(type='mmslip.SimCLRHead'))


def vit() -> dict:
    arch = dict(embed_dims=WIDTH, num_layers=1, num_heads=2, feedforward_channels=WIDTH)
    return dict(type='mmslip.VisionTransformer', arch=arch, img_size=16, patch_size=8)


def build(**parts: object):
    torch.manual_seed(0)
    model = MODELS.build(dict(type='mmslip.SLIP', **(dict(backbone=vit()) | parts)))
    model.init_weights()
    return model


def batch() -> dict:
    generator = torch.Generator().manual_seed(1)
    image, *views = torch.randn(3, 4, 3, 16, 16, generator=generator)
    text = torch.randint(1, 48, (4, 10), generator=generator)
    text[:, 6], text[:, 7:] = 49, 0
    return dict(image=image, views=views, text=text)


def test_slip_is_clip_plus_simclr():
    slip = build(**language(), ssl=simclr(), ssl_weight=0.25)
    clip, selfsup = build(**language()), build(ssl=simclr())
    clip.load_state_dict(slip.state_dict(), strict=False)
    selfsup.load_state_dict(slip.state_dict(), strict=False)
    both, one, other = (model.loss(batch()) for model in (slip, clip, selfsup))
    assert list(both) == ['loss_clip', 'acc_clip', 'logit_scale', 'loss_ssl', 'acc_ssl']
    assert list(one) == ['loss_clip', 'acc_clip', 'logit_scale']
    assert list(other) == ['loss_ssl', 'acc_ssl']
    torch.testing.assert_close(both['loss_clip'], one['loss_clip'])
    torch.testing.assert_close(both['loss_ssl'], 0.25 * other['loss_ssl'])
    torch.testing.assert_close(both['logit_scale'], torch.tensor(1 / 0.07))


def test_the_backbone_is_registered_once_and_shared():
    model = build(**language(), ssl=simclr())
    assert not [name for name in model.state_dict() if name.startswith('ssl.backbone')]
    assert len({name for name, _ in model.named_parameters()}) == len(list(model.parameters()))
    for other in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.ssl.backbone.backbone is other.backbone
        assert next(other.ssl.backbone.parameters()) is next(other.backbone.parameters())


def test_a_wrapped_backbone_is_the_one_that_the_method_runs():
    class Half(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, x):
            return (0.5 * self.module(x)[-1],)

    model = build(**language(), ssl=simclr())
    expected = model.ssl.backbone(batch()['image'])[-1]
    model.backbone = Half(model.backbone)
    torch.testing.assert_close(model.ssl.backbone(batch()['image'])[-1], 0.5 * expected)


def test_a_copy_of_the_reference_alone_is_a_backbone_of_its_own():
    """Methods with a momentum encoder copy it, and follow its parameters."""
    model = build(**language(), ssl=simclr())
    copied = copy.deepcopy(model.ssl.backbone)
    assert type(copied) is type(model.backbone)
    names = [name for name, _ in nn.Sequential(copied).named_parameters()]
    assert names == [name for name, _ in nn.Sequential(model.ssl.backbone).named_parameters()]
    assert not {*copied.parameters()} & {*model.parameters()}


def test_freezing_the_method_leaves_the_backbone_alone():
    model = build(**language(), ssl=simclr(), frozen=['ssl'])
    frozen = {n.partition('.')[0] for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {'ssl'}


@pytest.mark.parametrize(
    ('key', 'part'),
    [
        ('model.neck', dict(neck={**projection(), 'in_channels': 4})),
        ('model.text_neck', dict(text_neck={**projection(), 'in_channels': 4})),
        ('model.ssl.neck', dict(ssl={**simclr(), 'neck': {**simclr()['neck'], 'in_channels': 4}})),
    ],
)
def test_widths_are_inferred_and_compared(key, part):
    given = build(**language(), ssl=simclr())
    settings = {**language(), 'ssl': simclr()}
    for name in ('neck', 'text_neck'):
        del settings[name]['in_channels']
    del settings['ssl']['neck']['in_channels']
    inferred = build(**settings)
    for (name, value), other in zip(
        given.state_dict().items(), inferred.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name
    with pytest.raises(ValueError, match=rf'{key}\.in_channels is 4, .* width {WIDTH}: set {key}'):
        build(**{**settings, **part})


@pytest.mark.parametrize('mode', ['loss', 'predict', 'tensor'])
def test_images_of_another_size_are_refused(mode):
    """The backbone would resize its positions in silence."""
    model = build(**language(), ssl=simclr())
    inputs = batch()
    inputs['image'] = F.interpolate(inputs['image'], size=24)
    with pytest.raises(ValueError, match=r'img_size is 16 x 16, .* images of 24 x 24: .*by'):
        model(inputs, [DataSample() for _ in range(4)], mode=mode)


@pytest.mark.parametrize(
    ('size', 'alone', 'refused'), [(8, False, 0), (24, False, 1), (8, True, 0), (24, True, 1)]
)
def test_views_may_be_smaller_than_images(size, alone, refused):
    model = build(ssl=simclr(), **({} if alone else language()))
    inputs = batch()
    inputs['views'] = [F.interpolate(view, size=size) for view in inputs['views']]
    if alone:
        del inputs['image'], inputs['text']
    if refused:
        with pytest.raises(ValueError, match=rf'16 x 16, .* views of {size} x {size}'):
            model.loss(inputs)
    else:
        assert model.loss(inputs)['loss_ssl'] > 0


def test_text_is_cut_by_the_rule_of_its_tower():
    """A tower without one, such as BERT's with end id 102, receives all its ids."""

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(200, WIDTH)

        def forward(self, text):
            return (self.embed(text).mean(1),)

    ids = torch.tensor([[101, 150, 199, 110, 120, 130, 140, 102, 0]])
    MODELS.register_module('MeanOfTokens', module=Mean, force=True)
    model = build(**{**language(), 'text_backbone': dict(type='mmslip.MeanOfTokens')})
    data = dict(inputs=dict(text=ids, image=torch.zeros(1, 3, 16, 16, dtype=torch.uint8)))
    assert torch.equal(model.data_preprocessor(data)['inputs']['text'], ids)
    assert torch.equal(model.trim_text(ids), ids)
    feats = embed_texts(model, ids)
    torch.testing.assert_close(feats, F.normalize(model.encode_text(ids), dim=-1))
    clip = build(**language())
    clip.text_backbone, first = Mean(), clip.text_backbone  # another tower, another rule
    assert torch.equal(clip.data_preprocessor(data)['inputs']['text'], ids)
    clip.text_backbone = first
    short = torch.tensor([[48, 5, 49, 0, 0], [48, 5, 6, 49, 0]])
    assert torch.equal(
        clip.data_preprocessor(dict(inputs=dict(text=short)))['inputs']['text'], short[:, :4]
    )


def test_mae_as_the_self_supervised_half():
    """A masked backbone sees whole images on the language side, and one view on the other."""
    arch = dict(embed_dims=WIDTH, num_layers=1, num_heads=2, feedforward_channels=WIDTH)
    decoder = dict(
        type='MAEPretrainDecoder',
        num_patches=4,
        patch_size=8,
        embed_dim=WIDTH,
        decoder_embed_dim=WIDTH,
        decoder_depth=1,
        decoder_num_heads=2,
    )
    model = build(
        backbone=dict(type='MAEViT', arch=arch, img_size=16, patch_size=8),
        **language(),
        ssl=dict(
            type='MAE',
            neck=decoder,
            head=dict(
                type='MAEPretrainHead',
                patch_size=8,
                loss=dict(type='PixelReconstructionLoss', criterion='L2'),
            ),
        ),
    )
    inputs = batch()
    inputs['views'] = inputs['views'][:1]
    losses = model.loss(inputs)
    assert losses['loss_ssl'] > 0
    model.eval()
    first, second = (model.encode_image(inputs['image']) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize('missing', ['neck', 'text_backbone', 'text_neck', 'head'])
def test_half_a_language_half_is_refused(missing):
    parts = language()
    parts.pop(missing)
    with pytest.raises(ValueError, match=f'SLIP lacks {missing}: give neck, text_backbone'):
        build(**parts)


def test_no_half_is_refused():
    with pytest.raises(ValueError, match='needs the language half, the `ssl` half, or both'):
        build()


def test_an_ssl_half_with_its_own_backbone_is_refused():
    with pytest.raises(ValueError, match='must not have a backbone of its own'):
        build(ssl=dict(simclr(), backbone=vit()))


@pytest.mark.parametrize('lacks', ['views', 'text', 'image'])
def test_a_batch_that_lacks_something_is_named(lacks):
    model = build(**language(), ssl=simclr())
    inputs = batch()
    inputs.pop(lacks)
    with pytest.raises(KeyError, match=f'The batch has no {lacks} ') as caught:
        model.loss(inputs)
    assert 'SLIPViews' in str(caught.value)


def test_predict_gives_unit_features():
    model = build(**language()).eval()
    with torch.no_grad():
        embed = model.embed(batch())['image_feat']
        out = model(batch(), [DataSample() for _ in range(4)], mode='predict')
    for row, sample in zip(F.normalize(embed, dim=1), out, strict=True):
        torch.testing.assert_close(sample.image_feat, row)
        projected = F.normalize(sample.backbone_feat @ model.neck.weight, dim=0)
        torch.testing.assert_close(projected, row)


def test_predict_embeds_the_captions_of_each_image():
    model = build(**language()).eval()
    ids = torch.tensor([[48, 5, 49, 0, 0, 0], [48, 6, 7, 8, 49, 0], [48, 9, 49, 0, 0, 0]])
    samples = [DataSample(metainfo=dict(task='a')) for _ in range(4)]
    samples[1].set_field(ids[:2], 'caption_ids')
    samples[3].set_field(ids[2:], 'caption_ids')
    with torch.no_grad():
        out = model.predict(batch(), samples)
        expected = F.normalize(model.encode_text(ids), dim=-1)
    assert ['text_feat' in sample for sample in out] == [False, True, False, True]
    torch.testing.assert_close(out[1].text_feat, expected[:2])
    torch.testing.assert_close(out[3].text_feat, expected[2:])


def test_predict_without_a_text_tower_gives_features():
    model = build(ssl=simclr()).eval()
    with torch.no_grad():
        out = model.predict(batch(), [DataSample(metainfo=dict(task='a')) for _ in range(4)])
        expected = model.backbone(batch()['image'])[-1]
    for row, sample in zip(expected, out, strict=True):
        torch.testing.assert_close(sample.backbone_feat, row)
        assert 'image_feat' not in sample


def test_unknown_mode():
    with pytest.raises(ValueError, match="not 'train'"):
        build(**language())(batch(), mode='train')


@pytest.mark.parametrize(('start', 'kept'), [(9.0, math.log(100)), (-1.0, 0.0), (2.0, 2.0)])
def test_the_logit_scale_is_clamped(start, kept):
    head = build(**language()).head
    head.logit_scale.data.fill_(start)
    head.clamp_parameters()
    assert head.logit_scale.item() == pytest.approx(kept)


@pytest.mark.parametrize('value', [math.nan, 1e30, 0.0, -0.07, 2.0])
def test_impossible_temperatures_are_refused(value):
    head = dict(type='mmslip.CLIPHead', init_temperature=value)
    with pytest.raises(ValueError, match=r'init_temperature=.* is not within \[1 / max_scale, 1\]'):
        MODELS.build(head)
    if not 0 < value < 1e31:
        with pytest.raises(ValueError, match='temperature must be positive and finite'):
            MODELS.build(dict(type='mmslip.SimCLRHead', temperature=value))


def test_initialisation():
    """Standard deviations of the official initialisation, on tensors large enough to tell."""
    torch.manual_seed(0)
    text = MODELS.build(dict(type='mmslip.TextTransformer', num_layers=2))
    text.init_weights()
    block = text.layers[0]
    expected = {
        text.token_embedding.weight: 0.02,
        text.pos_embed: 0.01,
        block.qkv.weight: 512**-0.5,
        block.proj.weight: 512**-0.5 * (2 * 2) ** -0.5,
        block.fc1.weight: 1024**-0.5,
        block.fc2.weight: 512**-0.5 * (2 * 2) ** -0.5,
    }
    vision = MODELS.build(dict(type='mmslip.VisionTransformer', arch='small'))
    vision.init_weights()
    layer = vision.layers[3]
    expected.update({layer.attn.qkv.weight: 0.02, layer.ffn.layers[1].weight: 0.02})
    expected[vision.pos_embed] = 0.02
    neck = MODELS.build(dict(type='mmslip.LinearProjection', in_channels=768, out_channels=512))
    neck.init_weights()
    expected[neck.weight] = 768**-0.5
    for tensor, std in expected.items():
        assert tensor.std().item() == pytest.approx(std, rel=0.05), tensor.shape
    for bias in (block.qkv.bias, block.proj.bias, layer.attn.qkv.bias, layer.ffn.layers[1].bias):
        assert bias.abs().max() == 0
    # Truncated at two standard deviations (of the untruncated normal), as timm's.
    assert layer.attn.qkv.weight.abs().max() < 2


@pytest.mark.parametrize(
    ('arch', 'width', 'layers', 'heads', 'millions'),
    [('small', 384, 12, 12, 21.67), ('base', 768, 12, 12, 85.80), ('large', 1024, 24, 16, 303.30)],
)
def test_official_shapes(arch, width, layers, heads, millions):
    with torch.device('meta'):
        vision = MODELS.build(dict(type='mmslip.VisionTransformer', arch=arch))
    assert vision.embed_dims == width
    assert len(vision.layers) == layers
    assert vision.layers[0].attn.num_heads == heads
    assert vision.pos_embed.shape == (1, 197, width)
    count = sum(parameter.numel() for parameter in vision.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.01)


def test_projection_reads_vectors_maps_and_tokens():
    neck = MODELS.build(projection())
    neck.init_weights()
    x = torch.randn(2, WIDTH)
    expected = x @ neck.weight
    feature_map = x[..., None, None] + torch.tensor([[1.0, -1.0], [2.0, -2.0]])  # mean is x
    tokens = torch.stack([x, torch.randn(2, WIDTH)], dim=1)
    for feats in ((x,), (None, x), (feature_map,), (tokens,)):
        torch.testing.assert_close(neck(feats), expected)


def test_the_text_tower_is_causal():
    text = build(**language()).text_backbone.eval()
    first = torch.tensor([[48, 5, 7, 49, 0, 0]])
    second = torch.tensor([[48, 5, 7, 49, 3, 9]])
    torch.testing.assert_close(text(first)[0], text(second)[0])
    other = torch.tensor([[48, 6, 7, 49, 0, 0]])
    assert (text(first)[0] - text(other)[0]).abs().max() > 1e-3
    with pytest.raises(ValueError, match='width 10 is not a multiple of num_heads 4'):
        MODELS.build(dict(type='mmslip.TextTransformer', width=10, num_heads=4))


def test_the_text_tower_reads_the_end_of_text_token():
    """Against all tokens of all blocks, read at the end; gradients too."""
    text = MODELS.build(dict(language()['text_backbone'], num_layers=2))
    text.init_weights()
    text.double()
    ids = torch.tensor([[48, 5, 7, 49, 0, 0], [48, 49, 0, 0, 0, 0], [48, 5, 6, 7, 8, 49]])
    grads = []
    for naive in (False, True):
        text.zero_grad()
        out = text(ids)[0]
        if naive:
            x = text.token_embedding(ids) + text.pos_embed[:6]
            for block in text.layers:
                x = block(x)
            expected = text.ln_final(x)[torch.arange(3), torch.tensor([3, 1, 5])]
            torch.testing.assert_close(out, expected)
            out = expected
        (out * torch.arange(out.numel()).view_as(out)).sum().backward()
        grads.append([param.grad.clone() for param in text.parameters()])
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)


def test_channels_last_are_refused():
    """Pooled as a feature map, a row of pixels would be taken for the channels."""
    pytest.importorskip('timm')
    swin = dict(
        type='TIMMBackbone',
        model_name='swin_tiny_patch4_window7_224',
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 1, 1),
        embed_dim=8,
        img_size=64,
    )
    with pytest.raises(ValueError, match=r'SwinTransformer of timm .* width 64, .* channels last'):
        build(backbone=swin, ssl=simclr())


def test_a_forgotten_prefix_is_said(monkeypatch):
    """mmpretrain has a class of the same name and other behaviour."""
    told = []
    monkeypatch.setattr('mmslip.models.slip.print_log', lambda text, **_: told.append(text))
    build(**language())
    assert not told
    arch = dict(embed_dims=WIDTH, num_layers=1, num_heads=2, feedforward_channels=WIDTH)
    backbone = dict(type='VisionTransformer', arch=arch, img_size=16, patch_size=8)
    build(backbone=backbone, ssl=simclr())
    assert len(told) == 1
    assert 'write mmslip.VisionTransformer' in told[0]


def test_several_views_of_the_language_half_count_by_their_mean():
    """From the bytes on: each view is normalised and compared with the texts."""
    model = build(**language())
    views = torch.randint(0, 256, (2, 3, 3, 16, 16), dtype=torch.uint8).unbind()
    text = torch.tensor([[1, 49, 0], [1, 2, 49], [3, 49, 0]])

    def loss(image):
        data = dict(inputs=dict(image=image, text=text))
        return model(**model.data_preprocessor(data, True), mode='loss')

    both, parts = loss(list(views)), [loss(view) for view in views]
    assert both.keys() == parts[0].keys()
    for key, value in both.items():
        torch.testing.assert_close(value, (parts[0][key] + parts[1][key]) / 2)
    with pytest.raises(ValueError, match='makes images of 24 x 16'):
        model.loss(dict(image=[torch.zeros(3, 3, 16, 16), torch.zeros(3, 3, 24, 16)], text=text))


@pytest.mark.parametrize('head', ['CLIPHead', 'SigLIPHead'])
def test_several_captions_and_equal_ones(head):
    """From the ids on: each caption is a text of its own; keys count where the head asks."""
    head = dict(type=f'mmslip.{head}')
    model = build(**(language() | dict(head=head)))
    matched = build(**(language() | dict(head=head | dict(match_duplicates=True))))
    matched.load_state_dict(model.state_dict())
    inputs = dict(batch(), text=torch.randint(1, 48, (4, 3, 10)))
    inputs['text'][..., 6], inputs['text'][..., 7:] = 49, 0
    trimmed = model.trim_text(inputs['text'])
    assert trimmed.shape == (4, 3, 7)
    text_feat = model.embed(inputs)['text_feat']
    assert text_feat.shape == (4, 3, JOINT)
    torch.testing.assert_close(text_feat[2], model.encode_text(trimmed[2]))
    loss = model.loss(inputs)['loss_clip']
    expected = model.head.loss(model.encode_image(inputs['image']), text_feat)['loss']
    assert loss == expected
    with pytest.raises(KeyError, match=r'has no keys .* match_duplicates needs'):
        matched.loss(inputs)
    keys = torch.arange(16).view(4, 4)
    torch.testing.assert_close(matched.loss(dict(inputs, keys=keys))['loss_clip'], loss)
    keys[3, 0] = keys[0, 0]
    assert abs(matched.loss(dict(inputs, keys=keys))['loss_clip'] - loss) > 1e-3
    assert model.loss(dict(inputs, keys=keys))['loss_clip'] == loss


def test_images_are_whole_patches():
    """The positions of a ViT leave no place for the rest of an image."""
    arch = dict(embed_dims=WIDTH, num_layers=1, num_heads=2, feedforward_channels=WIDTH)
    backbone = dict(type='mmslip.VisionTransformer', arch=arch, img_size=20, patch_size=8)
    with pytest.raises(ValueError, match=r'img_size is 20 x 20, no multiple of its patches of 8'):
        build(backbone=backbone, ssl=simclr())
