"""The published figures agree with the configs' metafiles, with each other and with the tasks."""

from pathlib import Path

import pytest
import yaml

from mmslip.datasets.tasks import list_tasks, load_task
from mmslip.evaluation import load_published

ROOT = Path(__file__).parents[2]
PROTOCOLS = {
    'Zero-Shot Image Classification': 'zero_shot',
    'Linear Probing': 'linear',
    'Fine-Tuning': 'finetune',
}


def test_metafiles_say_the_same() -> None:
    stated = {}
    for path in (ROOT / 'configs').glob('*/metafile.yml'):
        for model in yaml.safe_load(path.read_text(encoding='utf-8'))['Models']:
            if model['Results'] and 'Weights' not in model:  # those with weights are ours
                stated[model['Name']] = {
                    f'{PROTOCOLS[result["Task"]]}/imagenet_top1': value
                    for result in model['Results']
                    for value in result['Metrics'].values()
                }
    found = {
        name: {key: value for key, value in model['results'].items() if 'imagenet' in key}
        for name, model in load_published().items()
    }
    assert found == stated
    assert len(found) == 19


def test_some_figures_of_the_paper() -> None:
    published = load_published()
    slip = published['slip_vit-b16_yfcc15m']
    assert (slip['method'], slip['backbone'], slip['data'], slip['epochs']) == (
        'SLIP', 'ViT-B/16', 'YFCC15M', 25,
    )  # fmt: skip
    assert slip['results']['zero_shot/food101_top1'] == 59.5
    assert slip['results']['zero_shot/pets_mean_per_class'] == 31.1
    assert slip['results']['zero_shot/kinetics700_frames_top1_top5_mean'] == 26.9
    assert slip['results']['zero_shot/hateful_memes_roc_auc'] == 52.8
    assert slip['results']['retrieval/coco_t2i_r1'] == 21.9
    assert published['clip_vit-b16_yfcc15m']['results']['retrieval/flickr30k_i2t_r1'] == 51.4
    assert published['slip_vit-l16_yfcc15m_100e']['results'] == {
        'zero_shot/imagenet_top1': 47.9,
        'linear/imagenet_top1': 75.1,
        'finetune/imagenet_top1': 84.8,
    }
    assert 'zero_shot/imagenet_top1' not in published['simclr_vit-b16_yfcc15m']['results']


@pytest.mark.parametrize('method', ['clip', 'slip'])
def test_26_sets_by_their_official_metric(method: str) -> None:
    results = load_published()[f'{method}_vit-b16_yfcc15m']['results']
    keys = [f'zero_shot/{task}_{load_task(task).metric}' for task in list_tasks()]
    zero_shot = {key for key in results if key.startswith('zero_shot/')}
    assert zero_shot == {*keys, 'zero_shot/mean'}
    mean = sum(results[key] for key in keys) / 26
    assert results['zero_shot/mean'] == pytest.approx(mean, abs=0.05)
