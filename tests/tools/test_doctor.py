"""Each check on good and bad input, and the tool on a whole job."""

import math
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.optim import build_optim_wrapper
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from mmslip import analysis
from mmslip.analysis import data
from mmslip.analysis.cost import Cost, LoaderSpeed, cut_batch
from mmslip.cli import doctor
from mmslip.datasets import (
    CaptionTable,
    CLIPTokenizer,
    ImageTextDataset,
    MixedDataset,
    StreamDataset,
    TableDataset,
    count_rows,
)
from mmslip.datasets.text.vocabulary import train_merges
from tests.datasets.test_shards import pack, pairs

ROOT = Path(__file__).parents[2]


def resize_in(**options: object) -> dict:
    views = dict(type='mmslip.SLIPViews', image=[dict(type='Resize', **options)], ssl_views=0)
    return dict(val_dataloader=dict(dataset=dict(pipeline=[views])))


def test_aspect() -> None:
    squashed = analysis.check_aspect(resize_in(scale=(224, 224)))
    assert squashed.verdict == 'warn'
    assert 'val_dataloader' in squashed.finding
    assert 'ResizeCenterCrop' in squashed.remedy
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


def test_batch_norm_of_the_backbone_is_not_the_head_s(make_slip: Callable) -> None:
    neck = dict(type='mmslip.MLPProjection', hid_channels=8, out_channels=8)
    ssl = dict(type='mmslip.SimCLR', head=dict(type='mmslip.SimCLRHead'))
    backbone = dict(type='ResNet', depth=18)
    for norm, verdict in (('LN', 'ok'), ('BN1d', 'fail')):
        part = dict(ssl, neck=dict(neck, with_last_bn=False, norm_cfg=dict(type=norm)))
        model = make_slip(backbone=backbone, ssl=part)
        assert analysis.check_batch_norm(model, 8, 1, True).verdict == verdict


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
        finding = analysis.check_official(Config(fault), gpus)
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


def test_missing_hooks() -> None:
    cfg = Config.fromfile(ROOT / 'configs' / 'slip' / 'slip_vit-tiny_emoji.py')
    assert analysis.check_hooks(cfg).verdict == 'ok'
    left_out = ('mmslip.ResumeDataHook', 'mmslip.ClampHook', 'mmslip.MonitorCheckHook')
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook.type not in left_out]
    finding = analysis.check_hooks(cfg)
    assert finding.verdict == 'warn'
    assert finding.finding == (
        'no mmslip.MonitorCheckHook: a wrong save_best ends the run at its first validation, '
        'unsaved\nno mmslip.ClampHook: the scale of the logits grows without bound\n'
        'no mmslip.ResumeDataHook: a resumed run replays data'
    )
    cfg.val_dataloader, cfg.model.head = None, None  # nothing to watch, nothing to clamp
    assert 'ResumeData' in analysis.check_hooks(cfg).finding
    assert 'Clamp' not in analysis.check_hooks(cfg).finding
    assert 'Monitor' not in analysis.check_hooks(cfg).finding
    bare = analysis.check_hooks(dict(model=dict(head=1), val_dataloader=1)).finding
    assert bare.count('no mmslip.') == 15
    # Every name is that of a hook of the default runtime.
    runtime = Config.fromfile(ROOT / 'configs' / '_base_' / 'default_runtime.py')
    runtime.update(model=dict(head=1), val_dataloader=1)
    assert analysis.check_hooks(runtime).verdict == 'ok'


def training(
    epochs: int = 10, batch: int = 64, schedulers: tuple[dict, ...] = (), **loop: int
) -> dict:
    loop = loop or dict(max_epochs=epochs)
    return dict(
        train_cfg=loop,
        train_dataloader=dict(batch_size=batch),
        param_scheduler=list(schedulers),
    )


@pytest.mark.parametrize(
    ('cfg', 'steps', 'samples', 'gpus', 'text', 'verdict'),
    [
        (training(), 50, 3200, 1, '50 steps an epoch, 500 in all (10 epochs)', 'ok'),
        (training(max_iters=7000), 50, 3200, 1, '50 steps an epoch, 7,000 in all', 'ok'),
        (training(), 9, 600, 1, '9 steps an epoch, 90 in all (10 epochs)', 'warn'),
        (training(1000), 2, 256, 2, '2,000 in all (1000 epochs); a step takes 50% of', 'warn'),
    ],
)
def test_length(cfg, steps, samples, gpus, text, verdict) -> None:
    finding = analysis.check_length(cfg, steps, samples, gpus)
    assert text in finding.finding
    assert finding.verdict == verdict


WARM = dict(type='mmslip.WarmupLR', start=1e-6, end=1, convert_to_iter_based=True)
COSINE = dict(type='CosineAnnealingLR', begin=1, convert_to_iter_based=True)


@pytest.mark.parametrize(
    ('cfg', 'text', 'verdict'),
    [
        (training(10, schedulers=[WARM, COSINE]), 'warm-up of 50 of 500 steps (10%)', 'ok'),
        (training(2, schedulers=[WARM, COSINE]), 'warm-up of 50 of 100 steps (50%)', 'warn'),
        (
            training(max_iters=400, schedulers=[dict(WARM, by_epoch=False, end=40)]),
            'warm-up of 40 of 400 steps (10%)',
            'ok',
        ),
        (training(schedulers=[COSINE]), 'no warm-up', 'ok'),
        (
            training(10, schedulers=[WARM, dict(COSINE, T_max=99)]),
            'the cosine ends at step 5,000 of 500',
            'warn',
        ),
        (
            training(10, schedulers=[dict(COSINE, begin=0, end=4)]),
            'the cosine ends at step 200 of 500',
            'warn',
        ),
        (training(10, schedulers=[dict(COSINE, T_max=9)]), 'no warm-up', 'ok'),
    ],
)
def test_schedule(cfg: dict, text: str, verdict: str) -> None:
    finding = analysis.check_schedule(cfg, 50)
    assert text in finding.finding
    assert finding.verdict == verdict


@pytest.mark.parametrize(
    ('rows', 'gpus', 'verdict'), [(8, 1, 'fail'), (16, 1, 'warn'), (16, 4, 'ok'), (64, 1, 'ok')]
)
def test_negatives(make_slip: Callable, rows: int, gpus: int, verdict: str) -> None:
    finding = analysis.check_negatives(make_slip(), rows, 64, gpus)
    assert finding.verdict == verdict
    assert f'{rows * gpus - 1} other captions and {64 * gpus - 1} other images' in finding.finding
    alone = make_slip(neck=None, text_backbone=None, text_neck=None, head=None)
    assert analysis.check_negatives(alone, 0, 64, 1).finding.endswith('from 63 other images')


def test_halves_and_data(make_slip: Callable, make_pairs: Callable) -> None:
    root = make_pairs(4)
    table = root / 'pairs.jsonl'
    lines = [line.replace('"caption"', '"none"') for line in table.read_text().splitlines()[:1]]
    table.write_text('\n'.join(lines + table.read_text().splitlines()[1:]))
    options = dict(data_prefix=dict(img_path='images'), pipeline=[], captions='optional')
    dataset = ImageTextDataset('pairs.jsonl', str(root), **options)
    both = dict(inputs=dict(image=1, views=1, text=1))
    language = dict(inputs=dict(image=1, text=1))
    slip, clip = make_slip(), make_slip(ssl=None)
    simclr = make_slip(neck=None, text_backbone=None, text_neck=None, head=None)
    for model, batch, verdict, text in (
        (slip, both, 'ok', '75% of the samples have a caption, views'),
        (slip, language, 'fail', 'the batch has no views'),
        (slip, dict(inputs=dict(views=1)), 'fail', 'the batch has no image, no text'),
        (clip, both, 'warn', 'views, which no self-supervised half sees; images without a caption'),
        (clip, language, 'warn', 'images without a caption (25%), which train nothing'),
        (simclr, both, 'warn', 'captions, which no text tower reads'),
        (simclr, dict(inputs=dict(views=1)), 'ok', 'views for the self-supervised half'),
    ):
        finding = analysis.check_halves(model, dataset, batch)
        assert (finding.verdict, text in finding.finding) == (verdict, True), finding


@pytest.mark.parametrize(
    ('backbone', 'size', 'grid', 'verdict'),
    [
        (dict(type='ResNet', depth=18), 96, '3 x 3', 'ok'),
        (dict(type='ResNet', depth=18), 32, '1 x 1', 'warn'),
    ],
)
@pytest.mark.parametrize('chunk_size', [None, 3])
def test_views_and_tower(make_slip: Callable, backbone, size, grid, verdict, chunk_size) -> None:
    model = make_slip(backbone=backbone, chunk_size=chunk_size)
    view, small = (torch.zeros(4, 3, side, side, dtype=torch.uint8) for side in (size, 32))
    batch = dict(inputs=dict(image=view, views=[small, small], text=torch.zeros(4, 16).long()))
    finding = analysis.check_views(model, batch)
    assert finding.verdict == verdict
    assert finding.finding.startswith(f'the image tower sees images of {size} x {size} as {grid}')
    assert 'views of 32 x 32 as 1 x 1 places' in finding.finding
    assert not any(module._forward_hooks for module in model.backbone.modules())


def test_repeated_images(make_pairs: Callable) -> None:
    root = make_pairs(20)
    options = dict(data_root=str(root), data_prefix=dict(img_path='images'), pipeline=[])
    once = ImageTextDataset('pairs.jsonl', **options)
    assert analysis.check_repeats(once, 8).finding == 'none of 20 rows repeats an image'
    # A wrapper that repeats the whole set has no row more.
    assert analysis.check_repeats(RepeatDataset(once, 3), 8).verdict == 'ok'
    both = ConcatDataset([once, ImageTextDataset('pairs.jsonl', **options)])
    finding = analysis.check_repeats(both, 20)
    assert finding.verdict == 'warn'
    expected = 1 - (1 - 1 / 39) ** 19
    assert finding.finding == (
        '20 of 40 rows show an image of another row again; in a batch of 20, '
        f'{expected:.1%} have their own image beside them'
    )
    assert finding.remedy.endswith('model.head.match_duplicates = True')
    assert analysis.check_repeats(both, 20, matched=True).verdict == 'ok'


def test_repeated_images_of_a_stream(tmp_path: Path) -> None:
    pytest.importorskip('webdataset', reason='webdataset is not installed')
    members = pairs(0, 1, 2)
    shard = pack(tmp_path / 'a.tar', [*members, ('9.jpg', members[-2][1]), ('9.txt', b'again')])
    stream = StreamDataset([shard], length=4, pipeline=[dict(type='mmslip.LoadImage')])
    finding = analysis.check_repeats(stream, 8, matched=True)
    assert finding.finding.startswith('1 of 4 rows show an image')
    assert finding.verdict == 'warn'  # of two names, by which nothing knows that they are one


def test_stored_sizes(make_pairs: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_pairs(6)
    for path in (root / 'images').iterdir():
        Image.effect_noise((640, 500), 60).convert('RGB').save(path, 'JPEG')
    pipeline = [dict(type='mmslip.LoadImage'), dict(type='Resize', scale=(32, 32))]
    options = dict(data_root=str(root), data_prefix=dict(img_path='images'), pipeline=pipeline)
    dataset = ImageTextDataset('pairs.jsonl', **options)
    finding = analysis.check_stored_sizes(dataset, 32)
    assert finding.verdict == 'warn'
    assert finding.finding.startswith('short side 500 px (median of 6), for views of 32; a sample')
    gain = float(re.search(r'([\d.]+) times the speed', finding.finding)[1])
    assert gain > 3  # 130 times fewer pixels to decode
    assert '--short-side 48' in finding.remedy
    assert analysis.check_stored_sizes(dataset, 400).verdict == 'ok'
    finding = analysis.check_stored_sizes(dataset, 1024)
    assert (finding.verdict, 'they are enlarged' in finding.finding) == ('warn', True)


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


def test_words(tmp_path: Path) -> None:
    clip, thai = CLIPTokenizer(), ['แมวนอนหลับบนโซฟา'] * 9
    finding = analysis.check_words(['a cat sits', 'two dogs'], clip)
    assert (finding.verdict, finding.finding) == ('ok', '1.0 tokens a word')
    finding = analysis.check_words(thai, clip)
    assert finding.verdict == 'warn'
    assert finding.finding == "4.8 tokens a word with CLIP's vocabulary, which was made for English"
    assert 'mmslip init' in finding.remedy
    train_merges(thai, tmp_path / 'own.gz', num_merges=2)
    own = CLIPTokenizer(merges_file=tmp_path / 'own.gz')
    assert analysis.check_words(thai, own).verdict == 'ok'
    assert analysis.check_words(['-'], clip).finding == '1.0 tokens a word'


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
    assert analysis.check_duplicates(['A cat', 'a  cat'], 2).finding.startswith('100.0%')


@pytest.mark.parametrize(
    ('head', 'augmented', 'verdict', 'remedy'),
    [
        ('CLIPHead', False, 'warn', 'more varied captions'),
        ('CLIPHead', True, 'warn', 'model.head.match_duplicates = True'),
        ('SigLIPHead', False, 'warn', 'model.head.match_duplicates = True'),
        ('MyHead', True, 'warn', 'more varied captions'),
    ],
)
def test_matches_where_they_count(head: str, augmented: bool, verdict: str, remedy: str) -> None:
    captions, head = ['a cat', 'a dog'] * 50, dict(type=f'mmslip.{head}')
    finding = analysis.check_duplicates(captions, 8, head, augmented)
    assert finding.verdict == verdict
    assert finding.remedy.startswith(remedy)
    head['match_duplicates'] = True
    finding = analysis.check_duplicates(captions, 8, head, augmented)
    assert (finding.verdict, finding.remedy) == ('ok', '')


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

    fetched = stream_of(tmp_path, 0)
    fetched.shards = ['pipe:cat a.tar', *fetched.shards]
    for source, workers, gpus, verdict in (
        (stream, 4, 64, 'ok'),
        (fetched, 8, 1, 'ok'),
        (fetched, 2, 8, 'warn'),
    ):
        finding = analysis.check_shards(DataLoader(source, num_workers=workers), gpus)
        assert finding.verdict == verdict
    assert finding.finding.endswith(
        'each read by 16 workers in every epoch; 1 are fetched anew each time'
    )


@pytest.mark.parametrize(
    ('size', 'gpus', 'drop', 'verdict'),
    [(4, 1, True, 'ok'), (4, 1, False, 'warn'), (5, 2, False, 'ok'), (6, 2, True, 'fail')],
)
def test_last_batch(size: int, gpus: int, drop: bool, verdict: str) -> None:
    loader = DataLoader(range(10), batch_size=size, drop_last=drop)
    assert analysis.check_last_batch(loader, gpus).verdict == verdict


def test_speed_and_memory() -> None:
    slow, fast = (LoaderSpeed(rate, 800, 8.0, 4) for rate in (40, 100))
    assert analysis.check_loader_speed(fast, 50, 'cpu').verdict == 'ok'
    finding = analysis.check_loader_speed(slow, 50, 'the cpu')
    assert 'num_workers' in finding.remedy
    assert finding.finding == (
        'the loader gives 40 samples/s (counted: 800 in 8 s, after 4 read ahead), the cpu takes 50'
    )
    alone = analysis.check_loader_speed(slow._replace(ahead=0), None, 'cpu')
    assert alone.finding.endswith('start of the workers included)')
    cost = Cost(10, int(4e9), int(5e9))
    verdicts = [analysis.check_memory(cost, int(space)).verdict for space in (8e9, 9.5e9, 2e10)]
    assert verdicts == ['fail', 'warn', 'ok']
    assert 'about 1:00:00 ' in analysis.check_time(200, 100, 360_000, shared=False).finding
    assert 'about 1:30:00 ' in analysis.check_time(200, 100, 360_000, shared=True).finding


class Slow(Dataset):
    """Takes 20 ms for a sample, without using the processor."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        time.sleep(0.02)
        return dict(inputs=dict(image=torch.zeros(3, 2, 2)))


@pytest.mark.parametrize(
    ('length', 'workers', 'rate'), [(16, 2, 100), (400, 2, 100), (16, 0, 50), (3, 2, 100)]
)
def test_what_lies_ready_is_not_counted(length: int, workers: int, rate: int) -> None:
    loader = DataLoader(Slow(length), batch_size=2, num_workers=workers)
    speed, batch = analysis.measure_loader(loader, seconds=0.6)
    assert speed.ahead == (2 * workers or 1)
    assert 0.2 * rate < speed.samples_per_s <= 1.05 * rate  # a busy machine is slower
    assert speed.samples_per_s == pytest.approx(speed.samples / speed.seconds)
    assert batch['inputs']['image'].shape[1:] == (3, 2, 2)


def test_a_loader_that_takes_too_long_is_counted_from_its_start() -> None:
    loader = DataLoader(Slow(400), batch_size=10, num_workers=2, prefetch_factor=20)
    speed, _ = analysis.measure_loader(loader, seconds=0.2)
    assert speed.ahead == 0
    assert speed.samples_per_s <= 105
    empty = DataLoader(Slow(3), batch_size=4, drop_last=True)
    with pytest.raises(ValueError, match='gives no batch'):
        analysis.measure_loader(empty, seconds=0.2)


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
    # In slices of 4, the other 12 samples have only the bytes of their three views in memory.
    sliced = make_slip(chunk_size=4)
    wrapper = build_optim_wrapper(sliced, dict(optimizer=dict(type='AdamW', lr=1e-3)))
    cost = analysis.measure_training(sliced, wrapper, batch, chunk_size=4)
    assert cost.step == pytest.approx(whole.step / 4 + 12 * 3 * view[0].numel(), rel=0.3)
    assert cost.static == pytest.approx(whole.static, rel=0.01)


def shipped(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / 'slip' / f'{name}.py')


def test_exports() -> None:
    finding = analysis.check_exports(shipped('slip_vit-b16_yfcc15m'))
    assert finding.verdict == 'ok'
    every = 'mmslip, open_clip, hugging_face, timm, mmpretrain'
    assert finding.finding == f'can be converted for {every}'
    finding = analysis.check_exports(shipped('slip_vit-s16_yfcc15m'))
    assert finding.verdict == 'warn'
    assert 'not for open_clip: ' in finding.finding
    assert 'model.text_backbone.quick_gelu=False' in finding.finding
    finding = analysis.check_exports(shipped('slip_resnet50_yfcc15m'))
    assert finding.finding.startswith(f'cannot be converted\nnot for {every}: model.backbone is')
    assert 'ONNX' in finding.remedy
    # An image tower alone is no fault.
    simclr = Config.fromfile(ROOT / 'configs' / 'simclr' / 'simclr_vit-b16_yfcc15m.py')
    finding = analysis.check_exports(simclr)
    assert finding.finding == 'can be converted for mmslip, timm, mmpretrain'


def test_the_tool_on_captions_without_a_self_supervised_half(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Training refuses it before its first step, so doctor has to say it as well."""
    cfg = shipped('slip_tiny_emoji_few-captions')
    cfg.model.ssl = None
    cfg.train_dataloader.num_workers = 0
    cfg.dump(tmp_path / 'config.py')
    monkeypatch.setenv('COLUMNS', '200')
    for slow in ('check_data', 'check_cost'):
        monkeypatch.setattr(doctor, slow, lambda *args: None)
    with pytest.raises(SystemExit) as ended:
        doctor.main([str(tmp_path / 'config.py'), '--samples', '8'])
    assert ended.value.code
    shown = capsys.readouterr().out
    assert re.search(r'fail  batches +datasets\[1\] .* no captions, and the model has no', shown)


def test_the_tool_on_a_job(dataset, make_slip, monkeypatch, tmp_path, capsys) -> None:
    cfg = Config.fromfile(ROOT / 'configs' / 'slip' / 'slip_vit-tiny_emoji.py')
    cfg.train_dataloader.dataset.indices = 64
    cfg.train_dataloader.update(batch_size=32, num_workers=0, drop_last=False)
    path = tmp_path / 'config.py'
    cfg.dump(path)
    command = [str(path), '--samples', '40', '--seconds', '1']
    monkeypatch.setenv('COLUMNS', '200')
    with pytest.raises(SystemExit) as ended:
        doctor.main(command)
    assert not ended.value.code
    shown = capsys.readouterr().out
    for text in ('0 of 40 samples cannot be read', 'statistics over 32', 'samples/s', ' GB of '):
        assert text in shown

    # The list goes on where a check raises, and where a setting cannot be meant.
    monkeypatch.setattr(analysis, 'check_aspect', lambda cfg: 1 / 0)
    monkeypatch.setattr(analysis, 'measure_training', lambda *args, **options: 1 / 0)
    with pytest.raises(SystemExit) as ended:
        doctor.main([*command, '--cfg-options', 'train_cfg.val_intervall=2'])
    assert ended.value.code
    shown = capsys.readouterr().out
    for text in (
        'train_cfg.val_intervall: ',
        'check aspect ratio failed: ZeroDivisionError: division by zero',
        'training step         ZeroDivisionError',
        'hooks                 none of the usual',
    ):
        assert text in shown

    changes = ['train_dataloader.batch_size=8', 'train_dataloader.dataset.split=nothing']
    with pytest.raises(SystemExit) as ended:
        doctor.main([*command, '--cfg-options', *changes])
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
    command = [str(path), '--samples', '30', '--seconds', '0.2']
    monkeypatch.setenv('COLUMNS', '200')
    with pytest.raises(SystemExit) as ended:
        doctor.main(command)
    assert not ended.value.code
    shown = capsys.readouterr().out
    for text in ('0 of 30 samples', '2 shards, each read by', 'samples/s', ' GB of '):
        assert text in shown
    # Eight captions, of which a batch of 16 has each about twice.
    assert re.search(r'[78]\d\.\d% of the samples of a batch of 16 share', shown)

    (tmp_path / '1.tar').unlink()
    with pytest.raises(SystemExit):
        doctor.main(command)
    assert 'There is no shard' in capsys.readouterr().out


def test_a_part_of_a_batch_keeps_its_share_of_captions() -> None:
    inputs = dict(image=torch.zeros(16, 3), text=torch.zeros(16, 4), views=[torch.zeros(128, 3)])
    part = cut_batch(dict(inputs=inputs), 32)
    assert count_rows(part['inputs']) == (4, 32)
    assert len(part['inputs']['image']) == 4
    assert count_rows(cut_batch(dict(inputs=inputs), 4)['inputs']) == (1, 4)
