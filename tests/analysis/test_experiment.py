"""A look at data, sizes that fit it and the machine, and the file that is written."""

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load_file

from mmslip.analysis.config_check import check_config
from mmslip.analysis.experiment import survey as module
from mmslip.analysis.experiment.machine import Machine
from mmslip.analysis.experiment.plan import ARCHITECTURES, SSL, make_plan
from mmslip.analysis.experiment.start import read_start
from mmslip.analysis.experiment.survey import Survey, survey
from mmslip.analysis.experiment.write import render
from mmslip.datasets import FolderDataset, ImageTextDataset, ParquetDataset, ShardDataset
from mmslip.registry import MODELS
from mmslip.utils.config import image_size_of, load_config
from mmslip.weights import Preprocessing

CPU = Machine(cores=2, memory=16 * 2**30)
H100 = Machine(16, 128 * 2**30, 'NVIDIA H100', 80 * 2**30, bf16=True)
SMALL_GPU = Machine(4, 16 * 2**30, 'NVIDIA T4', 15 * 2**30)


def data(rows: int, side: int = 400, bare: int = 0, tokens: int = 12) -> Survey:
    """What a look at ``rows`` images of one size would find."""
    held_out = min(1000, rows // 10)
    return Survey(
        rows=rows,
        captions=rows - bare,
        bare=list(range(held_out, held_out + bare)),
        held_out=list(range(held_out)),
        looked=9,
        sides=[side] * 9,
        tokens=[tokens] * 9,
    )


def dataset_of(root: Path, **kwargs: object) -> ImageTextDataset:
    prefix = dict(img_path=str(root / 'images'))
    table = str(root / 'pairs.jsonl')
    return ImageTextDataset(table, data_prefix=prefix, captions='optional', **kwargs)


def rewrite(root: Path, change: Callable[[int, dict], dict]) -> None:
    """Change the rows of a table."""
    path = root / 'pairs.jsonl'
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [json.dumps(change(number, row)) + '\n' for number, row in enumerate(rows)]
    path.write_text(''.join(lines))


def test_survey(make_pairs: Callable[..., Path]) -> None:
    root = make_pairs(60, captions=2)
    images = root / 'images'
    shutil.copy(images / '00.png', images / '01.png')
    (images / '02.png').unlink()
    (images / '03.png').write_bytes(b'no image')

    def change(number: int, row: dict) -> dict:
        if number in (4, 5):
            row['caption'] = None
        if number in range(10, 20):
            row['caption'] = ['the same', row['caption'][0]]
        return row

    rewrite(root, change)
    found = survey(dataset_of(root))
    assert (found.rows, found.captions, found.bare) == (60, 116, [4, 5])
    assert found.missing == [str(images / '02.png')]
    assert len(found.unreadable) == 1
    assert '03.png (its format is unknown)' in found.unreadable[0]
    assert sorted(found.left_out) == sorted(found.broken) == [2, 3]
    assert found.copies == 1
    assert found.formats == {'PNG': 58}
    sides = [
        min(cv2.imread(str(path)).shape[:2]) for path in images.glob('*.png') if path.stem != '03'
    ]
    assert found.sides == sorted(sides)
    assert found.distinct == 116 - 9
    assert found.repeated == 10 / 116
    assert found.scripts == dict(Latin=1.0)
    assert found.tokens[0] >= 2
    held_out = set(found.held_out)
    assert len(held_out) == 14  # a quarter of those that can be: 56 less the copies
    assert not held_out & {0, 1, 2, 3, 4, 5}
    assert len(held_out & set(range(10, 20))) <= 1  # no two share a caption
    assert found.train == 60 - 2 - 2 - 14
    assert survey(dataset_of(root)).held_out == found.held_out

    kept = found.drop_broken()
    assert kept == [0, 1, *range(4, 60)]
    assert found.bare == [2, 3]
    assert {kept[row] for row in found.held_out} == held_out
    assert found.left_out == []


def test_data_that_grows_keeps_what_is_held_out(make_pairs: Callable[..., Path]) -> None:
    root = make_pairs(200, captions=1)
    table = root / 'pairs.jsonl'
    lines = table.read_text().splitlines(keepends=True)

    def held_out(kept: list[str]) -> set[str]:
        table.write_text(''.join(kept))
        dataset = dataset_of(root)
        rows = survey(dataset).held_out
        return {Path(dataset.get_data_info(row)['img_path']).name for row in rows}

    before = held_out(lines[20:])
    after = held_out(lines)  # twenty more, in front of the others
    new = {json.loads(line)['image'] for line in lines[:20]}
    assert (len(before), len(after)) == (18, 20)
    assert len(before - after) <= 2
    assert len(after - before - new) <= 2


def test_what_is_left_out_trains_no_half(make_pairs: Callable[..., Path]) -> None:
    """An image without a caption is bare only where it can be read and is no one's test image."""
    root = make_pairs(40)
    (root / 'images' / '30.png').unlink()
    (root / 'images' / '31.png').write_bytes(b'no image')

    def change(number: int, row: dict) -> dict:
        return dict(row, caption=row['caption'] if number < 24 else None)

    rewrite(root, change)
    found = survey(dataset_of(root))
    assert found.bare == [row for row in range(24, 40) if row not in (30, 31)]
    assert sorted(found.left_out) == [30, 31]
    parts = dict.fromkeys((2, 3, *range(8, 16), 25), 'val') | dict.fromkeys((4, 26), 'test')
    rewrite(root, lambda number, row: dict(row, split=parts.get(number, 'train')))
    found = survey(dataset_of(root))
    assert found.held_out == [2, 3, *range(8, 16)]
    assert found.bare == [24, *(row for row in range(27, 40) if row not in (30, 31))]
    assert sorted(found.left_out) == [4, 25, 26, 30, 31]


@pytest.mark.parametrize('kind', ['folder', 'shards', 'parquet'])
def test_rows_that_cannot_be_read(make_pairs: Callable[..., Path], kind: str) -> None:
    """They are left out with their reason, and the others are looked at."""
    images = make_pairs(30) / 'images'
    for number in range(30):
        text = b'' if number == 5 else f'caption {number}'.encode()
        (images / f'{number:02d}.txt').write_bytes(b'gr\xf6n' if number == 3 else text)
    if kind == 'folder':
        dataset, reason = FolderDataset(str(images), captions='optional'), '03.txt is not UTF-8'
    elif kind == 'shards':
        (images / '29.png').unlink()
        with tarfile.open(images / '0.tar', 'w') as archive:
            for path in sorted(images.glob('[0-9][0-9].*')):
                archive.add(path, path.name)
        dataset = ShardDataset(str(images / '0.tar'), captions='optional')
        reason = f'The .txt of {images}/0.tar:03 cannot be read as UTF-8'
    else:
        parquet, arrow = pytest.importorskip('pyarrow.parquet'), pytest.importorskip('pyarrow')
        rows = [(images / f'{number:02d}.png').read_bytes() for number in range(30)]
        rows[3] = None
        captions = [f'caption {number}' if number != 5 else '' for number in range(30)]
        table = arrow.table(dict(image=rows, caption=captions))
        parquet.write_table(table, images / '0.parquet')
        dataset = ParquetDataset(str(images / '0.parquet'), captions='optional')
        reason = "row 3 of group 0: 'image' holds None"
    found = survey(dataset)
    broken = [3, 29] if kind == 'shards' else [3]
    assert (found.bare, found.broken, sorted(found.left_out)) == ([5], broken, broken)
    assert len(found.faulty) == len(broken)
    assert reason in found.faulty[0]
    assert found.captions == 30 - 1 - len(broken)
    assert found.looked == len(found.sides) == 30 - len(broken)


def test_survey_of_many(make_pairs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large sets, copies are sought of what may be held out, and not counted."""
    root = make_pairs(60)
    for number in range(40):
        shutil.copy(root / 'images' / '59.png', root / 'images' / f'{number:02d}.png')
    for limit in ('_FEW', '_MANY'):
        monkeypatch.setattr(module, limit, 20)
        found = survey(dataset_of(root))
        assert found.copies is None
        assert 8 <= len(found.held_out) <= 15
        if limit == '_FEW':
            assert set(found.held_out) <= set(range(40, 59))


def test_survey_without_captions(make_pairs: Callable[..., Path]) -> None:
    found = survey(FolderDataset(str(make_pairs(5) / 'images')))
    assert (found.captions, found.held_out, found.bare, found.train) == (0, [], [], 5)


def test_survey_of_few_different_captions(make_pairs: Callable[..., Path]) -> None:
    root = make_pairs(60)
    rewrite(root, lambda number, row: dict(row, caption=f'class {number % 12}'))
    found = survey(dataset_of(root))
    assert len({row % 12 for row in found.held_out}) == len(found.held_out) == 12
    rewrite(root, lambda number, row: dict(row, caption=f'class {number % 3}'))
    assert survey(dataset_of(root)).held_out == []


def test_parts_that_the_table_names(make_pairs: Callable[..., Path]) -> None:
    root = make_pairs(40)
    shutil.copy(root / 'images' / '00.png', root / 'images' / '21.png')
    parts = ['train'] * 20 + ['val'] * 12 + ['test'] * 8
    rewrite(root, lambda number, row: dict(row, split=parts[number]))
    found = survey(dataset_of(root))
    assert found.official
    assert found.held_out == [20, *range(22, 32)]  # 21 is a picture of the training part
    assert sorted(found.left_out) == [21, *range(32, 40)]
    assert found.train == 20
    parts = ['train'] * 28 + ['restval'] * 4 + ['test'] * 8
    rewrite(root, lambda number, row: dict(row, split=parts[number]))
    found = survey(dataset_of(root))
    assert found.held_out == list(range(32, 40))
    assert found.train == 32 - 0


def test_scripts(make_pairs: Callable[..., Path]) -> None:
    root = make_pairs(4, captions=1)
    texts = ['два слова', '两只狗', 'ab', 'слово']
    rewrite(root, lambda number, row: dict(row, caption=texts[number]))
    found = survey(dataset_of(root))
    assert found.scripts == dict(Cyrillic=13 / 18, Han=3 / 18, Latin=2 / 18)


@pytest.mark.parametrize(
    ('found', 'machine', 'expected'),
    [
        (data(800), CPU, dict(arch='tiny', image_size=64, batch=128, epochs=200, workers=1)),
        (data(60_000, 32), CPU, dict(arch='tiny', image_size=32, batch=128, epochs=5, stages=2)),
        (data(5000), H100, dict(arch='tiny', image_size=96, batch=1024, bf16=True, workers=14)),
        (data(118_000), H100, dict(arch='small', image_size=224, batch=256, chunk=None, epochs=44)),
        (data(15_000_000), H100, dict(arch='base', batch=256, chunk=128, epochs=25, warmup=1)),
        (data(118_000), SMALL_GPU, dict(arch='small', batch=256, chunk=32, bf16=False)),
        (data(15_000_000), SMALL_GPU, dict(arch='base', batch=256, chunk=16)),
        (data(100, 30), CPU, dict(image_size=24, batch=32, metric='retrieval/held_out_t2i_r5')),
        (data(9000, tokens=100), CPU, dict(context=128, metric='retrieval/held_out_t2i_r1')),
        (data(2000, bare=1500), CPU, dict(mix=(1, 7), length=1800, batch=128, steps=14)),
        (data(2000, bare=800), CPU, dict(mix=(1, 1), length=1800, batch=128)),
        (data(2000, bare=200), CPU, dict(mix=(7, 1), length=1800)),
        (data(2000, bare=50), CPU, dict(mix=None, length=1750)),
        (data(40_000, bare=38_940), H100, dict(mix=(1, 7), batch=256)),  # 60 have one
    ],
)
def test_sizes_fit_data_and_machine(found: Survey, machine: Machine, expected: dict) -> None:
    plan = make_plan(found, machine)
    assert {name: getattr(plan, name) for name in expected} == expected


def test_batch_norm_takes_no_slices() -> None:
    plan = make_plan(data(118_000), SMALL_GPU, 'resnet50')
    assert (plan.batch, plan.chunk) == (32, None)


def test_too_little_to_learn_from() -> None:
    with pytest.raises(ValueError, match=r'^18 captioned images are left to train on, and 32'):
        make_plan(data(20), CPU)
    with pytest.raises(ValueError, match=r'No image has a caption, .* leave out --ssl none'):
        make_plan(data(200, bare=200), CPU, ssl='none')
    with pytest.raises(ValueError, match=r'None of the 9 images .* can be read: a.jpg'):
        make_plan(Survey(rows=9, looked=9, unreadable=['a.jpg (cut)']), CPU)
    with pytest.raises(ValueError, match='--arch small: the weights say what they are'):
        make_plan(data(200), CPU, 'small', start=read_start('slip_tiny_emoji'))


PAIRS = dict(type='mmslip.ImageTextDataset', ann_file='/d/p.csv', data_prefix=dict(img_path='/d'))
CASES = [
    *((data(4000), H100, arch, 'simclr') for arch in ARCHITECTURES),
    *((data(4000), CPU, 'tiny', ssl) for ssl in SSL),
    (data(4000), CPU, 'resnet50', 'mocov3'),
    (data(4000, bare=3000, tokens=100), SMALL_GPU, 'tiny', 'barlowtwins'),
    (data(4000, bare=3000), H100, 'large', 'mocov3'),
    (data(4000, bare=4000), CPU, None, 'byol'),
    (data(4000, tokens=100), CPU, 'small', 'none'),
]  # fmt: skip


@pytest.mark.parametrize(('found', 'machine', 'arch', 'ssl'), CASES)
def test_the_file_is_short_and_right(
    tmp_path: Path, found: Survey, machine: Machine, arch: str | None, ssl: str
) -> None:
    found.captions = 0 if len(found.bare) == found.rows else found.captions
    if not found.captions:
        found.bare = found.held_out = []
    plan = make_plan(found, machine, arch, ssl)
    path = tmp_path / 'own.py'
    split = tmp_path / 'own_split.json' if found.held_out else None
    text = render(path, dict(PAIRS, captions='optional'), found, plan, machine, split)
    assert len(text.splitlines()) <= 60
    path.write_text(text)
    cfg = load_config(path)
    assert check_config(cfg, ['model', 'train_dataloader']) == []
    assert image_size_of(cfg) == plan.image_size
    assert set(cfg) <= set(Config.fromfile(path)) | {'image_size'}
    assert not {'pairs', 'images', 'split', 'load', 'pack', 'views', 'text'} & set(cfg)
    with torch.device('cpu' if plan.arch == 'resnet50' else 'meta'):
        model = MODELS.build(dict(cfg.model, init_cfg=None))
    assert model.with_text is plan.language
    assert (model.ssl is None) is (ssl == 'none')


def test_paths_below_the_file_are_relative_to_it(tmp_path: Path) -> None:
    found = data(400)
    plan = make_plan(found, CPU)
    for folder, relative in ((tmp_path, True), (tmp_path / 'it"s {1}', False)):
        folder.mkdir(exist_ok=True)
        config = dict(PAIRS, ann_file=str(folder / "it's" / 'p.csv'))
        path = folder / 'own.py'
        path.write_text(render(path, config, found, plan, CPU, folder / 'own_split.json'))
        assert (str(folder) in path.read_text()) is not relative
        dataset = load_config(path).train_dataloader.dataset
        assert dataset.ann_file == str(folder / "it's" / 'p.csv')
        assert dataset.data_prefix == dict(img_path='/d')
        assert dataset.subset == dict(split=str(folder / 'own_split.json'), part='train')


def test_start_from_weights(tmp_path: Path) -> None:
    start = read_start('slip_tiny_emoji')
    assert (start.arch, start.image_size) == ('tiny', 32)
    assert Path(start.weights).is_file()
    found = data(400)
    plan = make_plan(found, CPU, ssl='none', start=start)
    assert (plan.lr, plan.epochs, plan.layer_decay) == (1e-4, 30, 0.75)
    assert make_plan(found, CPU, start=start).ssl_lr == 5
    path = tmp_path / 'own.py'
    text = render(path, PAIRS, found, plan, CPU, tmp_path / 's.json', start)
    assert len(text.splitlines()) <= 70
    path.write_text(text)
    cfg = load_config(path)
    shipped = load_config(Path(__file__).parents[2] / 'configs' / 'slip' / 'slip_tiny_emoji.py')
    assert cfg.load_from == start.weights
    for name in ('backbone', 'neck', 'text_backbone', 'text_neck', 'head'):
        assert cfg.model[name] == shipped.model[name]
    assert list(cfg.model.data_preprocessor.mean) == [255, 255, 255]
    assert 'image_augment' not in cfg.model.data_preprocessor
    tokenizer = cfg.train_dataloader.dataset.pipeline[2].tokenizer
    assert tokenizer == shipped.train_dataloader.dataset.pipeline[1].tokenizer
    _, *resize, texts, _ = cfg.val_dataloader.dataset.pipeline
    assert texts.tokenizer == tokenizer
    drawn = shipped.val_dataloader.dataset.datasets[0].pipeline
    assert Preprocessing.from_config(dict(test_pipeline=resize)) == Preprocessing.from_config(
        dict(test_pipeline=drawn)
    )
    # A checkpoint beside the config of its run.
    weights = load_file(start.weights)
    torch.save(dict(state_dict=weights), tmp_path / 'epoch_3.pth')
    again = read_start(str(tmp_path / 'epoch_3.pth'))
    assert again.model.keys() == start.model.keys()
    assert again.tokenizer == start.tokenizer
    with pytest.raises(FileNotFoundError, match=r'no weights nowhere: .*slip_tiny_emoji'):
        read_start('nowhere')
