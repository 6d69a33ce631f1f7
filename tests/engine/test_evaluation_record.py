"""Records of an evaluation in the work folder: figures, and pictures of what it found."""

import json
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from mmpretrain.structures import DataSample

from mmslip.engine import EvaluationRecordHook
from mmslip.evaluation.predictions import PredictionKeeper, spread
from tests.distributed import pool
from tests.test_training import small_config


class Pictures:
    """A set whose image ``i`` is 100 x 50, half of it red and half of the grey ``i``."""

    def __init__(self, number: int, **metainfo: object) -> None:
        self.number = number
        self.metainfo = metainfo

    def __len__(self) -> int:
        return self.number

    def get_data_info(self, index: int) -> dict:
        image = np.full((50, 100, 3), index % 256, np.uint8)
        image[:, :50] = (0, 0, 255)  # BGR
        return dict(img=image, text=[f'caption {index}', 'another'])


def sample(task: str, index: int, **fields: object) -> DataSample:
    found = DataSample()
    if 'label' in fields:
        found.set_gt_label(fields.pop('label'))
    found.set_metainfo(dict(task=task, sample_idx=index, role=fields.pop('role', 'query')))
    for name, value in fields.items():
        found.set_field(value, name)
    return found


def runner_of(work_dir: Path, *parts: Pictures, **metainfo: object) -> SimpleNamespace:
    dataset = SimpleNamespace(datasets=list(parts), metainfo=metainfo) if parts else metainfo
    loader = SimpleNamespace(dataset=dataset)
    return SimpleNamespace(
        work_dir=str(work_dir),
        val_dataloader=loader,
        test_dataloader=loader,
        epoch=3,
        iter=30,
        experiment_name='run_20260102_030405',
        cfg=dict(load_from='some/epoch_9.pth'),
    )


def evaluate(
    runner: SimpleNamespace, samples: list, metrics: dict, mode: str = 'val', **options: object
) -> list[dict]:
    """Run the hook over samples in batches of three; returns the lines of the record."""
    hook = EvaluationRecordHook(**options)
    getattr(hook, f'before_{mode}_epoch')(runner)
    for start in range(0, len(samples), 3):
        getattr(hook, f'after_{mode}_iter')(runner, start, {}, samples[start : start + 3])
    getattr(hook, f'after_{mode}_epoch')(runner, metrics)
    return read_lines(runner)


def read_lines(runner: SimpleNamespace) -> list[dict]:
    text = Path(runner.work_dir, 'results.jsonl').read_text(encoding='utf-8')
    return [json.loads(line) for line in text.splitlines()]


def showcase(runner: SimpleNamespace, task: str) -> dict:
    path = Path(runner.work_dir, 'evaluation', task, 'showcase.json')
    return json.loads(path.read_text(encoding='utf-8'))


def test_a_mean_of_one_set_is_no_figure(tmp_path: Path) -> None:
    parts = [Pictures(4, task=task, classes=['a', 'b']) for task in ('pets', 'small')]
    captioned = Pictures(9, task='coco')
    metrics = {'zero_shot/pets_top1': 50.0, 'zero_shot/mean': 50.0}
    for number, expected in ((1, ['top1']), (2, ['top1', 'mean'])):
        runner = runner_of(tmp_path / str(number), *parts[:number], captioned)
        lines = evaluate(runner, [], metrics, pictures=False)
        assert [line['metric'] for line in lines] == expected


def test_each_figure_is_a_line(tmp_path: Path) -> None:
    pets = Pictures(40, task='pets', classes=['a', 'b'], metric='mean_per_class')
    small = Pictures(7, task='pets_small', classes=['a', 'b'])
    coco = Pictures(9, task='coco')
    reference = Pictures(99, task='pets', classes=['a', 'b'], role='reference')
    runner = runner_of(tmp_path, reference, pets, small, coco, skipped=dict(cars='no folder x'))
    metrics = {
        'zero_shot/pets_top1': 50.0,
        'zero_shot/pets_top1_low': 40.0,
        'zero_shot/pets_top1_high': 60.0,
        'zero_shot/pets_mean_per_class': 51.0,
        'zero_shot/pets_small_top5': math.nan,
        'zero_shot/mean': 12.5,
        'knn/pets_top1': np.float32(62.5),
        'linear/pets_l2': 1e-4,
        'linear/imagenet/top1': 70.0,
        'retrieval/coco_t2i_r1': 30.0,
        'retrieval/coco_i2t_r5': 44.0,
        'very_low': 1.0,  # no bound of another figure
        'confusion': torch.ones(2, 2),
    }
    lines = evaluate(runner, [], metrics, pictures=False)
    got = [
        tuple(line[key] for key in ('protocol', 'task', 'metric', 'value', 'low', 'high'))
        for line in lines
        if 'skipped' not in line
    ]
    assert got == [
        ('zero_shot', 'pets', 'top1', 50.0, 40.0, 60.0),
        ('zero_shot', 'pets', 'mean_per_class', 51.0, None, None),
        ('zero_shot', 'pets_small', 'top5', None, None, None),
        ('zero_shot', None, 'mean', 12.5, None, None),
        ('knn', 'pets', 'top1', 62.5, None, None),
        ('linear', 'pets', 'l2', 1e-4, None, None),
        ('linear', 'imagenet', 'top1', 70.0, None, None),
        ('retrieval', 'coco', 't2i_r1', 30.0, None, None),
        ('retrieval', 'coco', 'i2t_r5', 44.0, None, None),
        (None, None, 'very_low', 1.0, None, None),
    ]
    flags = [False, True, False, False, True, False, True, True, False, False]
    assert [line['official'] for line in lines[:-1]] == flags
    samples = [40, 40, 7, None, 40, 40, None, 9, 9, None]
    assert [line['samples'] for line in lines[:-1]] == samples
    assert lines[-1]['task'] == 'cars'
    assert lines[-1]['skipped'] == 'no folder x'
    assert lines[-1]['value'] is None
    for line in lines:
        assert (line['mode'], line['epoch'], line['iter']) == ('val', 3, 30)
        assert line['checkpoint'] is None
        assert line['experiment'] == 'run_20260102_030405'
    assert not (tmp_path / 'evaluation').exists()
    # A second evaluation comes after the first.
    again = evaluate(runner, [], {'knn/pets_top1': 1.0}, pictures=False)
    assert len(again) == len(lines) + 2
    assert again[: len(lines)] == lines


def test_a_data_set_of_mmpretrain_is_called_as_its_class(tmp_path: Path) -> None:
    class ImageNet(Pictures):
        pass

    runner = runner_of(tmp_path)
    runner.val_dataloader.dataset = ImageNet(50, classes=['a'])
    outputs = [DataSample().set_gt_label(0).set_pred_score(torch.ones(1))]
    (line,) = evaluate(runner, outputs, {'accuracy/top1': 80.0})
    assert (line['protocol'], line['task'], line['metric']) == ('accuracy', 'imagenet', 'top1')
    assert (line['official'], line['samples']) == (True, 50)
    assert not (tmp_path / 'evaluation').exists()


def test_a_test_states_its_checkpoint_and_prints_a_table(tmp_path: Path, capsys) -> None:
    part = Pictures(1234, task='[b]pets', classes=['a', 'b'])
    runner = runner_of(tmp_path, part, skipped=dict(cars='there is no folder data/cars'))
    del runner.epoch, runner.iter  # to ask for them would build the training data
    hook = EvaluationRecordHook()
    hook.after_load_checkpoint(runner, dict(meta=dict(epoch=9, iter=90)))
    hook.before_test_epoch(runner)
    key = 'zero_shot/[b]pets_top1'
    hook.after_test_epoch(runner, {key: 50.123, f'{key}_low': 40.0, f'{key}_high': 60.0})
    figure, skipped = read_lines(runner)
    assert (figure['mode'], figure['epoch'], figure['iter']) == ('test', 9, 90)
    assert figure['checkpoint'] == 'some/epoch_9.pth'
    printed = ' '.join(capsys.readouterr().out.replace('│', ' ').split())
    assert '[b]pets zero_shot top1 50.12 40.00 to 60.00 1,234' in printed
    assert 'cars skipped: there is no' in printed
    assert skipped['skipped'] == 'there is no folder data/cars'


def planted(number: int = 60, classes: int = 5) -> tuple[np.ndarray, np.ndarray, list]:
    """Labels, scores with ties, and samples of a task `val`, beside some that do not count."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, number)
    scores = rng.integers(-5, 6, (number, classes)) / 8  # exact in float32
    scores[labels == 3, 3] = 1.0  # class 3 is always right
    samples = [
        sample('val', i, label=int(labels[i]), pred_score=torch.tensor(scores[i]).float())
        for i in rng.permutation(number)
    ]
    reference = sample('val', 0, label=0, role='reference', backbone_feat=torch.ones(3))
    return labels, scores, [*samples[:31], reference, *samples[31:]]


def test_worst_classes_are_those_of_a_naive_count(tmp_path: Path) -> None:
    labels, scores, samples = planted()
    names = [('cat', 'kitty'), 'dog', 'a <b>', 'owl', 'fox', 'never seen']
    scores = np.concatenate([scores, np.full((60, 1), -1.0)], axis=1)
    for item in samples:
        if 'pred_score' in item:
            item.set_field(torch.cat([item.pred_score, torch.tensor([-1.0])]), 'pred_score')
    runner = runner_of(tmp_path, Pictures(60, task='val', classes=names))
    evaluate(runner, samples, {})

    expected = []
    for label in range(5):
        members = np.flatnonzero(labels == label)
        rivals, wrong, margins = Counter(), [], []
        for index in members:
            others = [scores[index, k] if k != label else -np.inf for k in range(6)]
            margins.append(scores[index, label] - max(others))
            if margins[-1] <= 0:  # a tie counts against the true class
                rivals[int(np.argmax(others))] += 1
                wrong.append((margins[-1], index))
        expected.append((1 - len(wrong) / len(members), np.mean(margins), label, rivals, wrong))
    expected = [entry for entry in sorted(expected, key=lambda e: e[:2]) if entry[0] < 1]
    content = showcase(runner, 'val')
    assert (content['samples'], content['classes'], content['mode']) == (60, 6, 'val')
    assert len(content['worst']) == len(expected) == 4
    first = lambda name: name if isinstance(name, str) else name[0]  # noqa: E731
    for row, (accuracy, _, label, rivals, wrong) in zip(content['worst'], expected, strict=True):
        assert row['name'] == first(names[label])
        assert row['accuracy'] == pytest.approx(100 * accuracy, abs=0.01)
        assert row['samples'] == sum(labels == label)
        assert sum(entry['share'] for entry in row['taken_for']) <= 100
        shares = {first(names[k]): 100 * n / row['samples'] for k, n in rivals.items()}
        assert row['taken_for'][0]['share'] == pytest.approx(max(shares.values()), abs=0.01)
        for entry in row['taken_for']:
            assert entry['share'] == pytest.approx(shares[entry['name']], abs=0.01)
        shown = [int(example['image'].removesuffix('.jpg')) for example in row['examples']]
        assert shown == [index for _, index in sorted(wrong)[:3]]


def test_accuracy_comes_before_margin(tmp_path: Path) -> None:
    """Class a is never right but close, class b is half right and far off elsewhere."""
    scores = [[0.1, 0.2, 0], [-0.9, 0.9, 0], [0.9, -0.9, 0], [0, 0, 0.5], [0.3, 0, 0.1]]
    samples = [
        sample('val', i, label=label, pred_score=torch.tensor(score).float())
        for i, (label, score) in enumerate(zip([0, 1, 1, 2, 2], scores, strict=True))
    ]
    runner = runner_of(tmp_path, Pictures(5, task='val', classes=['a', 'b', 'c']))
    evaluate(runner, samples, {})
    worst = [(row['name'], row['accuracy']) for row in showcase(runner, 'val')['worst']]
    # Equal accuracy of b and c: the lower margin first, (0.9 - 1.8) / 2 < (0.5 - 0.2) / 2.
    assert worst == [('a', 0), ('b', 50), ('c', 50)]


def test_retrieval_and_similarity_are_those_of_the_scores(tmp_path: Path) -> None:
    labels, scores, samples = planted()
    names = ['cat', 'dog', 'hen', 'owl', 'fox']
    runner = runner_of(tmp_path, Pictures(60, task='val', classes=names))
    evaluate(runner, samples, {})
    content = showcase(runner, 'val')
    assert [row['text'] for row in content['retrieval']] == names
    for label, row in enumerate(content['retrieval']):
        hits = sorted(range(60), key=lambda i, label=label: (-scores[i, label], i))[:8]
        assert [hit['image'] for hit in row['images']] == [f'{i}.jpg' for i in hits]
        assert [hit['right'] for hit in row['images']] == [bool(labels[i] == label) for i in hits]
        assert [hit['score'] for hit in row['images']] == [
            pytest.approx(scores[i, label], abs=1e-4) for i in hits
        ]
    similarity = content['similarity']
    first = [int(np.flatnonzero(labels == label)[0]) for label in range(5)]
    assert similarity['texts'] == names
    assert similarity['images'] == [f'{i}.jpg' for i in first]
    np.testing.assert_allclose(similarity['cosines'], scores[first].T, atol=1e-4)


def test_thumbnails_are_small_and_replace_older_ones(tmp_path: Path) -> None:
    _, _, samples = planted()
    runner = runner_of(tmp_path, Pictures(60, task='val', classes=list('abcde')))
    folder = tmp_path / 'evaluation' / 'val'
    folder.mkdir(parents=True)
    (folder / '777.jpg').write_bytes(b'old')
    evaluate(runner, samples, {})
    pictures = sorted(folder.glob('*.jpg'))
    content = (folder / 'showcase.json').read_text(encoding='utf-8')
    assert not (folder / '777.jpg').exists()
    assert len(pictures) > 20
    assert all(f'"{path.name}"' in content for path in pictures)
    image = mmcv.imread(pictures[3])
    assert image.shape == (36, 72, 3)
    np.testing.assert_allclose(image[18, 10], (0, 0, 255), atol=6)  # red, BGR
    np.testing.assert_allclose(image[18, 60], [int(pictures[3].stem)] * 3, atol=6)


def test_a_large_set_leaves_little(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    scores = torch.tensor(rng.normal(size=(900, 300)), dtype=torch.float32)
    samples = [sample('a/../b', i, label=i % 300, pred_score=scores[i]) for i in range(900)]
    names = [f'class {k}' for k in range(300)]
    runner = runner_of(tmp_path, Pictures(900, task='a/../b', classes=names))
    evaluate(runner, samples, {})
    content = showcase(runner, 'a____b')  # inside the work folder
    assert len(content['worst']) == 6
    assert all(len(row['examples']) <= 3 for row in content['worst'])
    assert len(content['retrieval']) == 8
    assert all(len(row['images']) == 8 for row in content['retrieval'])
    assert len(content['similarity']['texts']) == 24
    assert {path.name for path in tmp_path.iterdir()} == {'evaluation', 'results.jsonl'}
    assert len(list((tmp_path / 'evaluation' / 'a____b').glob('*.jpg'))) <= 18 + 64 + 24


def test_scores_that_are_not_numbers(tmp_path: Path) -> None:
    samples = [
        sample('val', i, label=0, pred_score=torch.full((2,), math.nan)) for i in range(3)
    ] + [sample('val', 3, label=1, pred_score=torch.tensor([0.25, 0.5]))]
    runner = runner_of(tmp_path, Pictures(4, task='val', classes=['a', 'b']))
    evaluate(runner, samples, {'zero_shot/val_top1': math.inf})
    content = showcase(runner, 'val')
    assert [row['name'] for row in content['worst']] == ['a']
    assert content['worst'][0]['accuracy'] == 0
    assert content['retrieval'][0]['images'][0] == dict(image='3.jpg', score=0.25, right=False)
    assert content['similarity']['cosines'] == [[None, 0.25], [None, 0.5]]


def test_captioned_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    feats = rng.normal(size=(30, 8))
    feats = torch.tensor(feats / np.linalg.norm(feats, axis=1, keepdims=True)).float()
    texts = feats.roll(1, 0)  # the first caption of image i finds image i - 1
    samples = [
        sample('coco', i, image_feat=feats[i], text_feat=torch.stack([texts[i], -texts[i]]))
        for i in rng.permutation(30)
    ]
    runner = runner_of(tmp_path, Pictures(30, task='coco'))
    evaluate(runner, samples, {})
    content = showcase(runner, 'coco')
    assert 'worst' not in content
    queries = spread(30, 24)[spread(24, 8)]
    assert [row['text'] for row in content['retrieval']] == [f'caption {q}' for q in queries]
    for query, row in zip(queries, content['retrieval'], strict=True):
        scores = (feats @ texts[query]).numpy()
        hits = [int(hit['image'].removesuffix('.jpg')) for hit in row['images']]
        assert hits[0] == (query - 1) % 30
        assert hits == np.argsort(-scores)[:8].tolist()
        assert [hit['right'] for hit in row['images']] == [hit == query for hit in hits]
        np.testing.assert_allclose([h['score'] for h in row['images']], scores[hits], atol=2e-3)


def _collect(rank: int, world_size: int) -> dict | None:
    samples = planted(number=61)[-1]
    # As a sampler shares them out: in turn, the first one again where the number is odd.
    ordered = sorted((s for s in samples if 'pred_score' in s), key=lambda s: s.sample_idx)
    ordered.append(ordered[0])
    part = Pictures(61, task='val', classes=list('abcde'))
    keeper = PredictionKeeper(part, 3)
    keeper.add(ordered[rank::world_size])
    found = keeper.collect()
    return None if found is None else vars(found['val'])


@pytest.mark.dist
def test_two_processes_keep_what_one_does() -> None:
    one = _collect(0, 1)
    two, nothing = pool.run(_collect, 2)
    assert nothing is None
    assert one['index'].tolist() == list(range(61))
    for name, value in one.items():
        np.testing.assert_array_equal(two[name], value, err_msg=name)


@pytest.mark.parametrize(
    ('total', 'number', 'expected'),
    [(10, 3, [0, 4, 9]), (3, 8, [0, 1, 2]), (1, 4, [0]), (5, 5, [0, 1, 2, 3, 4])],
)
def test_spread(total: int, number: int, expected: list[int]) -> None:
    assert spread(total, number).tolist() == expected


def test_a_real_run_and_its_test(tmp_path: Path) -> None:
    """Trained, then tested: the record holds the metrics of both."""
    work_dir = tmp_path / 'recorded'
    one_step = {'train_dataloader.dataset.indices': 8, 'train_cfg.max_epochs': 2}
    cfg = small_config(work_dir, param_scheduler=None, **one_step)
    Runner.from_cfg(cfg).train()
    cfg = small_config(work_dir, load_from=str(work_dir / 'epoch_2.pth'))
    cfg.experiment_name += '_test'
    metrics = Runner.from_cfg(cfg).test()
    lines = [json.loads(line) for line in (work_dir / 'results.jsonl').read_text().splitlines()]
    assert [line['mode'] for line in lines] == ['val'] * 8 + ['test'] * 4
    assert [line['iter'] for line in lines] == [1] * 4 + [2] * 8
    for line in lines[8:]:
        name = f'zero_shot/{line["task"]}_{line["metric"]}'
        bounds = line['value'], line['low'], line['high']
        assert bounds == (metrics[name], metrics[f'{name}_low'], metrics[f'{name}_high'])
        assert (line['epoch'], line['iter'], line['samples']) == (2, 2, 64)
        assert line['checkpoint'].endswith('epoch_2.pth')
    for task in ('val', 'concepts'):
        content = json.loads((work_dir / 'evaluation' / task / 'showcase.json').read_text())
        assert content['samples'] == 64
