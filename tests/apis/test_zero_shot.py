"""Zero-shot classification equals the definition, computed naively."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmslip.apis import ZeroShotClassificationInferencer, init_model
from mmslip.datasets import CLIPTokenizer
from mmslip.models import SLIP
from tests.apis.conftest import draw_images, reference_feat

LABELS = ['cat', ['dog', 'hound'], 'red chair']
TEMPLATES = ['a photo of a {}.', 'one {}']


@torch.no_grad()
def naive_classes(model: SLIP) -> torch.Tensor:
    """Mean of the normalised prompts of each class, normalised, one prompt at a time."""
    tokenizer, rows = CLIPTokenizer(context_length=16), []
    for names in [['cat'], ['dog', 'hound'], ['red chair']]:
        feats = []
        for name in names:
            for template in TEMPLATES:
                feat = model.encode_text(tokenizer(template.replace('{}', name)))[0]
                feats.append(feat / feat.norm())
        mean = torch.stack(feats).mean(dim=0)
        rows.append(mean / mean.norm())
    return torch.stack(rows)


def test_scores_equal_the_definition(model: SLIP, tmp_path: Path) -> None:
    folder = draw_images(tmp_path / 'a b', range(5))
    inferencer = ZeroShotClassificationInferencer(model)
    results = inferencer(folder, LABELS, TEMPLATES, batch_size=2, topk=2)
    classes = naive_classes(model)
    assert [Path(result['image']).name for result in results] == [f'0{n}.png' for n in range(5)]
    for result in results:
        cosine = classes @ reference_feat(model, Path(result['image']))
        score = torch.softmax(cosine * torch.e, dim=0)  # logit_scale is 1
        order = cosine.argsort(descending=True)[:2].tolist()
        assert [top['label'] for top in result['top']] == [
            ('cat', 'dog', 'red chair')[label] for label in order
        ]
        for top, label in zip(result['top'], order, strict=True):
            assert top['similarity'] == pytest.approx(float(cosine[label]), abs=2e-5)
            assert top['score'] == pytest.approx(float(score[label]), abs=2e-5)
        assert result['pred_label'] == order[0]
        assert result['pred_class'] == result['top'][0]['label']
        assert result['pred_score'] == result['top'][0]['score']
    # Other labels in the next call are not those of the last.
    (other,) = inferencer(folder / '00.png', ['x', 'y'], TEMPLATES)
    assert {top['label'] for top in other['top']} == {'x', 'y'}


def test_inferencers_that_share_a_model_keep_their_own_labels(model: SLIP, tmp_path: Path) -> None:
    path = draw_images(tmp_path / 'images', [0]) / '00.png'
    one, other = (ZeroShotClassificationInferencer(model) for _ in range(2))
    first = one(path, ['cat', 'dog', 'red chair'])
    second = other(path, ['x', 'y'])
    assert one(path, ['cat', 'dog', 'red chair']) == first
    assert other(path, ['x', 'y']) == second
    assert not hasattr(model, 'class_embeddings')


def test_arrays_are_bgr_and_broken_images_say_why(model: SLIP, tmp_path: Path) -> None:
    folder = draw_images(tmp_path / 'images', [0, 1])
    (folder / 'broken.png').write_bytes((folder / '00.png').read_bytes()[:60])
    array = cv2.imread(str(folder / '01.png'))
    inferencer = ZeroShotClassificationInferencer(model)
    first, second, broken, third = inferencer([folder, array], LABELS, num_workers=1)
    assert second['top'] == third['top'] != first['top']
    assert third['image'] == 3
    assert broken.keys() == {'image', 'error'}
    assert 'broken.png' in broken['error']
    assert 'None' not in broken['error']
    mirrored = inferencer(np.ascontiguousarray(array[..., ::-1]), LABELS)
    assert mirrored[0]['top'] != third['top']


def test_a_task_brings_labels_and_templates(model: SLIP, tmp_path: Path) -> None:
    path = draw_images(tmp_path / 'images', [3]) / '03.png'
    inferencer = ZeroShotClassificationInferencer(model)
    (result,) = inferencer(path, task='cifar10', topk=20)
    assert len(result['top']) == 10
    assert sum(top['score'] for top in result['top']) == pytest.approx(1)


def test_templates_are_those_of_the_config(files: tuple[Path, Path], tmp_path: Path) -> None:
    path = draw_images(tmp_path / 'images', [3]) / '03.png'
    assert ZeroShotClassificationInferencer(*files).templates == ['a photo of a {}.']
    cfg = Config.fromfile(files[0])
    cfg.custom_hooks = [dict(type='mmslip.ZeroShotHook', templates=['just {}'])]
    inferencer = ZeroShotClassificationInferencer(init_model(cfg, files[1]))
    assert inferencer(path, LABELS) == inferencer(path, LABELS, ['just {}'])
    assert inferencer(path, LABELS) != inferencer(path, LABELS, ['a {}'])


def test_the_pipeline_is_that_of_the_evaluation(files: tuple[Path, Path], tmp_path: Path) -> None:
    path = draw_images(tmp_path / 'images', [3]) / '03.png'
    cfg = Config.fromfile(files[0])
    squash = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(32, 32)),
        dict(type='mmslip.TokenizeCaptions'),
        dict(type='mmslip.PackSLIPInputs'),
    ]
    cfg.val_dataloader = dict(dataset=dict(type='ConcatDataset', datasets=[dict(pipeline=squash)]))
    inferencer = ZeroShotClassificationInferencer(init_model(cfg, files[1]))
    ((sample,),) = inferencer.preprocess([path])
    expected = cv2.resize(cv2.imread(str(path)), (32, 32))
    assert torch.equal(sample['inputs']['image'], torch.from_numpy(expected).permute(2, 0, 1))


@pytest.mark.parametrize(
    ('arguments', 'kind', 'message'),
    [
        (dict(inputs='none.jpg', labels=['a', 'b']), FileNotFoundError, 'none.jpg'),
        (dict(inputs='.', labels=['a', 'b']), ValueError, 'holds no image'),
        (dict(inputs='t.jsonl', labels=['a', 'b']), ValueError, 't.jsonl is no image file'),
        (dict(inputs=[], labels=['a']), ValueError, 'two labels'),
        (dict(inputs=[], labels='cat'), ValueError, 'two labels'),
        (dict(inputs=[], labels=['a', 'b'], templates='no place'), ValueError, 'template'),
        (dict(inputs=[], labels=['a', 'b', ' A']), ValueError, "label ' A' is given twice"),
        (dict(inputs=[], labels=['a', 'b'], templates=['no place']), ValueError, 'template'),
        (dict(inputs=[]), ValueError, 'labels. or .task'),
        (dict(inputs=[], labels=['a', 'b'], task='cifar10'), ValueError, 'labels. or .task'),
        (dict(inputs=[], task='none'), FileNotFoundError, 'no task none'),
    ],
)
def test_errors_name_the_fault(model, monkeypatch, tmp_path, arguments, kind, message) -> None:
    (tmp_path / 'empty').mkdir()
    monkeypatch.chdir(tmp_path / 'empty')
    Path('t.jsonl').write_text('{"image": "a", "caption": "b"}')
    with pytest.raises(kind, match=message):
        ZeroShotClassificationInferencer(model)(**arguments)


def test_a_model_without_words_is_refused(files: tuple[Path, Path]) -> None:
    cfg = Config.fromfile(files[0])
    for part in ('neck', 'text_backbone', 'text_neck', 'head'):
        cfg.model.pop(part)
    with pytest.raises(ValueError, match='no text tower'):
        ZeroShotClassificationInferencer(cfg)
