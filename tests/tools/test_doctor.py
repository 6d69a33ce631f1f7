"""Each check on good and bad input, and the tool on a whole job."""

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.optim import build_optim_wrapper
from torch.utils.data import DataLoader

from mmslip import analysis
from mmslip.analysis import data
from mmslip.analysis.cost import Cost
from mmslip.datasets import (
    CaptionTable,
    CLIPTokenizer,
    ImageTextDataset,
    MixedDataset,
    StreamDataset,
    TableDataset,
)
from tests.datasets.test_shards import pack, pairs

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'tools'))
import doctor  # noqa: E402


def resize_in(**options: object) -> dict:
    views = dict(type='MultiView', transforms=[[dict(type='Resize', **options)]], num_views=[1])
    return dict(val_dataloader=dict(dataset=dict(pipeline=[views])))


def test_aspect() -> None:
    squashed = analysis.check_aspect(resize_in(scale=(224, 224)))
    assert squashed.verdict == 'warn'
    assert 'val_dataloader' in squashed.finding
    assert 'ResizeEdge' in squashed.remedy
    assert analysis.check_aspect(resize_in(scale=224, keep_ratio=True)).verdict == 'ok'
    assert analysis.check_aspect(resize_in(scale_factor=0.5)).verdict == 'ok'
    assert analysis.check_aspect(dict(val_dataloader=None)).verdict == 'ok'


@pytest.mark.parametrize(
    ('batch', 'gpus', 'synced', 'verdict'),
    [(8, 1, True, 'fail'), (32, 1, True, 'warn'), (8, 8, True, 'ok'), (8, 8, False, 'fail')],
)
def test_batch_norm(make_slip: Callable, batch: int, gpus: int, synced: bool, verdict: str) -> None:
    finding = analysis.check_batch_norm(make_slip(), batch, gpus, synced)
    assert finding.verdict == verdict
    assert ('sync_bn' in finding.remedy) is (gpus > 1 and not synced)
    assert analysis.check_batch_norm(make_slip(ssl=None), batch, gpus, synced).verdict == 'ok'


def job(batch: int, **changes: object) -> dict:
    wrapper = dict(optimizer=dict(lr=1e-3))
    return {'optim_wrapper': wrapper, 'train_dataloader': dict(batch_size=batch), **changes}


def test_learning_rate() -> None:
    base = dict(auto_scale_lr=dict(base_batch_size=4096))
    assert analysis.check_learning_rate(job(64, **base), 64).verdict == 'ok'
    finding = analysis.check_learning_rate(job(64, **base), 1)
    assert finding.verdict == 'warn'
    assert '--auto-scale-lr' in finding.remedy
    base['auto_scale_lr']['enable'] = True
    assert 'scaled to 1.56e-05' in analysis.check_learning_rate(job(64, **base), 1).finding
    assert analysis.check_learning_rate(job(64), 1).verdict == 'ok'
    accumulating = job(64)
    accumulating['optim_wrapper']['accumulative_counts'] = 4
    assert 'not a larger batch' in analysis.check_learning_rate(accumulating, 1).remedy


def test_activation(make_slip: Callable) -> None:
    finding = analysis.check_activation(make_slip(), dict(model={}))
    assert finding.finding == 'backbone: GELU, text_backbone: QuickGELU'
    assert finding.verdict == 'ok'
    assert analysis.check_activation(make_slip(), dict(model={}, load_from='x')).verdict == 'warn'
    pretrained = dict(model=dict(backbone=dict(init_cfg=dict(type='Pretrained'))))
    assert analysis.check_activation(make_slip(), pretrained).verdict == 'warn'


def official(model: dict, **tokenizer: object) -> dict:
    step = dict(type='mmslip.TokenizeCaption', tokenizer=dict(type='mmslip.CLIPTokenizer'))
    step['tokenizer'].update(tokenizer)
    return dict(model=model, train_dataloader=dict(dataset=dict(pipeline=[step])))


def test_faults_of_other_code() -> None:
    exact = dict(head=dict(type='mmslip.CLIPHead'), ssl=dict(type='mmslip.SimCLR'))
    assert analysis.check_official(official(exact), 8).verdict == 'ok'
    assert analysis.check_official(official(dict(ssl=None)), 8).verdict == 'ok'
    gather = dict(head=dict(type='mmslip.CLIPHead', gather_with_grad=False))
    for fault, gpus, text in (
        (official(gather), 8, 'halves the image-text gradient'),
        (official(dict(ssl=dict(type='SimCLR'))), 8, '1/8 of its gradient'),
        (official(exact, keep_end_token=False), 1, 'one embedding'),
        (official(exact, parse_control_tokens=True), 1, 'lets a caption end itself'),
    ):
        finding = analysis.check_official(fault, gpus)
        assert finding.verdict == 'warn'
        assert text in finding.finding
        assert (analysis.check_official(fault, 1).verdict == 'ok') is (gpus > 1)


def test_checkpoints() -> None:
    cfg = Config.fromfile(ROOT / 'configs' / 'slip' / 'slip_vit-tiny_emoji.py')
    kept = analysis.check_checkpoints(cfg)
    assert kept.verdict == 'ok'
    assert 'zero_shot/val_top1' in kept.finding
    cfg.val_dataloader = None
    assert 'overfit' in analysis.check_checkpoints(cfg).finding
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook.type != 'mmslip.ResumeDataHook']
    finding = analysis.check_checkpoints(cfg)
    assert finding.verdict == 'warn'
    assert finding.finding == 'without mmslip.ResumeDataHook: a resumed run replays data'


def test_rows_in_memory(dataset: ImageTextDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    assert '10 rows' in analysis.check_rows(RepeatDataset(dataset, 5)).finding
    both = MixedDataset([dataset, dataset], weights=[1, 2], length=9)
    assert analysis.check_rows(both).finding == 'each process holds 20 rows in memory'
    assert analysis.check_rows(both).verdict == 'ok'
    monkeypatch.setattr(data, '_MANY_ROWS', 19)
    assert analysis.check_rows(both).verdict == 'warn'
    path = Path(dataset.data_root, 't.table')
    CaptionTable.write(path, [('00.png', ['a'])] * 40)
    assert analysis.check_rows(TableDataset(str(path))).verdict == 'ok'


def test_captions() -> None:
    tokenizer = CLIPTokenizer(context_length=6)  # four tokens of text
    finding = analysis.check_captions(['a b c d'] * 9 + ['a b c d e'], tokenizer)
    assert finding.verdict == 'warn'
    assert finding.finding.startswith('10.0% of captions are cut to 4 tokens')
    assert analysis.check_captions(['a b c d'], tokenizer).verdict == 'ok'


def test_duplicates() -> None:
    assert analysis.check_duplicates(['a', 'b', 'c'], 3).finding.startswith('0.0%')
    assert analysis.check_duplicates(['a'] * 5, 2).finding.startswith('100.0%')
    # 100 pairs: of 9 others out of 199, the share with its twin is 9 / 199, nearly.
    captions = [str(number // 2) for number in range(200)]
    expected = 1 - (1 - 1 / 199) ** 9
    assert f'{expected:.1%}' == '4.4%'
    assert analysis.check_duplicates(captions, 10).finding.startswith('4.4%')
    finding = analysis.check_duplicates(captions, 50)
    assert finding.verdict == 'warn'
    rng, met = np.random.default_rng(0), []
    for _ in range(300):
        batch = rng.permutation(200)[:50] // 2
        met.append(np.mean([(batch == one).sum() > 1 for one in batch]))
    share = float(finding.finding.split('%')[0]) / 100
    assert abs(share - np.mean(met)) < 0.04


@pytest.fixture
def dataset(make_pairs: Callable) -> ImageTextDataset:
    root = make_pairs(10)
    prefix, pipeline = dict(img_path='images'), [dict(type='mmslip.LoadImage')]
    return ImageTextDataset('pairs.jsonl', str(root), prefix, pipeline=pipeline)


def test_readable(dataset: ImageTextDataset) -> None:
    assert analysis.check_readable(dataset, 10).verdict == 'ok'
    Path(dataset.get_data_info(4)['img_path']).write_bytes(b'x')
    finding = analysis.check_readable(dataset, 99)
    assert finding.verdict == 'fail'
    assert finding.finding == '1 of 10 samples cannot be read'
    assert '04.png' in finding.remedy
    assert analysis.check_readable(dataset, 10, max_share=0.2).verdict == 'warn'
    mixed = MixedDataset([dataset, RepeatDataset(dataset, 2)], weights=[1, 2], length=90)
    finding = analysis.check_readable(mixed, 90)
    assert 6 <= int(finding.finding.split()[0]) <= 12  # nine passes, some of them unfinished
    assert len(analysis.draw_captions(ConcatDataset([dataset, dataset]), 30)) == 20
    captions = analysis.draw_captions(dataset, 5)
    assert len(captions) == len(set(captions)) == 5
    assert all(caption.startswith('shape') for caption in captions)


def stream_of(folder: Path, *numbers: int, **options: object) -> StreamDataset:
    """Two shards, of which the second has no image worth the name."""
    pytest.importorskip('webdataset', reason='webdataset is not installed')
    good, bad = list(pairs(*numbers)), [('9.jpg', b'no image'), ('9.txt', b'x')]
    shards = [pack(folder / 'a.tar', good), pack(folder / 'b.tar', bad)]
    load = [dict(type='mmslip.LoadImage')]
    return StreamDataset(shards, length=8, shuffle_buffer=1, pipeline=load, **options)


def test_streams(tmp_path: Path) -> None:
    stream = stream_of(tmp_path, 0, 1, 2)
    finding = analysis.check_readable(stream, 9)
    assert finding.verdict == 'fail'
    bad, visits = (int(word) for word in finding.finding.split(' ')[:3:2])
    assert visits - bad == 9
    assert 2 <= bad <= 3  # one in four, of three rounds
    assert 'b.tar:9' in finding.remedy
    assert analysis.check_readable(stream, 9, max_share=0.5).verdict == 'warn'
    captions = analysis.draw_captions(stream, 6)
    assert sorted(captions) == sorted(2 * [text.decode() for _, text in pairs(0, 1, 2)[1::2]])
    assert stream.bad_samples.visits == 0  # left as it was

    hopeless = stream_of(tmp_path / 'bad', max_bad_share=0)
    assert analysis.check_readable(hopeless, 9).finding == '200 of 200 samples cannot be read'
    assert analysis.draw_captions(hopeless, 9) == []

    for workers, gpus, verdict in ((0, 2, 'ok'), (2, 1, 'ok'), (2, 2, 'fail')):
        loader = DataLoader(stream, num_workers=workers)
        assert analysis.check_shards(loader, gpus).verdict == verdict


@pytest.mark.parametrize(
    ('size', 'gpus', 'drop', 'verdict'),
    [(4, 1, True, 'ok'), (4, 1, False, 'warn'), (5, 2, False, 'ok'), (6, 2, True, 'fail')],
)
def test_last_batch(size: int, gpus: int, drop: bool, verdict: str) -> None:
    loader = DataLoader(range(10), batch_size=size, drop_last=drop)
    assert analysis.check_last_batch(loader, gpus).verdict == verdict


def test_speed_and_memory() -> None:
    assert analysis.check_loader_speed(100, 50, 'cpu').verdict == 'ok'
    assert 'num_workers' in analysis.check_loader_speed(40, 50, 'cpu').remedy
    cost = Cost(10, int(4e9), int(5e9))
    verdicts = [analysis.check_memory(cost, int(space)).verdict for space in (8e9, 9.5e9, 2e10)]
    assert verdicts == ['fail', 'warn', 'ok']


def test_loader_is_measured() -> None:
    batches = [dict(inputs=dict(image=torch.zeros(4, 3)))]
    for number in (1, 5):
        speed, batch = analysis.measure_loader(batches * number, seconds=1)
        assert speed > 0
        assert batch is batches[0]


def test_training_is_measured(make_slip: Callable) -> None:
    model = make_slip()
    sizes = [parameter.numel() for parameter in model.parameters()]
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(type='AdamW', lr=1e-3)))
    view = torch.zeros(16, 3, 32, 32, dtype=torch.uint8)
    text = torch.zeros(16, 16, dtype=torch.long)
    text[:, 3] = 49407
    batch = dict(inputs=dict(image=view, views=[view, view], text=text))
    whole = analysis.measure_training(model, wrapper, batch)
    # Weight, gradient and two moments, and little else.
    assert whole.static == pytest.approx(4 * 4 * sum(sizes), rel=0.02)
    part = analysis.measure_training(model, wrapper, batch, seconds=0)
    assert part.step == pytest.approx(whole.step, rel=0.3)
    assert math.isfinite(whole.samples_per_s)
    # In slices of 4, the other 12 samples have only their three float views in memory.
    sliced = make_slip(chunk_size=4)
    wrapper = build_optim_wrapper(sliced, dict(optimizer=dict(type='AdamW', lr=1e-3)))
    cost = analysis.measure_training(sliced, wrapper, batch, chunk_size=4)
    assert cost.step == pytest.approx(whole.step / 4 + 12 * 3 * view[0].numel() * 4, rel=0.3)
    assert cost.static == pytest.approx(whole.static, rel=0.01)


def test_the_tool_on_a_job(dataset, make_slip, monkeypatch, tmp_path, capsys) -> None:
    cfg = Config.fromfile(ROOT / 'configs' / 'slip' / 'slip_vit-tiny_emoji.py')
    cfg.train_dataloader.dataset.indices = 64
    cfg.train_dataloader.update(batch_size=32, num_workers=0, drop_last=False)
    path = tmp_path / 'config.py'
    cfg.dump(path)
    command = ['doctor.py', str(path), '--samples', '40', '--seconds', '1']
    monkeypatch.setattr(sys, 'argv', command)
    monkeypatch.setenv('COLUMNS', '200')
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    assert not ended.value.code
    shown = capsys.readouterr().out
    for text in ('0 of 40 samples cannot be read', 'statistics over 32', 'samples/s', ' GB of '):
        assert text in shown

    changes = ['train_dataloader.batch_size=8', 'train_dataloader.dataset.split=nothing']
    monkeypatch.setattr(sys, 'argv', [*command, '--cfg-options', *changes])
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    assert ended.value.code
    shown = capsys.readouterr().out
    assert "not 'nothing'" in shown
    assert 'fail' in shown


def test_the_tool_on_a_stream(monkeypatch, tmp_path, capsys) -> None:
    pytest.importorskip('webdataset', reason='webdataset is not installed')
    for shard in range(2):
        pack(tmp_path / f'{shard}.tar', pairs(*range(4 * shard, 4 * shard + 4)))
    cfg = Config.fromfile(ROOT / 'configs' / 'slip' / 'slip_vit-tiny_emoji.py')
    pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader = dict(
        batch_size=16,
        num_workers=0,
        sampler=None,
        collate_fn=dict(type='default_collate'),
        dataset=dict(
            type='mmslip.StreamDataset',
            shards=str(tmp_path / '{0..1}.tar'),
            length=8,
            pipeline=pipeline,
        ),
    )
    path = tmp_path / 'config.py'
    cfg.dump(path)
    command = ['doctor.py', str(path), '--samples', '30', '--seconds', '0.2']
    monkeypatch.setattr(sys, 'argv', command)
    monkeypatch.setenv('COLUMNS', '200')
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    assert not ended.value.code
    shown = capsys.readouterr().out
    for text in ('0 of 30 samples', '2 shards for 1 processes', 'samples/s', ' GB of '):
        assert text in shown
    # Eight captions, of which a batch of 16 has each about twice.
    assert re.search(r'[78]\d\.\d% of the samples of a batch of 16 share', shown)

    monkeypatch.setattr(sys, 'argv', [*command, '--gpus', '3'])
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    assert ended.value.code
    (tmp_path / '1.tar').unlink()
    with pytest.raises(SystemExit):
        doctor.main()
    assert 'There is no shard' in capsys.readouterr().out
