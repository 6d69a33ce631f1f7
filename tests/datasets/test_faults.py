"""Every kind of broken sample, and what becomes of it."""

import copy
import json
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset, DefaultSampler, RepeatDataset
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

import mmslip.engine  # noqa: F401  (registers the hooks)
from mmslip.datasets import ImageTextDataset, ShardDataset, Visit
from mmslip.datasets.io.faults import BadSampleError, BadSamples, MissingImageError
from tests.datasets.test_decode import PICTURE, WHOLE, encode, png_of_size
from tests.datasets.test_shards import pack

PIPELINE = [dict(type='mmslip.LoadImage')]
FAULTS = {
    'missing': (lambda path: path.unlink(), 'There is no image'),
    'empty': (lambda path: path.write_bytes(b''), 'format is unknown'),
    'html': (lambda path: path.write_text('<html>'), 'format is unknown'),
    'truncated': (lambda path: path.write_bytes(WHOLE['jpeg'][:-30]), 'cut short'),
    'bomb': (lambda path: path.write_bytes(png_of_size(60_000, 60_000)), '02.png'),
    'folder': (lambda path: (path.unlink(), path.mkdir()), 'There is no image'),
}


@pytest.fixture
def make_dataset(make_pairs: Callable[..., Path]) -> Callable[..., ImageTextDataset]:
    root = []

    def make(number: int = 6, **options: object) -> ImageTextDataset:
        root.append(root[0] if root else make_pairs(number))
        return ImageTextDataset(
            'pairs.jsonl',
            data_root=str(root[0]),
            data_prefix=dict(img_path='images'),
            pipeline=PIPELINE,
            **options,
        )

    return make


def break_image(dataset: ImageTextDataset, *indices: int) -> None:
    for index in indices:
        Path(dataset.get_data_info(index)['img_path']).write_bytes(b'no image')


@pytest.mark.parametrize('fault', FAULTS)
def test_bad_images_are_replaced_counted_and_listed(make_dataset, tmp_path, fault):
    dataset = make_dataset()
    dataset.bad_samples.path = tmp_path / 'bad_samples.jsonl'
    action, message = FAULTS[fault]
    action(tmp_path / 'images' / '02.png')
    for _ in range(2):
        assert [item['sample_idx'] for item in map(dataset.__getitem__, range(6))] == [
            *(0, 1, 3, 3, 4, 5)
        ]
    assert (dataset.bad_samples.visits, dataset.bad_samples.replaced) == (12, 2)
    (line,) = dataset.bad_samples.path.read_text().splitlines()
    assert json.loads(line)['index'] == 2
    assert message in json.loads(line)['error']
    assert str(tmp_path / 'images' / '02.png') in json.loads(line)['error']
    for strict in (dict(max_bad_share=0), dict(test_mode=True)):
        with pytest.raises(BadSampleError, match=message):
            make_dataset(**strict)[2]


def test_missing_images_are_still_file_not_found(make_dataset, tmp_path):
    dataset = make_dataset(max_bad_share=0)
    (tmp_path / 'images' / '01.png').unlink()
    with pytest.raises(FileNotFoundError) as caught:
        dataset[1]
    assert isinstance(caught.value, MissingImageError)


@pytest.mark.parametrize(
    ('member', 'content', 'message'),
    [
        ('1.txt', b'', 'its .txt is blank'),
        ('1.txt', b' \n ', 'its .txt is blank'),
        ('1.txt', 'Tür'.encode('latin-1'), 'cannot be read'),
        ('1.json', b'{"caption": ["", " "]}', 'no caption'),
        ('1.json', b'{"capt', 'is not valid JSON'),
    ],
)
def test_bad_captions_of_shards_are_replaced(tmp_path, member, content, message):
    good = encode(PICTURE, 'JPEG')
    pairs = [('0.jpg', good), ('0.txt', b'zero'), ('1.jpg', good), (member, content)]
    path = pack(tmp_path / 'a.tar', [*pairs, ('2.jpg', good), ('2.txt', b'two')])
    dataset = ShardDataset(path, pipeline=PIPELINE)
    dataset.bad_samples.path = tmp_path / 'bad_samples.jsonl'
    assert [dataset[index]['text'] for index in range(3)] == [['zero'], ['two'], ['two']]
    (line,) = dataset.bad_samples.path.read_text().splitlines()
    assert message in line
    assert f'{path}:1' in line
    with pytest.raises(BadSampleError, match=message):
        ShardDataset(path, pipeline=PIPELINE, max_bad_share=0)[1]


@pytest.mark.parametrize('left', ['jpg', 'txt'])
def test_missing_members_of_shards_are_replaced(tmp_path, left):
    members = [
        (f'{number}.{kind}', encode(PICTURE, 'JPEG') if kind == 'jpg' else b'text')
        for number in range(3)
        for kind in ('jpg', 'txt')
        if number != 1 or kind == left
    ]
    path = pack(tmp_path / 'a.tar', members)
    dataset = ShardDataset(path, pipeline=PIPELINE)
    dataset.bad_samples.path = tmp_path / 'bad_samples.jsonl'
    assert [dataset[index]['sample_idx'] for index in range(3)] == [0, 2, 2]
    (line,) = dataset.bad_samples.path.read_text().splitlines()
    assert json.loads(line)['index'] == 1
    assert f'{path}:1 has {left} but no ' in json.loads(line)['error']


def test_the_last_sample_wraps_around_and_a_row_of_bad_ones_is_passed(make_dataset):
    dataset = make_dataset()
    break_image(dataset, 3, 4, 5)
    assert [dataset[index]['sample_idx'] for index in (3, 4, 5, -1)] == [0, 0, 0, 0]
    with pytest.raises(IndexError):
        dataset[6]
    assert ConcatDataset([dataset, dataset])[Visit(11, 1)]['sample_idx'] == 0
    assert RepeatDataset(dataset, 2)[Visit(10, 1)]['sample_idx'] == 0


def test_no_sample_works(make_dataset):
    dataset = make_dataset()
    break_image(dataset, *range(6))
    with pytest.raises(BadSampleError, match=r'02\.png'):
        dataset[2]


def test_a_replacement_depends_on_the_visit_only(make_dataset):
    dataset = make_dataset()
    dataset.pipeline.transforms.append(lambda results: dict(results, drawn=np.random.rand()))
    draws = dataset[Visit(3, 5)]['drawn']
    break_image(dataset, 2)
    replaced = dataset[Visit(2, 5)]
    assert (replaced['sample_idx'], replaced['drawn']) == (3, draws)


def test_errors_of_code_are_not_faults_of_data(make_dataset):
    dataset = make_dataset()

    def broken(results: dict) -> dict:
        raise ValueError('SLIPViews made 5 views')

    dataset.pipeline.transforms.append(broken)
    with pytest.raises(ValueError, match='5 views') as caught:
        dataset[0]
    assert not isinstance(caught.value, BadSampleError)


def test_a_share_above_the_limit_stops():
    bad = BadSamples(0.01)
    error = BadSampleError('x.jpg is gone')
    for _ in range(199):
        bad.count(error)  # too few to judge
    with pytest.raises(RuntimeError, match=r'200 of 200 samples .*max_bad_share=0.01.*x.jpg'):
        bad.count(error)

    # At half the limit no run of chance stops it; at three times the limit it stops.
    for share, stops in ((0.005, False), (0.03, True)):
        bad, draws = BadSamples(0.01), np.random.default_rng(1).random(20_000) < share
        stopped = False
        for draw in draws:
            try:
                bad.count(error if draw else None)
            except RuntimeError:
                stopped = True
                break
        assert stopped is stops
    assert bad.visits < 3000
    with pytest.raises(ValueError, match='max_bad_share'):
        BadSamples(1.5)


def test_processes_and_later_runs_list_a_sample_once(tmp_path):
    one, two = BadSamples(0.5), BadSamples(0.5)
    one.path = two.path = tmp_path / 'bad_samples.jsonl'
    for bad in (one, two, one):
        bad.add(4, BadSampleError('ä is bad'))
    two.add(5, BadSampleError('b is bad'))
    one.add(5, BadSampleError('b is bad'))
    lines = [json.loads(line) for line in one.path.read_text('ascii').splitlines()]
    assert lines == [dict(index=4, error='ä is bad'), dict(index=5, error='b is bad')]


@pytest.mark.parametrize('name', ['\udcff\udce4', 'a\x85b', 'a\u2028b', 'a\nb', '\ud83d', 'a\x00b'])
def test_names_of_any_bytes_are_listed(tmp_path, name):
    bads = [BadSamples(0.5), BadSamples(0.5)]
    for bad in bads * 2:
        bad.path = tmp_path / 'bad_samples.jsonl'
        bad.add(0, BadSampleError(f'{name} is bad'))
        bad.add(1, BadSampleError('other'))
    lines = bads[0].path.read_bytes().splitlines()
    assert [json.loads(line)['error'] for line in lines] == [f'{name} is bad', 'other']


def test_a_torn_last_line_ends_no_run(tmp_path):
    path = tmp_path / 'bad_samples.jsonl'
    path.write_bytes(b'{"index": 0, "error": "whole"}\n{"index": 1, "error": "\xe2\x80')
    for _ in range(2):  # two runs
        bad = BadSamples(0.5)
        bad.path = path
        for index, error in enumerate(['whole', 'torn', 'new']):
            bad.add(index, BadSampleError(error))
    whole, _, torn, new = path.read_bytes().splitlines()
    assert [json.loads(line)['error'] for line in (whole, torn, new)] == ['whole', 'torn', 'new']


def test_lost_shards_have_a_bound_of_their_own():
    error = BadSampleError('b.tar is gone')

    def stops_at(lost: list[bool], limit: float) -> tuple[int, str] | None:
        bad = BadSamples(0.01, limit)
        for number, gone in enumerate(lost, 1):
            try:
                bad.count_shard(error if gone else None)
            except RuntimeError as error_of_run:
                return number, str(error_of_run)
        return None

    number, message = stops_at([True, False, True, True], 0.05)
    assert number == 4
    assert '3 of 4 shards could not be read, more than max_lost_shards=0.05' in message
    assert stops_at([False, True, False, False] * 10, 0.05) is not None  # over the epochs
    assert stops_at(([True] + [False] * 127) * 10, 0.05) is None
    assert stops_at([True, True, True, True], 1.0) is None
    with pytest.raises(ValueError, match=r'max_lost_shards must be in \[0, 1\]'):
        BadSamples(0.01, -1)


def test_a_copy_counts_anew():
    bad = BadSamples(0.5)
    bad.count(BadSampleError('x'))
    clone = copy.deepcopy(bad)
    clone.count(None)
    assert (bad.visits, clone.visits, clone.replaced) == (1, 1, 0)


class Mean(BaseModel):
    """Takes anything."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, sample_idx: Tensor, mode: str = 'loss', **others: object) -> dict:
        return dict(loss=self.layer(sample_idx.float()[:, None]).mean())


def crop_and_keep(results: dict) -> dict:
    return dict(sample_idx=results['sample_idx'])


@pytest.mark.parametrize(
    'loop', [dict(by_epoch=True, max_epochs=2), dict(by_epoch=False, max_iters=6)]
)
def test_workers_of_a_run_list_in_the_work_folder(make_dataset, tmp_path, loop):
    dataset = make_dataset(max_bad_share=0.9)
    dataset.pipeline.transforms.append(crop_and_keep)
    break_image(dataset, 1, 4)
    runner = Runner(
        model=Mean(),
        work_dir=str(tmp_path / 'work'),
        train_dataloader=dict(
            batch_size=2,
            num_workers=2,
            persistent_workers=True,
            sampler=dict(type='mmslip.VisitSampler'),
            collate_fn=dict(type='default_collate'),
            dataset=dataset,
        ),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        custom_hooks=[dict(type='mmslip.BadSampleHook'), dict(type='mmslip.ResumeDataHook')],
        default_hooks=dict(checkpoint=None),
        default_scope='mmpretrain',
        experiment_name=f'run-{uuid.uuid4()}',
    )
    runner.train()
    # Otherwise workers would wait for the garbage collector, and that for them.
    runner.train_loop.dataloader_iterator = runner.train_dataloader._iterator = None
    lines = (tmp_path / 'work' / 'bad_samples.jsonl').read_text().splitlines()
    assert sorted(json.loads(line)['index'] for line in lines) == [1, 4]
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert '2 bad samples were replaced; they are in' in log


def test_a_worker_stops_the_run(make_dataset):
    dataset = make_dataset()
    break_image(dataset, 0)
    sampler = DefaultSampler(RepeatDataset(dataset, 60), shuffle=False)
    loader = DataLoader(
        RepeatDataset(dataset, 60), sampler=sampler, num_workers=1, collate_fn=len, batch_size=6
    )
    batches = iter(loader)
    with pytest.raises(RuntimeError, match=r'of 2\d\d samples could not be read'):
        list(batches)
    batches._shutdown_workers()


def test_counts_go_on_over_workers_and_epochs(make_dataset):
    dataset = make_dataset(number=48)
    break_image(dataset, *range(0, 45, 3))
    options = dict(num_workers=2, collate_fn=len, multiprocessing_context='fork')
    loader = DataLoader(dataset, batch_size=8, **options)
    for epoch in range(4):
        list(loader)
        assert (dataset.bad_samples.visits, dataset.bad_samples.replaced) == (
            48 * (epoch + 1),
            15 * (epoch + 1),
        )
    with pytest.raises(RuntimeError, match=r'of 2\d\d samples could not be read'):
        list(loader)


def test_counts_of_a_spawned_worker(make_dataset):
    dataset = make_dataset()
    break_image(dataset, 2)
    options = dict(num_workers=1, collate_fn=len, multiprocessing_context='spawn')
    list(DataLoader(dataset, **options))
    assert (dataset.bad_samples.visits, dataset.bad_samples.replaced) == (6, 1)
