"""Evaluation sets: labels in a task's order, complete or refused, many in one pass."""

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision.transforms as T
from mmengine.config import Config
from mmengine.dataset import Compose
from PIL import Image

from mmslip.datasets import EvaluationDataset, EvaluationSuite
from mmslip.datasets.tasks import list_tasks, load_task
from tests.conftest import draw_shape
from tests.evaluation.fixtures import class_of, write_sets

ROOT = Path(__file__).parents[2]
CONFIG = Config.fromfile(ROOT / 'configs' / '_base_' / 'datasets' / 'zero_shot_26.py')
SUITE = CONFIG.test_dataloader.dataset
LOAD = [dict(type='mmslip.LoadImage')]
TASK = dict(name='fruit', classes=['pear', 'apple', ['fig', 'sycamore']], labels=['p', 'a', 'f'])


@pytest.fixture(autouse=True)
def _no_garbage_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('gc.collect', lambda: 0)  # slow, and called for each data set


@pytest.fixture(scope='module')
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('sets')
    write_sets(folder / 'data')
    return folder


@pytest.fixture
def make_fruit(tmp_path: Path) -> Callable[..., dict]:
    """Folders ``a``, ``f`` and ``p`` of two images each; returns the data set's config."""

    def make(classes: str = 'afp') -> dict:
        for folder in classes:
            (tmp_path / folder).mkdir()
            for number in range(2):
                cv2.imwrite(str(tmp_path / folder / f'{number}.png'), draw_shape(number))
        return dict(type='CustomDataset', data_root=str(tmp_path))

    return make


@pytest.mark.parametrize('name', list_tasks())
def test_each_set_is_read_as_published(
    name: str, sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sets)
    monkeypatch.setattr('mmpretrain.datasets.cifar.check_md5', lambda *_: True)
    config = dict(SUITE.datasets[name])
    assert config.pop('type') == 'mmslip.EvaluationDataset'
    assert config['task'] == name
    config.pop('samples', None)  # of the complete set
    dataset = EvaluationDataset(**config, pipeline=LOAD)
    assert 2 <= len(dataset) <= 4
    for index in range(len(dataset)):
        item = dataset[index]
        assert item['img'].dtype == np.uint8
        assert item['img'].shape[2:] == (3,)
        height, width = item['img'].shape[:2]
        blue, green, red = item['img'][height // 2, width // 2]
        assert item['gt_label'] == class_of((red, green, blue)), index
        assert (item['task'], item['role'], item['sample_idx']) == (name, 'query', index)
    assert dataset.metainfo['classes'] == load_task(name).classes


def test_stl10_is_upright(sets: Path) -> None:
    dataset = EvaluationDataset(
        'stl10', dict(type='mmslip.STL10', data_root=str(sets / 'data/stl10_binary')), pipeline=LOAD
    )
    white = (dataset[0]['img'] == 255).all(axis=2)
    assert white[:8, -8:].all()
    assert white.sum() == 64


def test_labels_are_matched_by_name(make_fruit: Callable[..., dict]) -> None:
    dataset = EvaluationDataset(TASK, make_fruit(), role='reference')
    samples = [dataset[index] for index in range(6)]
    assert [Path(sample['img_path']).parent.name for sample in samples] == list('aaffpp')
    assert [sample['gt_label'] for sample in samples] == [1, 1, 2, 2, 0, 0]
    assert dataset.metainfo == dict(
        task='fruit',
        role='reference',
        title='fruit',
        metric='top1',
        classes=(('pear',), ('apple',), ('fig', 'sycamore')),
        templates=('a photo of a {}.',),
    )


def test_classes_that_do_not_match(make_fruit: Callable[..., dict]) -> None:
    config = make_fruit('afq')
    with pytest.raises(ValueError, match=r"'fruit'.* only one of them has 'p', 'q'.*`labels`"):
        EvaluationDataset(TASK, config)


def test_classes_without_image(
    make_fruit: Callable[..., dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No class folder, or an empty one; hidden folders are no classes, and WebP is an image."""
    log = []
    monkeypatch.setattr('mmslip.datasets.evaluation.print_log', lambda *args: log.append(args))
    make_fruit('af')
    config = dict(type='mmslip.FolderDataset', data_root=str(tmp_path), with_label=True)
    for folder in ('p', '.ipynb_checkpoints', '__MACOSX'):
        (tmp_path / folder).mkdir()
    Image.new('RGB', (8, 8)).save(tmp_path / 'a' / '3.webp')
    Image.new('RGB', (8, 8)).save(tmp_path / '__MACOSX' / '3.png')
    for _ in range(2):
        dataset = EvaluationDataset(TASK, config)
        labels = [dataset.get_data_info(index)['gt_label'] for index in range(len(dataset))]
        assert labels == [1, 1, 1, 2, 2]
        ((text, _, level),) = log
        assert level == logging.WARNING
        assert text.startswith("Task 'fruit': mmslip.FolderDataset in ")
        assert text.endswith("has no image of 1 of 3 classes, such as 'p'.")
        log.clear()
        if (tmp_path / 'p').is_dir():
            (tmp_path / 'p').rmdir()
    (tmp_path / 'p').mkdir()
    Image.new('RGB', (8, 8)).save(tmp_path / 'p' / '1.png')
    assert len(EvaluationDataset(TASK, config)) == 6
    assert log == []


@pytest.mark.parametrize('damage', ['folder', 'list', 'image', 'label'])
def test_an_incomplete_set_is_an_error(damage: str, sets: Path, tmp_path: Path) -> None:
    write_sets(tmp_path)
    root = tmp_path / 'Oxford-IIIT_Pets'
    rows = root / 'annotations' / 'test.txt'
    if damage == 'folder':
        message = 'cannot be read: FileNotFoundError'
        rows.unlink()
    elif damage == 'list':
        message = r'has 2 samples, not 4'
        rows.write_text(''.join(rows.read_text().splitlines(keepends=True)[:2]))
    elif damage == 'image':
        message = r'lacks 1 of 4 images, such as .*Bengal_1\.jpg'
        (root / 'images' / 'Bengal_1.jpg').unlink()
    else:
        message = r'sample 1 has label 99, but the task has 37 classes'
        rows.write_text(rows.read_text().replace('Bengal_1 6', 'Bengal_1 100'))
    with pytest.raises(ValueError, match=message) as caught:
        EvaluationDataset(
            'pets', dict(type='OxfordIIITPet', data_root=str(root), split='test'), samples=4
        )
    assert str(root) in str(caught.value)


def test_unknown_role(make_fruit: Callable[..., dict]) -> None:
    with pytest.raises(ValueError, match="role must be 'query' or 'reference', not 'train'"):
        EvaluationDataset(TASK, make_fruit(), role='train')


def test_a_suite_holds_many_sets_and_names_those_that_are_absent(
    make_fruit: Callable[..., dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = []
    monkeypatch.setattr('mmslip.datasets.evaluation.print_log', lambda *args: log.append(args))
    fruit = dict(type='mmslip.EvaluationDataset', task=TASK, dataset=make_fruit())
    nowhere = dict(type='CustomDataset', data_root=str(tmp_path / 'nowhere'))
    suite = EvaluationSuite(
        dict(
            fruit=fruit,
            lost=dict(type='mmslip.EvaluationDataset', task='pets', dataset=nowhere),
            memory=dict(fruit, role='reference', pipeline=[]),
            emoji=dict(type='mmslip.EmojiDataset', split='val'),
        ),
        pipeline=LOAD,
    )
    reason = f'there is no folder {tmp_path / "nowhere"}'
    assert suite.metainfo['skipped'] == dict(lost=reason)
    assert log == [(f'Evaluation set lost is skipped: {reason}.', 'current', logging.WARNING)]
    assert list(suite.metainfo['tasks']) == ['fruit', 'val']
    assert suite.metainfo['tasks']['fruit'] == dict(
        title='fruit',
        classes=(('pear',), ('apple',), ('fig', 'sycamore')),
        templates=('a photo of a {}.',),
        metric='top1',
    )
    assert [suite[index]['role'] for index in (0, 5, 6, 11, 12)] == (
        ['query'] * 2 + ['reference'] * 2 + ['query']
    )
    assert 'img' in suite[5]
    assert 'img' not in suite[6]  # which has a pipeline of its own


def test_a_choice_of_sets(make_fruit: Callable[..., dict], tmp_path: Path) -> None:
    fruit = dict(type='mmslip.EvaluationDataset', task=TASK, dataset=make_fruit())
    more = dict(fruit, task=dict(TASK, name='more'))
    lost = dict(fruit, dataset=dict(type='CustomDataset', data_root=str(tmp_path / 'nowhere')))
    datasets = dict(fruit=fruit, more=more, lost=lost)
    for tasks in ('more', ['more']):
        suite = EvaluationSuite(datasets, tasks=tasks)
        assert (list(suite.metainfo['tasks']), suite.metainfo['skipped']) == (['more'], {})
    with pytest.raises(ValueError, match='no evaluation set mor: choose among fruit, more, lost'):
        EvaluationSuite(datasets, tasks=['fruit', 'mor'])
    with pytest.raises(ValueError, match=r'nothing to evaluate on: .*nowhere'):
        EvaluationSuite(datasets, tasks=['lost'])
    with pytest.raises(ValueError, match="Two sets are judged as task 'fruit'"):
        EvaluationSuite(dict(one=fruit, two=fruit))


@pytest.mark.parametrize('size', [(388, 466), (700, 231), (224, 224), (90, 130)])
def test_the_view_is_that_of_torchvision(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
    image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_NEAREST)
    image ^= rng.integers(0, 32, image.shape, np.uint8)  # fine detail, on which filters differ
    results = Compose(SUITE.pipeline[:-1])(dict(img=image))
    view = T.Compose([T.Resize(224), T.CenterCrop(224)])(Image.fromarray(image[..., ::-1]))
    assert torch.equal(
        torch.tensor(results['img'][..., ::-1].copy()), torch.tensor(np.asarray(view).copy())
    )
