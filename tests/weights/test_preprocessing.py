"""The preparation of images: from a config into every description, and back."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from PIL import Image

from mmslip.apis import init_model
from mmslip.apis.base import SLIPInferencer
from mmslip.cli import export
from mmslip.registry import TRANSFORMS
from mmslip.weights import FORMATS, ModelSpec, Preprocessing, export_weights, import_weights
from mmslip.weights.preprocessing import find_test_pipeline
from mmslip.weights.spec_from_config import spec_from_config
from tests.weights.foreign_models import CLIP, SIDE, load, random_slip, save, vit

GREY = dict(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
PIXELS = dict(mean=[127.5, 102.0, 76.5], std=[51.0, 63.75, 76.5])


def resized(**changes: object) -> Preprocessing:
    return Preprocessing(**{**GREY, **changes})


# Test pipelines as configs have them, and what is read of them.
PIPELINES = {
    'bilinear': (
        [
            dict(type='ResizeEdge', scale=48, edge='short', backend='pillow'),
            dict(type='CenterCrop', crop_size=SIDE),
        ],
        resized(crop=SIDE / 48),
    ),
    'bicubic': (
        [dict(type='mmslip.ResizeCenterCrop', size=SIDE, interpolation='bicubic')],
        resized(interpolation='bicubic'),
    ),
    'edge': (
        [dict(type='mmslip.ResizeCenterCrop', size=SIDE, edge=37)],
        resized(crop=SIDE / 37),
    ),
    'down': (
        [dict(type='mmslip.ResizeCenterCrop', size=SIDE, rounding='down')],
        resized(rounding='down'),
    ),
    'area': (
        [dict(type='Resize', scale=(SIDE, SIDE), interpolation='area')],
        resized(interpolation='area', backend='cv2', resize='squash'),
    ),
    'opencv': (
        [
            dict(type='ResizeEdge', scale=SIDE, edge='short'),
            dict(type='CenterCrop', crop_size=SIDE),
        ],
        resized(backend='cv2'),
    ),
    'squash': (
        [dict(type='Resize', scale=SIDE, interpolation='lanczos', backend='pillow')],
        resized(interpolation='lanczos', resize='squash'),
    ),
    'torchvision': (
        [
            dict(type='torchvision/Resize', size=40, interpolation='bicubic'),
            dict(type='torchvision/CenterCrop', size=SIDE),
        ],
        resized(interpolation='bicubic', crop=SIDE / 40),
    ),
}


def config_of(spec: ModelSpec, pipeline: list[dict], path: Path) -> Path:
    """A config whose pipeline stands where evaluation has it."""
    model = spec.model()
    model['data_preprocessor'].update(PIXELS)
    steps = [dict(type='mmslip.LoadImage'), *pipeline, dict(type='mmslip.PackSLIPInputs')]
    dataset = dict(type='mmslip.EvaluationSuite', datasets=dict(a=dict(type='x')), pipeline=steps)
    Config(dict(model=model, test_dataloader=dict(dataset=dataset))).dump(path)
    return path


@pytest.mark.parametrize('name', PIPELINES)
@pytest.mark.parametrize(
    'to', ['mmslip', 'mmpretrain', 'timm', 'open_clip', 'hugging_face', 'torch']
)
def test_written_and_read_back(name: str, to: str, tmp_path: Path) -> None:
    pipeline, expected = PIPELINES[name]
    ours = tmp_path / 'ours.pth'
    torch.save(random_slip(CLIP).state_dict(), ours)  # which says nothing of pixels
    config = config_of(CLIP, pipeline, tmp_path / 'config.py')
    imported = import_weights(ours, config=config)
    assert imported.spec.preprocessing == expected
    out = tmp_path / 'out'
    what = None
    if to in ('timm', 'open_clip', 'hugging_face') and expected.backend == 'cv2':
        what = 'interpolation|backend'
    elif to == 'open_clip' and (expected.crop != 1 or name == 'squash'):
        what = 'interpolation|crop'
    if to == 'torch':
        export.main([*map(str, (ours, out, '--to', 'torch', '--config', config))])
        image = json.loads((out / 'export.json').read_text())['image']
        keys = ('mean', 'std', 'interpolation', 'backend', 'resize')
        expected = expected.rounded('even')  # of half a pixel, nothing is said
        got = Preprocessing(
            **{key: image[key] for key in keys}, crop=image['size'] / image['resize_size']
        )
        assert got == expected
        return
    if what:
        with pytest.raises(ValueError, match=f'needs ({what}) .* change the test_pipeline'):
            export_weights(imported, out, to)
        assert not out.exists()
        return
    export_weights(imported, out, to)
    if to in ('timm', 'open_clip'):
        expected = expected.rounded('even')
    python = out / 'config.py' if to == 'mmpretrain' else None
    again = import_weights(out, to, python)
    if to == 'hugging_face':  # whose crop rounds in its own way
        expected = expected.rounded('down')
        assert expected.rounding == ('even' if name == 'squash' else 'down')
    assert again.spec.preprocessing == expected


@pytest.mark.parametrize('to', ['openai', 'official_slip'])
def test_libraries_whose_code_prepares_images_in_one_way(to: str, tmp_path: Path) -> None:
    slip = ModelSpec(vit(384, 12), CLIP.text, CLIP.embed_dim)
    spec = CLIP if to == 'openai' else slip
    ours = save(random_slip(spec), spec, tmp_path / 'ours')
    export_weights(import_weights(ours), tmp_path / 'same', to)
    pipeline = PIPELINES['area'][0]
    if to == 'official_slip':
        pipeline = [dict(pipeline[0], scale=(64, 64))]
    config = config_of(spec, pipeline, tmp_path / 'config.py')
    with pytest.raises(ValueError, match=r'needs (mean|interpolation) .* in its preprocessing'):
        export_weights(import_weights(ours, config=config), tmp_path / 'other', to)


@pytest.mark.parametrize('name', ['bilinear', 'bicubic', 'edge', 'squash'])
def test_the_libraries_own_transforms_agree(name: str, tmp_path: Path) -> None:
    """Pixels by mmslip's pipeline, by timm and by transformers, from the files that we write."""
    timm_data = pytest.importorskip('timm.data')
    transformers = pytest.importorskip('transformers')
    _, expected = PIPELINES[name]
    image = np.random.default_rng(0).integers(0, 256, (90, 70, 3)).astype(np.uint8)
    image = np.asarray(Image.fromarray(image).resize((150, 200), 3))  # smooth
    packed = Compose([TRANSFORMS.build(step) for step in expected.pipeline(SIDE)[1:]])
    ours = packed(dict(img=image[..., ::-1]))['inputs']['image'].flip(0) / 255
    mean, std = (torch.tensor(expected_part).view(3, 1, 1) for expected_part in GREY.values())
    ours = (ours - mean) / std

    spec = ModelSpec(CLIP.vision, CLIP.text, CLIP.embed_dim, preprocessing=expected)
    timm = json.loads(FORMATS['timm'].describe(spec)['config.json'])['pretrained_cfg']
    keys = ('input_size', 'interpolation', 'mean', 'std', 'crop_pct', 'crop_mode')
    theirs = timm_data.create_transform(**{key: timm[key] for key in keys})
    # One grey level of 255 is 0.02 here: rounding of the resized pixels.
    torch.testing.assert_close(theirs(Image.fromarray(image)), ours, rtol=0, atol=0.05)
    text = FORMATS['hugging_face'].describe(spec)['preprocessor_config.json']
    (tmp_path / 'preprocessor_config.json').write_text(text)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    theirs = processor(Image.fromarray(image), return_tensors='pt')['pixel_values'][0]
    torch.testing.assert_close(theirs, ours, rtol=0, atol=0.05)


def test_converted_folder_is_used_with_its_preprocessing(tmp_path: Path) -> None:
    spec = ModelSpec(CLIP.vision, CLIP.text, CLIP.embed_dim, preprocessing=PIPELINES['edge'][1])
    model = random_slip(spec)
    save(model, spec, tmp_path / 'ours')
    loaded = init_model(tmp_path / 'ours', device='cpu')
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert find_test_pipeline(loaded._config) == spec.preprocessing.pipeline(SIDE)
    inferencer = SLIPInferencer(loaded)
    crop = inferencer.pipeline.transforms[1]
    assert (crop.size, crop.edge, crop.interpolation) == (SIDE, 37, 'bilinear')
    assert loaded.data_preprocessor.mean.flatten().tolist() == PIXELS['mean']
    assert torch.equal(load(tmp_path / 'ours').neck.weight, model.neck.weight)


@pytest.mark.parametrize(
    ('step', 'message'),
    [
        (dict(type='ResizeEdge', scale=32, edge='long'), "edge': 'long'.*can only be described"),
        (dict(type='RandomResizedCrop', scale=32), 'can only be described with'),
        (dict(type='Resize', scale=(32, 32), keep_ratio=True), 'depends on the image'),
        (dict(type='Resize', scale=(32, 48)), r'scale=\(32, 48\): images of a model are square'),
        (
            dict(type='CenterCrop', crop_size=64),
            'for images of 32 pixels, the test pipeline gives 64',
        ),
        (
            dict(type='mmslip.ResizeCenterCrop', size=32, interpolation='x'),
            "interpolation 'x' of the backend 'pillow'",
        ),
    ],
)
def test_other_pipelines_are_refused(step: dict, message: str, tmp_path: Path) -> None:
    config = config_of(CLIP, [step], tmp_path / 'config.py')
    with pytest.raises(ValueError, match=message):
        spec_from_config(Config.fromfile(config))


def test_defaults() -> None:
    """Without a pipeline: as the inferencers do it, in the manner of the paper."""
    assert Preprocessing.from_config(dict(model={})) == (Preprocessing(), None)
    found, size = Preprocessing.from_config(
        dict(model={}, data_preprocessor=PIXELS, test_pipeline=PIPELINES['edge'][0])
    )
    assert (found, size) == (PIPELINES['edge'][1], SIDE)
    assert found.short_side(SIDE) == 37
    assert found.short_side(2 * SIDE) == 74  # another image size is cut in the same way
    for wrong in (dict(mean=(1, 2)), dict(std='abc'), dict(crop=0), dict(crop=1.5)):
        with pytest.raises(ValueError, match=r'three numbers|crop is'):
            Preprocessing(**wrong)
    with pytest.raises(ValueError, match="'area' of the backend 'pillow' is none of"):
        Preprocessing(interpolation='area')
