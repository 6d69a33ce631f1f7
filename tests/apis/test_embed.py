"""Embeddings in files: right, in order, complete after any interruption."""

import io
import json
import os
import signal
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from mmslip.apis import EmbeddingInferencer, embed
from mmslip.datasets import CaptionTable
from mmslip.models import SLIP
from tests.apis.conftest import draw_images, reference_feat


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw_images(tmp_path / 'images', range(7))


def read(out: Path) -> tuple[list[str], np.ndarray]:
    """Names and embeddings of all parts, of either format."""
    names, feats = [], []
    for path in sorted(out.glob('part-*.npy')):
        names += [json.loads(row)['image'] for row in path.with_suffix('.jsonl').open()]
        feats.append(np.load(path))
    for path in sorted(out.glob('part-*.parquet')):
        parquet = pytest.importorskip('pyarrow.parquet')
        table = parquet.read_table(path)
        names += table['image'].to_pylist()
        flat = table['embedding'].combine_chunks().flatten().to_numpy()
        feats.append(flat.reshape(len(table), 16))
    return names, np.concatenate(feats)


def check(model: SLIP, paths: list[Path], names: list[str], feats: np.ndarray) -> None:
    assert feats.dtype == np.float32
    assert len(names) == len(feats) == len(paths)
    for path, feat in zip(paths, feats, strict=True):
        np.testing.assert_allclose(feat, reference_feat(model, path), atol=2e-5)


@pytest.mark.parametrize('file_format', ['npy', 'parquet'])
def test_embeddings_equal_the_definition(model, folder, tmp_path, file_format) -> None:
    if file_format == 'parquet':
        pytest.importorskip('pyarrow', reason='pyarrow is not installed')
    (folder / '02.png').write_bytes(b'no image')
    (folder / '03.png').write_bytes(b'')
    done = EmbeddingInferencer(model)(
        folder, tmp_path / 'out', file_format, block_size=2, batch_size=3, num_workers=1
    )
    assert done == dict(images=5, bad=2, parts=4)  # the second part has no image
    names, feats = read(tmp_path / 'out')
    paths = [folder / f'0{number}.png' for number in (0, 1, 4, 5, 6)]
    assert names == list(map(str, paths))
    check(model, paths, names, feats)
    bad = [json.loads(line) for line in (tmp_path / 'out' / 'bad_images.jsonl').open()]
    assert [(Path(line['image']).name, line['part']) for line in bad] == [
        ('02.png', 1),
        ('03.png', 1),
    ]
    assert all('not an image' in line['error'] for line in bad)


def shard(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, 'w') as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_shards_with_captions_or_without(model, folder, tmp_path) -> None:
    paths = sorted(folder.iterdir())
    images = [path.read_bytes() for path in paths]
    shard(tmp_path / 's0.tar', {'a.png': images[0], 'a.txt': b'cat', 'b.png': images[1]})
    shard(tmp_path / 's1.tar', {'c.json': b'{}', 'd.png': images[2]})
    done = EmbeddingInferencer(model)(str(tmp_path / 's{0..1}.tar'), tmp_path / 'out', 'npy')
    assert done == dict(images=3, bad=1, parts=1)
    names, feats = read(tmp_path / 'out')
    assert names == [f'{tmp_path}/{name}' for name in ('s0.tar:a', 's0.tar:b', 's1.tar:d')]
    check(model, paths[:3], names, feats)
    (bad,) = map(json.loads, (tmp_path / 'out' / 'bad_images.jsonl').open())
    assert 's1.tar:c has json but no image' in bad['error']


def test_tables(model, folder, tmp_path) -> None:
    paths = [folder / '03.png', folder / '01.png']
    rows = [dict(image=path.name, caption='größe') for path in paths]
    (tmp_path / 't.jsonl').write_text('\n'.join(map(json.dumps, rows)), encoding='utf-8')
    CaptionTable.write(tmp_path / 't.table', [(row['image'], ['größe']) for row in rows])
    listed = [dict(type='mmslip.ImageTextDataset', ann_file=str(tmp_path / 't.jsonl'),
                   data_prefix=dict(img_path=str(folder))), paths]  # fmt: skip
    for number, source in enumerate([tmp_path / 't.jsonl', str(tmp_path / 't.table'), *listed]):
        out = tmp_path / f'out{number}'
        EmbeddingInferencer(model)(source, out, 'npy', image_root=folder)
        names, feats = read(out)
        assert [Path(name).name for name in names] == ['03.png', '01.png']
        check(model, paths, names, feats)


def test_columns_and_folders_are_found_as_init_finds_them(model, folder, tmp_path) -> None:
    table = tmp_path / 't.csv'
    table.write_text('id;Bild;Text\n1;03.png;x\n2;01.png;y\n')
    embed_images = EmbeddingInferencer(model)
    with pytest.raises(ValueError, match=r"columns 'id', 'Bild', 'Text': say by --image-key"):
        embed_images(table, tmp_path / 'out', 'npy')
    embed_images(table, tmp_path / 'out', 'npy', image_key='Bild')
    table.write_text('File_Name;Text\n03.png;x\n01.png;y\n')
    embed_images(table, tmp_path / 'usual', 'npy')
    for out in ('out', 'usual'):
        names, feats = read(tmp_path / out)
        assert names == [f'{folder}/03.png', f'{folder}/01.png']
        check(model, [folder / '03.png', folder / '01.png'], names, feats)
    table.write_text('image;caption\ngone.png;x\n')
    with pytest.raises(FileNotFoundError, match=r'None of the first 1 images .*by --images'):
        embed_images(table, tmp_path / 'gone', 'npy')


def test_parquet_of_any_column(model, folder, tmp_path) -> None:
    arrow, parquet = pytest.importorskip('pyarrow'), pytest.importorskip('pyarrow.parquet')
    content = [(folder / name).read_bytes() for name in ('03.png', '01.png')]
    path = tmp_path / 'p.parquet'
    parquet.write_table(arrow.table(dict(photo=content, thumb=content)), path)
    embed_images = EmbeddingInferencer(model)
    with pytest.raises(ValueError, match=r"columns 'photo', 'thumb': say by --image-key"):
        embed_images(path, tmp_path / 'out', 'npy')
    embed_images(path, tmp_path / 'out', 'npy', image_key='photo')
    names, feats = read(tmp_path / 'out')
    assert names == [f'{path}:0:0', f'{path}:0:1']
    check(model, [folder / '03.png', folder / '01.png'], names, feats)


def test_a_bad_image_counts_as_often_as_it_is_listed(model, folder, tmp_path) -> None:
    (folder / '00.png').write_bytes(b'no image')
    paths = [folder / '00.png', folder / '01.png', folder / '00.png']
    done = EmbeddingInferencer(model)(paths, tmp_path / 'out', 'npy')
    assert done == dict(images=1, bad=2, parts=1)


def test_killed_at_any_moment_it_goes_on(model, folder, tmp_path, monkeypatch) -> None:
    (folder / '00.png').write_bytes(b'no image')
    (folder / '02.png').write_bytes(b'no image')
    EmbeddingInferencer(model)(folder, tmp_path / 'whole', 'npy', block_size=2)
    out = tmp_path / 'out'
    child = os.fork()
    if not child:  # writes slowly, until it is killed
        save = np.save

        def crawl(path: Path, feats: np.ndarray) -> None:
            save(path, feats[:0])
            time.sleep(0.5)
            save(path, feats)

        np.save = crawl
        try:
            EmbeddingInferencer(model)(folder, out, 'npy', block_size=2)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 30
    while not list(out.glob('.part-000001*')) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert [path.name for path in out.glob('*.npy') if path.name[0] != '.'] == ['part-000000.npy']
    visited = []
    read_item = embed._read_item
    monkeypatch.setattr(
        embed, '_read_item', lambda *args: visited.append(args[-1]) or read_item(*args)
    )
    done = EmbeddingInferencer(model)(folder, out, 'npy', block_size=2)
    assert done == dict(images=5, bad=2, parts=4)
    assert set(visited[-5:]) == {2, 3, 4, 5, 6}  # after a look at the names
    assert read(out)[0] == read(tmp_path / 'whole')[0]
    np.testing.assert_array_equal(read(out)[1], read(tmp_path / 'whole')[1])
    lists = [(path / 'bad_images.jsonl').read_text() for path in (out, tmp_path / 'whole')]
    assert lists[0] == lists[1]


def test_parts_of_another_job_are_refused(model, files, folder, tmp_path) -> None:
    def run(**changes: object) -> dict:
        arguments = dict(inputs=folder, out_dir=tmp_path / 'out', file_format='npy', block_size=4)
        return EmbeddingInferencer(model)(**{**arguments, **changes})

    run()
    assert run() == dict(images=7, bad=0, parts=2)
    changes = [dict(block_size=3), dict(feature='backbone_feat'), dict(file_format='parquet')]
    for change, word in zip(changes, ['block_size', 'feature', 'format'], strict=True):
        with pytest.raises(ValueError, match=f'of another job, of other {word}: name a new'):
            run(**change)
    (folder / '00.png').rename(folder / 'x.png')
    with pytest.raises(ValueError, match='other source'):
        run()
    model.backbone.pos_embed.data += 1
    with pytest.raises(ValueError, match='other model, source'):
        run()
    with pytest.raises(ValueError, match='not empty'):
        run(out_dir=folder)


def test_features_before_the_projection(model, files, folder, tmp_path) -> None:
    EmbeddingInferencer(model)(folder, tmp_path / 'a', 'npy', feature='backbone_feat')
    feats = np.load(tmp_path / 'a' / 'part-000000.npy')
    assert feats.shape == (7, 32)
    projected = feats @ model.neck.weight.detach().numpy()
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    for row, path in enumerate(sorted(folder.iterdir())):
        np.testing.assert_allclose(projected[row], reference_feat(model, path), atol=5e-5)
    cfg = Config.fromfile(files[0])
    for part in ('neck', 'text_backbone', 'text_neck', 'head'):
        cfg.model.pop(part)
    EmbeddingInferencer(cfg)(folder, tmp_path / 'b', 'npy')
    assert np.load(tmp_path / 'b' / 'part-000000.npy').shape == (7, 32)
    with pytest.raises(ValueError, match='no text tower'):
        EmbeddingInferencer(cfg)(folder, tmp_path / 'c', 'npy', feature='image_feat')


def test_errors_name_the_fault(model, tmp_path, monkeypatch) -> None:
    inferencer = EmbeddingInferencer(model)
    with pytest.raises(FileNotFoundError, match=r'no image, folder or table .*none'):
        inferencer(tmp_path / 'none', tmp_path / 'out', 'npy')
    with pytest.raises(FileNotFoundError, match=r'none-0\.tar'):
        inferencer(f'{tmp_path}/none-{{0..3}}.tar', tmp_path / 'out', 'npy')
    with pytest.raises(ValueError, match="'parquet' or 'npy'"):
        inferencer(tmp_path, tmp_path / 'out', 'csv')
    monkeypatch.setitem(__import__('sys').modules, 'pyarrow.parquet', None)
    with pytest.raises(ImportError, match=r'mmslip\[parquet\]'):
        inferencer(tmp_path, tmp_path / 'out', 'parquet')
