"""The algorithm: its halves, what it logs, what it refuses."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample

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
    assert model.ssl.backbone is model.backbone
    assert not [name for name in model.state_dict() if name.startswith('ssl.backbone')]
    copied = copy.deepcopy(model)
    assert copied.ssl.backbone is copied.backbone


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
    assert 'MultiView' in str(caught.value)


def test_predict_scores_each_sample_against_its_task():
    model = build(**language()).eval()
    model.class_embeddings = dict(a=torch.eye(JOINT)[:3], b=torch.eye(JOINT)[3:5])
    samples = [DataSample(metainfo=dict(task=task)) for task in 'abab']
    with torch.no_grad():
        embed = model.embed(batch())['image_feat']
        out = model(batch(), samples, mode='predict')
    unit = embed / embed.norm(dim=1, keepdim=True)
    for row, sample, columns in zip(unit, out, [slice(3), slice(3, 5)] * 2, strict=True):
        torch.testing.assert_close(sample.pred_score, row[columns])
        torch.testing.assert_close(sample.image_feat, row)
        projected = F.normalize(sample.backbone_feat @ model.neck.weight, dim=0)
        torch.testing.assert_close(projected, row)


def test_predict_scores_only_what_is_judged():
    model = build(**language()).eval()
    model.class_embeddings = dict(a=torch.eye(JOINT)[:3])
    metas = [dict(task='a', role='reference'), dict(task='a', role='query'), dict(task='b'), {}]
    out = model.predict(batch(), [DataSample(metainfo=meta) for meta in metas])
    assert ['pred_score' in sample for sample in out] == [False, True, False, False]
    assert all(sample.image_feat.shape == (JOINT,) for sample in out)


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
def test_the_logit_scale_stays_within_its_bounds(start, kept):
    head = build(**language()).head
    head.logit_scale.data.fill_(start)
    head.eval()
    assert head.scale().item() == pytest.approx(math.exp(start))  # evaluation changes nothing
    head.train()
    assert head.scale().item() == pytest.approx(math.exp(kept))
    assert head.logit_scale.item() == pytest.approx(kept)


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
