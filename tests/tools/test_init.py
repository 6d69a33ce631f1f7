"""``mmslip init`` as its user types it: what is written, what is said, and that it trains."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mmslip.analysis.config_check import check_config
from mmslip.analysis.experiment import vocabulary
from mmslip.cli import init, train
from mmslip.datasets import ShardDataset
from mmslip.datasets.io.decode import decode_image
from mmslip.registry import TOKENIZERS
from mmslip.utils.config import load_config


@pytest.fixture
def root(make_pairs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, in which the commands are typed, beside the data."""
    root = make_pairs(80)
    (root / 'here').mkdir()
    monkeypatch.chdir(root / 'here')
    return root


def run(*arguments: object) -> None:
    init.main([str(argument) for argument in arguments])


def refusal(*arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    return str(caught.value)


def test_from_pairs_to_a_checkpoint(root: Path, capsys: pytest.CaptureFixture) -> None:
    run('own', '--data', root / 'pairs.jsonl')
    said = capsys.readouterr().out
    assert 'data      80 images, 160 captions\n' in said
    assert 'own.py: SLIP on 80 images with 160 captions\n' in said
    assert said.endswith('Next:\n  mmslip doctor own.py\n  mmslip train own.py\n')
    cfg = load_config('own.py')
    assert cfg.train_dataloader.batch_size == 32
    assert cfg.default_hooks.checkpoint.save_best == 'retrieval/held_out_t2i_r5'
    split = json.loads(Path('own_split.json').read_text())
    assert (split['rows'], len(split['held_out']), split['left_out']) == (80, 16, [])
    quick = [
        *('train_cfg.max_epochs=2', 'train_cfg.val_interval=2', 'train_dataloader.num_workers=0'),
        *('param_scheduler.0.end=1', 'param_scheduler.1.begin=1', 'image_size=16'),
        *('val_dataloader.num_workers=0', 'train_dataloader.dataset.pipeline.1.ssl_size=8'),
    ]
    train.main(['own.py', '--work-dir', 'run', '--cfg-options', *quick])
    assert list(Path('run').glob('best_retrieval_held_out_t2i_r5_epoch_2.pth'))
    lines = [json.loads(line) for line in Path('run', 'results.jsonl').read_text().splitlines()]
    assert {line['samples'] for line in lines} == {16}


def test_nothing_is_overwritten(root: Path) -> None:
    Path('own.py').write_text('mine')
    assert 'own.py is there already: choose another name, or say --force' in refusal(
        'own', '--data', root / 'pairs.jsonl'
    )
    assert Path('own.py').read_text() == 'mine'
    run('own.py', '--data', root / 'pairs.jsonl', '--force', '--ssl', 'none', '--arch', 'small')
    cfg = load_config('own.py')
    assert 'ssl' not in cfg.model
    assert cfg.model.backbone.arch == 'small'


def test_smaller_images(root: Path, capsys: pytest.CaptureFixture) -> None:
    (root / 'images' / '05.png').write_bytes(b'no image')
    run('own', '--data', root / 'pairs.jsonl', '--short-side', 32, '--image-size', 32)
    said = capsys.readouterr().out
    assert 'note      1 of 80 images cannot be read and are left out, such as ' in said
    assert '(short side 32 at most, JPEG quality 90)' in said
    data = load_config('own.py').train_dataloader.dataset
    assert data.shards == str(root / 'here' / 'own_shards' / '*.tar')
    parts = [
        ShardDataset(data.shards, subset=dict(data.subset, part=part))
        for part in ('train', 'held_out')
    ]
    assert [len(part) for part in parts] == [63, 16]
    for part in parts:
        info = part.get_data_info(0)
        assert min(decode_image(info['img_bytes'], 2**20).shape[:2]) == 32
        assert len(info['text']) == 2


def test_notes(root: Path, capsys: pytest.CaptureFixture) -> None:
    path = root / 'few.csv'
    rows = [f'{number:02d}.png;{"猫" * (number % 3)}' for number in range(80)]
    path.write_text('image;caption\n' + '\n'.join([*rows, 'gone.png;x']) + '\n')
    for name in ('80.PNG', '.81.png', '82.txt'):
        shutil.copy(root / 'images' / '00.png', root / 'images' / name)
    run('own', '--data', path)
    said = capsys.readouterr().out
    assert f'1 images lie beside those of the table and are not in it, such as {root}' in said
    assert 'images/80.PNG: a row without a caption makes one train' in said
    assert 'images are missing and left out, such as ' in said
    assert '27 images have no caption: they train the self-supervised half' in said
    assert 'belong to several images (3 are different)' in said
    assert "CLIP's vocabulary, made for English, needs " in said
    assert ' captions are too few to train another (1,000)' in said
    assert 'there is no validation' in said
    cfg = load_config('own.py')
    assert cfg.train_dataloader.dataset.type == 'mmslip.MixedDataset'
    assert 'val_dataloader' not in cfg
    run('clip', '--data', path, '--ssl', 'none')
    said = capsys.readouterr().out
    assert '27 images have no caption: they are left out' in said
    assert 'not in it' not in said
    assert load_config('clip.py').train_dataloader.dataset.type == 'mmslip.ImageTextDataset'


def test_vocabulary_of_the_captions(
    root: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, '_FEWEST', 100)
    rows = [
        dict(image=f'{number:02d}.png', caption=[f'รูปทรง {number} แบบที่ {way}' for way in range(9)])
        for number in range(80)
    ]
    table = root / 'thai.jsonl'
    table.write_text('\n'.join(map(json.dumps, rows)))
    run('own', '--data', table, '--images', root / 'images', '--arch', 'small')
    said = capsys.readouterr().out
    found = re.search(r'needs ([\d.]+) tokens .* (\d+) merges, trained on .* needs ([\d.]+)', said)
    assert float(found[3]) < 0.75 * float(found[1])
    cfg = load_config('own.py')
    merges = int(found[2])
    assert cfg.model.text_backbone.vocab_size == 514 + merges
    tokenizer = cfg.train_dataloader.dataset.pipeline[2].tokenizer
    assert tokenizer.merges_file == str(root / 'here' / 'own_merges.txt.gz')
    assert TOKENIZERS.build(tokenizer).vocab_size == 514 + merges
    assert cfg.val_dataloader.dataset.pipeline[2].tokenizer == tokenizer
    assert check_config(cfg, ['model', 'train_dataloader']) == []
    # Captions that CLIP's vocabulary suits, and weights that have their own, get none.
    run('english', '--data', root / 'pairs.jsonl')
    run('tuned', '--data', table, '--images', root / 'images', '--from', 'slip_tiny_emoji')
    assert 'vocabulary' not in capsys.readouterr().out
    assert [path.name for path in Path().glob('*_merges*')] == ['own_merges.txt.gz']
    # Nor do those that another vocabulary would cut as finely: each digit is a token.
    for row in rows:
        row['caption'] = [f'{row["image"][:2]}{way}' * 5 for way in range(9)]
    table.write_text('\n'.join(map(json.dumps, rows)))
    run('digits', '--data', table, '--images', root / 'images')
    assert 'one trained on the captions would need' in capsys.readouterr().out
    assert load_config('digits.py').model.text_backbone.vocab_size == 49408
    assert not Path('digits_merges.txt.gz').exists()


def test_what_cannot_be_meant(root: Path) -> None:
    table = root / 'pairs.jsonl'
    for arguments, message in (
        (['o w', '--data', table], "'o w' is no name for an experiment: use letters"),
        (['no/own', '--data', table], 'There is no folder no to write own.py to'),
        (['own', '--data', root / 'none'], 'There is no table, folder, shard or Parquet file'),
        (['own', '--data', table, '--image-size', 50], '--image-size 50: must be a multiple of 8'),
        (['own', '--data', table, '--short-side', 8], '--short-side 8: must be 16 at least'),
        (['own', '--data', table, '--image-size', 64, '--short-side', 32], 'must be 64 at least'),
        (['own', '--data', table, '--from', 'none.pth'], 'There are no weights none.pth'),
        (['own', '--data', root / 'images', '--ssl', 'none'], 'No image has a caption'),
    ):
        assert message in refusal(*arguments)
    assert not list(Path().iterdir())
