"""Tests of packing a folder: content, equal bytes, interrupted runs, and what errors say."""

import hashlib
import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mmslip.datasets import ShardDataset, shard_writer

SCRIPT = Path(__file__).parents[2] / 'tools' / 'dataset_converters' / 'folder_to_shards.py'
TOOL = runpy.run_path(str(SCRIPT))


def run(*arguments: object) -> None:
    TOOL['main']([str(argument) for argument in arguments])


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


@pytest.fixture
def images(make_pairs: Callable[..., Path]) -> Path:
    """Seven pictures in two folders, each with a text beside it."""
    root = make_pairs(7) / 'images'
    (root / 'sub').mkdir()
    for number in range(7):
        path = root / f'{number:02d}.png'
        if number > 4:
            path = shutil.move(path, root / 'sub' / f'{number:02d}.PNG')
        Path(path).with_suffix('.txt').write_text(f' picture {number} ü\n', encoding='utf-8')
    (root / 'notes.md').write_text('no image')
    return root


def test_texts_beside_images(images: Path, capsys: pytest.CaptureFixture) -> None:
    out = images.parent / 'shards'
    run(images, out, '--samples-per-shard', 3)
    assert '7 samples in 3 shards' in capsys.readouterr().out
    assert list(digests(out)) == ['00000.tar', '00001.tar', '00002.tar']
    dataset = ShardDataset('*.tar', data_root=str(out))
    sources = sorted(path for path in images.rglob('*') if path.suffix in ('.png', '.PNG'))
    for number, path in enumerate(sources):
        info = dataset.get_data_info(number)
        assert info['img_bytes'] == path.read_bytes()
        assert info['text'] == [f'picture {path.stem.lstrip("0") or 0} ü']
        assert info['img_name'] == f'{out}/{number // 3:05d}.tar:{number:09d}'
    other = images.parent / 'again'
    run(images, other, '--samples-per-shard', 3)
    assert digests(other) == digests(out)


@pytest.mark.parametrize('kind', ['jsonl', 'csv', 'tsv'])
def test_tables(make_pairs: Callable[..., Path], kind: str) -> None:
    root = make_pairs(4, captions=2)
    table = root / f'table.{kind}'
    captions = [[f'text {number}', 'größer'][: 1 + number % 2] for number in range(4)]
    if kind == 'jsonl':
        rows = [dict(file=f'{i:02d}.png', words=captions[i]) for i in range(4)]
        table.write_text('\n'.join(map(json.dumps, rows)))
        keys = ['words']
    else:
        tab = dict(csv=',', tsv='\t')[kind]
        rows = [[f'{i:02d}.png', captions[i][0], ''.join(captions[i][1:])] for i in range(4)]
        table.write_text('\n'.join(map(tab.join, [['file', 'one', 'two'], *rows])))
        keys = ['one', 'two']
    out = root / 'shards'
    run(root / 'images', out, '--captions', table, '--image-key', 'file', '--caption-keys', *keys)
    dataset = ShardDataset('00000.tar', data_root=str(out))
    assert len(dataset) == 4
    for number in range(4):
        info = dataset.get_data_info(number)
        assert info['img_bytes'] == (root / 'images' / f'{number:02d}.png').read_bytes()
        assert info['text'] == captions[number]


def test_interrupted_run_goes_on(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, out = images.parent / 'whole', images.parent / 'shards'
    run(images, whole, '--samples-per-shard', 2)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    replace = shard_writer.os.replace
    monkeypatch.setattr(shard_writer.os, 'replace', interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(images, out, '--samples-per-shard', 2)
    assert list(digests(out)) == ['00000.tar.partial']
    monkeypatch.setattr(shard_writer.os, 'replace', replace)
    shutil.copy2(whole / '00001.tar', out)
    kept = (out / '00001.tar').stat().st_ino
    run(images, out, '--samples-per-shard', 2)
    assert digests(out) == digests(whole)
    assert (out / '00001.tar').stat().st_ino == kept


def refusal(*arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    return str(caught.value)


def test_shards_of_another_run(images: Path) -> None:
    out = images.parent / 'shards'
    run(images, out, '--samples-per-shard', 4)
    assert '00000.tar is there already, with other content' in refusal(
        images, out, '--samples-per-shard', 5
    )
    assert '00001.tar is none of the 1 shards of this run' in refusal(images, out)
    before = digests(out)
    (images / '03.txt').write_text('longer caption than before')
    assert '00000.tar is there already' in refusal(images, out, '--samples-per-shard', 4)
    assert digests(out) == before
    run(images, images.parent / 'other')
    shard = images.parent / 'other' / '00000.tar'
    shard.write_bytes(shard.read_bytes()[:3000])
    assert '00000.tar is there already' in refusal(images, images.parent / 'other')


def test_bad_input(images: Path) -> None:
    out = images.parent / 'shards'
    (images / '02.txt').unlink()
    message = refusal(images, out)
    assert f'1 of 7 images have no caption beside them; there is no {images}/02.txt' in message
    (images / '02.txt').write_text(' \n')
    assert refusal(images, out).startswith(f'{images}/02.txt is empty: fill it in')
    (images / '02.txt').write_bytes(b'\xff')
    assert refusal(images, out).startswith(f'{images}/02.txt is not UTF-8')
    (images / '02.txt').write_text('x')
    (images / '02.png').write_bytes(b'')
    assert refusal(images, out).startswith(f'{images}/02.png (pair 2) is missing or empty')
    assert not list(out.glob('*.tar'))
    assert 'holds no image' in refusal(out, out)

    table = images.parent / 'table.csv'
    table.write_text('image,caption\n00.png,x\nnone.png,y\n')
    assert 'none.png (pair 1) is missing' in refusal(images, out, '--captions', table)
    table.write_text('image,caption\n00.pdf,x\n')
    assert '00.pdf (pair 0) must end in .jpg' in refusal(images, out, '--captions', table)
    table.write_text('file,caption\n00.png,x\n')
    assert "has no column 'image'" in refusal(images, out, '--captions', table)
    assert refusal(images, out, '--samples-per-shard', 0) == '2'
