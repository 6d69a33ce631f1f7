"""Methods of mmpretrain on the shared backbone: what the table says works takes a step."""

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.logging import MessageHub
from mmpretrain.models import BaseSelfSupervisor
from torch import Tensor

from mmslip.models import SLIP
from mmslip.models.selfsup import METHODS, MethodNeeds
from mmslip.registry import MODELS, TRANSFORMS

ARCH = dict(embed_dims=48, num_layers=2, num_heads=2, feedforward_channels=64)
PIXELS = dict(type='PixelReconstructionLoss', criterion='L2')
# Backbone, method, side of the images, patches of a side in its mask.
MASKED = dict(
    SimMIM=(
        dict(
            type='SimMIMSwinTransformer',
            arch=dict(embed_dims=8, depths=[1, 1], num_heads=[1, 2]),
            img_size=32,
            drop_path_rate=0.0,
            out_indices=(1,),
            stage_cfgs=dict(block_cfgs=dict(window_size=4)),
        ),
        dict(
            type='SimMIM',
            neck=dict(type='SimMIMLinearDecoder', encoder_stride=8),
            head=dict(type='SimMIMHead', patch_size=4, loss=dict(PIXELS, channel=3)),
        ),
        32,
        8,
    ),
    MaskFeat=(
        dict(type='MaskFeatViT', arch=ARCH, img_size=112, patch_size=8),
        dict(
            type='MaskFeat',
            neck=dict(type='LinearNeck', out_channels=27, norm_cfg=None, gap_dim=0),
            head=dict(type='MIMHead', loss=PIXELS),
            target_generator=dict(type='HOGGenerator', nbins=9, pool=8, gaussian_window=16),
        ),
        112,
        14,
    ),
    BEiT=(
        dict(type='BEiTPretrainViT', arch=ARCH, img_size=32, patch_size=8, out_type='raw'),
        dict(
            type='BEiT',
            head=dict(
                type='BEiTV1Head',
                embed_dims=48,
                num_embed=16,
                loss=dict(type='CrossEntropyLoss'),
            ),
            target_generator=dict(type='DALL-E', n_hid=8, vocab_size=16),
        ),
        32,
        4,
    ),
)
RESNET = dict(type='ResNet', depth=18)
MOCO = dict(
    type='MoCo',
    queue_len=16,
    feat_dim=8,
    momentum=0.1,
    neck=dict(type='MoCoV2Neck', hid_channels=16, out_channels=8),
    head=dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss'), temperature=0.2),
)


@pytest.fixture
def build(make_slip):
    def make(backbone: dict, method: dict, **changes: object) -> SLIP:
        MessageHub.get_current_instance().update_info('max_iters', 2)
        neck = dict(type='mmslip.LinearProjection', out_channels=16)
        return make_slip(backbone=backbone, neck=neck, ssl=method, **changes).train()

    return make


def batch(model: SLIP, side: int, views: int, mask: int = 0) -> dict:
    generator = torch.Generator().manual_seed(1)

    def picture() -> Tensor:
        return torch.randint(0, 256, (4, 3, side, side), generator=generator, dtype=torch.uint8)

    text = torch.tensor([[49406, 5 + row, 49407, 0] for row in range(4)])
    inputs = dict(image=picture(), views=[picture() for _ in range(views)], text=text)
    if mask:
        inputs['mask'] = torch.randint(0, 2, (4, mask, mask), generator=generator)
    return model.data_preprocessor(dict(inputs=inputs), training=True)['inputs']


@pytest.mark.parametrize('name', MASKED)
def test_masked_methods_take_a_step(build, name):
    backbone, method, side, patches = MASKED[name]
    model = build(backbone, method)
    inputs = batch(model, side, METHODS[name].views, patches)
    losses = model.loss(inputs)
    assert losses['loss_ssl'].isfinite()
    grads = torch.autograd.grad(losses['loss_ssl'], list(model.backbone.parameters()))
    assert sum(float(grad.abs().sum()) > 0 for grad in grads) == len(grads)
    # The mask counts, and the language half sees whole images.
    other = model.loss({**inputs, 'mask': 1 - inputs['mask']})
    assert other['loss_ssl'] != losses['loss_ssl']
    assert other['loss_clip'] == losses['loss_clip']
    del inputs['mask']
    with pytest.raises(KeyError, match=f"'{name}' needs a mask .* SimMIMMaskGenerator"):
        model.loss(inputs)


def test_moco_keeps_a_copy_of_the_backbone(build):
    model = build(RESNET, MOCO)
    names = {name for name in model.state_dict() if name.startswith('ssl.encoder_k.module.0.')}
    assert len(names) == len(model.backbone.state_dict())
    losses = model.loss(batch(model, 32, 2))
    grads = torch.autograd.grad(losses['loss_ssl'], list(model.backbone.parameters()))
    assert all(grad.isfinite().all() for grad in grads)
    assert grads[0].any()


@pytest.mark.parametrize('name', MASKED)
def test_backbones_that_cannot_mask_are_refused(build, name):
    reason = (
        f"'{name}' needs a backbone of type {MASKED[name][0]['type']}, that .*; ResNet does not"
    )
    with pytest.raises(ValueError, match=reason):
        build(RESNET, MASKED[name][1])


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('SimCLR', 'write mmslip.SimCLR, with the prefix'),
        ('MILAN', 'published weights of another image-text model'),
        ('SwAV', 'mmslip does not know what it needs'),
        ('SparK', 'mmslip does not know what it needs'),
    ],
)
def test_what_does_not_work_is_refused_before_it_is_built(build, name, reason):
    with pytest.raises(ValueError, match=f"ssl.type='{name}' does not work .*{reason}.* MoCoV3"):
        build(RESNET, dict(type=name))


def test_a_method_of_ones_own_says_what_it_needs(build):
    class Brightness(BaseSelfSupervisor):
        needs = MethodNeeds(views=1)

        def loss(self, inputs, data_samples=None):
            return dict(loss=self.backbone(inputs)[-1].mean())

    MODELS.register_module('Brightness', module=Brightness, force=True)
    model = build(RESNET, dict(type='mmslip.Brightness'))
    assert model.loss(batch(model, 32, 1))['loss_ssl'].isfinite()
    with pytest.raises(ValueError, match=r"'Brightness' takes 1 view of an image, .* makes 2"):
        model.loss(batch(model, 32, 2))


def test_pipelines_of_masked_methods():
    """mmpretrain's masks and BEiT's pair of crops go through SLIPViews and PackSLIPInputs."""
    two = dict(
        type='RandomResizedCropAndInterpolationWithTwoPic',
        size=32,
        second_size=16,
        interpolation='bicubic',
        second_interpolation='lanczos',
        scale=(0.2, 1.0),
    )
    mask = dict(
        type='BEiTMaskGenerator', input_size=(4, 4), num_masking_patches=6, min_num_patches=2
    )
    views = dict(type='mmslip.SLIPViews', size=32, ssl_views=1, ssl=[two, mask])
    pipeline = Compose(
        [TRANSFORMS.build(step) for step in (views, dict(type='mmslip.PackSLIPInputs'))]
    )
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    inputs = pipeline(dict(img=picture))['inputs']
    assert inputs['image'].shape == (3, 32, 32)
    assert [view.shape[-1] for view in inputs['views']] == [32, 16]
    assert inputs['mask'].shape == (4, 4)
    assert 0 < int(inputs['mask'].sum()) <= 6


def test_the_target_view_has_a_scale_of_its_own():
    preprocessor = MODELS.build(
        dict(
            type='mmslip.SLIPDataPreprocessor',
            to_rgb=False,
            target_mean=[-31.875] * 3,
            target_std=[318.75] * 3,
        )
    )
    views = [torch.full((2, 3, 4, 4), 255, dtype=torch.uint8) for _ in range(2)]
    first, last = preprocessor(dict(inputs=dict(views=views)))['inputs']['views']
    assert last.unique().tolist() == pytest.approx([0.9])  # DALL-E's [0.1, 0.9]
    expected = ((255 - preprocessor.mean) / preprocessor.std).flatten().tolist()
    assert first[0, :, 0, 0].tolist() == pytest.approx(expected)
