"""The index follows its folder, and search finds what a naive comparison finds."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmslip.apis import ImageRetrievalInferencer, init_model, retrieve
from mmslip.apis.index import ImageIndex, Record
from mmslip.apis.retrieve import IndexChanges
from mmslip.cli.inference import default_index
from mmslip.datasets import CLIPTokenizer
from mmslip.models import SLIP
from tests.apis.conftest import draw_images, reference_feat
from tests.conftest import draw_shape


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw_images(tmp_path / 'images' / 'sub dir', [6, 7])
    return draw_images(tmp_path / 'images', range(6))


@pytest.fixture
def search(model: SLIP, folder: Path, tmp_path: Path) -> Callable[..., ImageRetrievalInferencer]:
    """Opens the folder with its index, as a new process would."""

    def open_(**changes: object) -> ImageRetrievalInferencer:
        arguments = dict(model=model, folder=folder, index=tmp_path / 'index', batch_size=4)
        return ImageRetrievalInferencer(**{**arguments, **changes})

    return open_


def naive(model: SLIP, folder: Path, query: torch.Tensor) -> list[tuple[str, float]]:
    """Every image of the folder by its cosine, falling."""
    paths = sorted(folder.rglob('*.png'))
    cosines = {str(p.relative_to(folder)): float(reference_feat(model, p) @ query) for p in paths}
    return sorted(cosines.items(), key=lambda item: -item[1])


def pairs(result: dict) -> list[tuple[str, float]]:
    return [(hit['image'], hit['score']) for hit in result['hits']]


def check_equal(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert [score for _, score in found] == pytest.approx([s for _, s in expected], abs=2e-5)


def test_hits_equal_a_naive_comparison(search, model, folder) -> None:
    inferencer = search()
    assert inferencer.changes == IndexChanges(embedded=8)
    image = folder / 'sub dir' / '06.png'
    by_text, by_image = inferencer('größer rot', image, topk=5)
    with torch.no_grad():
        feat = model.encode_text(CLIPTokenizer(context_length=16)('größer rot'))[0]
    check_equal(pairs(by_text), naive(model, folder, feat / feat.norm())[:5])
    check_equal(pairs(by_image), naive(model, folder, reference_feat(model, image))[:5])
    assert (by_text['query'], by_image['query']) == ('größer rot', str(image))
    assert pairs(by_image)[0] == ('sub dir/06.png', pytest.approx(1, abs=1e-5))
    (all_of_them,) = inferencer(texts=['x'], topk=100)
    assert len(all_of_them['hits']) == 8


def test_index_is_updated_not_rebuilt(search, model, folder) -> None:
    search()
    cv2.imwrite(str(folder / '00.png'), draw_shape(20))  # changed
    os.utime(folder / '01.png')  # touched
    (folder / '02.png').rename(folder / 'moved.png')
    (folder / '03.png').unlink()
    shutil.copy(folder / '04.png', folder / 'copy.png')
    draw_images(folder, [30])  # new
    (folder / 'broken.png').write_bytes(b'no image')
    inferencer = search()
    reason = inferencer.changes.unreadable.pop('broken.png')
    assert 'broken.png (8 bytes) is not an image' in reason
    assert inferencer.changes == IndexChanges(embedded=2, reused=3, removed=2)
    (folder / 'broken.png').unlink()
    query = reference_feat(model, folder / '00.png')
    (result,) = inferencer(images=folder / '00.png', topk=20)
    expected = naive(model, folder, query)
    # Equal images stand in either order.
    assert sorted(pairs(result)) == [
        (name, pytest.approx(score, abs=2e-5)) for name, score in sorted(expected)
    ]
    assert search().changes == IndexChanges()
    # A file that was readable and is no more leaves the index.
    (folder / '05.png').write_bytes(b'no image')
    inferencer = search()
    assert len(inferencer.index) == 8
    assert '05.png' not in {record.name for record in inferencer.index.records}


def test_interrupted_update_goes_on(search, model, folder, monkeypatch) -> None:
    monkeypatch.setattr(retrieve, '_BLOCK', 3)
    whole = ImageIndex.add
    calls = []

    def add(index: ImageIndex, *block: object) -> None:
        calls.append(block)
        if len(calls) == 3:
            raise KeyboardInterrupt
        whole(index, *block)

    monkeypatch.setattr(ImageIndex, 'add', add)
    with pytest.raises(KeyboardInterrupt):
        search()
    inferencer = search()
    assert inferencer.changes == IndexChanges(embedded=2)  # of 8, six were written
    (result,) = inferencer(images=folder / '00.png', topk=20)
    check_equal(pairs(result), naive(model, folder, reference_feat(model, folder / '00.png')))


def test_update_that_ends_before_old_rows_are_dropped(search, folder, monkeypatch) -> None:
    search()
    cv2.imwrite(str(folder / '00.png'), draw_shape(20))
    with monkeypatch.context() as patch:
        patch.setattr(ImageIndex, 'finish', lambda index, gone: None)
        search()
    # Both versions lie on disk; the later one counts, and the next update clears the other.
    inferencer = search()
    assert inferencer.changes == IndexChanges()
    (result,) = inferencer(images=folder / '00.png', topk=20)
    assert len(result['hits']) == 8
    assert pairs(result)[0] == ('00.png', pytest.approx(1, abs=1e-5))
    sizes = []
    for path in sorted(inferencer.index.path.glob('*.npz')):
        with np.load(path) as file:
            sizes.append(len(file['embeddings']))
    assert sizes == [7, 1]


def test_index_of_other_weights_is_refused(search, files, model) -> None:
    search()
    search(model=init_model(*files))  # the same once more
    other = init_model(*files)
    other.text_neck.weight.data += 1  # embeddings of images do not depend on it
    search(model=other)
    other.neck.weight.data[0, 0] += 1e-6
    with pytest.raises(ValueError, match='made with other weights'):
        search(model=other)
    cfg = Config.fromfile(files[0])
    cfg.model.data_preprocessor = dict(type='mmslip.SLIPDataPreprocessor', to_rgb=False)
    with pytest.raises(ValueError, match='or another pipeline'):
        search(model=init_model(cfg, files[1]))


def test_errors_name_the_fault(search, folder, tmp_path) -> None:
    inferencer = search()
    with pytest.raises(ValueError, match='text to search for is empty'):
        inferencer(['a', '  '])
    with pytest.raises(FileNotFoundError, match=r'none\.png'):
        inferencer(images='none.png')
    with pytest.raises(FileNotFoundError, match='no folder'):
        search(folder=tmp_path / 'none')
    other = draw_images(tmp_path / 'other', [40])
    with pytest.raises(ValueError, match=r'belongs to another folder, .*images, not to .*other'):
        search(folder=other)
    assert len(search().index) == 8  # still whole
    with pytest.raises(ValueError, match='is no index'):
        search(index=folder)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='holds no image'):
        search(folder=tmp_path / 'empty', index=tmp_path / 'new')
    (tmp_path / 'broken.png').write_bytes(b'x')
    good, bad = inferencer('cat', tmp_path / 'broken.png')
    assert 'hits' in good
    assert 'not an image' in bad['error']
    with open(tmp_path / 'index' / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RuntimeError, match='Another process'):
            search()
    block = next((tmp_path / 'index').glob('*.npz'))
    block.write_bytes(block.read_bytes()[:100])
    with pytest.raises(ValueError, match=r'block-000000.npz is damaged .* delete it'):
        search()
    block.unlink()
    assert search().changes == IndexChanges(embedded=8)


def test_a_moved_folder_keeps_its_index(search, folder, tmp_path) -> None:
    assert search().changes == IndexChanges(embedded=8)
    moved = folder.rename(tmp_path / 'moved')
    inferencer = search(folder=moved)
    assert inferencer.changes == IndexChanges()
    assert inferencer.index.moved_from == folder
    assert search(folder=moved).index.moved_from is None
    # Another folder at the old place, with files of the same names.
    draw_images(folder, range(20, 28))
    with pytest.raises(ValueError, match='belongs to another folder'):
        search()


def test_folders_of_one_name_have_indices_of_their_own(search, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = tmp_path / 'a' / 'images', tmp_path / 'b' / 'images'
    for number, folder in enumerate((first, second)):
        draw_images(folder, range(9 * number, 9 * number + 3))
    indices = [default_index(folder) for folder in (first, second)]
    assert len(set(indices)) == 2
    assert all(index.name.startswith('images-') for index in indices)
    for folder, index in zip((first, second), indices, strict=True):
        assert search(folder=folder, index=index).changes == IndexChanges(embedded=3)
    assert [default_index(folder) for folder in (first, second)] == indices
    (tmp_path / 'c').mkdir()
    moved = first.rename(tmp_path / 'c' / 'images')
    assert default_index(moved) == indices[0]
    assert search(folder=moved, index=indices[0]).changes == IndexChanges()
    assert default_index(moved) == indices[0]
    assert default_index(second) == indices[1]
    # Another folder, though that of the index is gone: perhaps on a drive that is not there now.
    second.rename(tmp_path / 'b' / 'gone')
    other = draw_images(tmp_path / 'd' / 'images', range(30, 40))
    assert default_index(other) not in indices


def test_without_text_tower_images_are_found_by_images(files, folder, tmp_path) -> None:
    cfg = Config.fromfile(files[0])
    for part in ('neck', 'text_backbone', 'text_neck', 'head'):
        cfg.model.pop(part)
    inferencer = ImageRetrievalInferencer(cfg, folder, tmp_path / 'index', num_workers=1)
    (result,) = inferencer(images=folder / '02.png')
    assert pairs(result)[0] == ('02.png', pytest.approx(1, abs=1e-5))
    with pytest.raises(ValueError, match='no text tower'):
        inferencer('cat')


def planted(path: Path, number: int, seed: int = 0) -> ImageIndex:
    """An index of random embeddings, two images of each content."""
    feats = torch.randn(number, 24, generator=torch.Generator().manual_seed(seed))
    feats = torch.nn.functional.normalize(feats, dim=1).numpy()
    names = [f'{seed}-{row:05d}' for row in range(number)]
    records = [Record(name, 1, 1, row // 2 + 10**6 * seed) for row, name in enumerate(names)]
    feats[1::2] = feats[0 : number - 1 : 2]
    index = ImageIndex(path, 'model', path)
    with index.updating():
        index.add(records, feats)
        index.finish([])
    return index


@pytest.mark.parametrize('topk', [1, 7, 400])
def test_exact_search_in_blocks(tmp_path, monkeypatch, topk) -> None:
    monkeypatch.setattr('mmslip.apis.index._BLOCK', 50)
    index = planted(tmp_path, 330)
    queries = torch.nn.functional.normalize(torch.randn(3, 24), dim=1)
    scores, rows = index.search(queries, topk)
    cosines = queries @ torch.from_numpy(index.embeddings).T
    assert torch.allclose(scores, cosines.sort(descending=True).values[:, :topk], atol=1e-6)
    assert torch.allclose(scores, cosines.gather(1, rows), atol=1e-6)
    assert all(len(set(row)) == min(topk, 330) for row in rows.tolist())


def test_search_by_a_graph_follows_the_index(tmp_path) -> None:
    pytest.importorskip('usearch', reason='usearch is not installed')
    index = planted(tmp_path, 600)
    torch.manual_seed(0)
    queries = torch.nn.functional.normalize(torch.randn(20, 24), dim=1)

    def recall() -> float:
        exact, found = index.search(queries, 10, False), index.search(queries, 10, True)
        cosines = torch.from_numpy(index.embeddings)[found[1]] @ queries[:, :, None]
        assert torch.allclose(found[0], cosines[..., 0], atol=1e-6)
        return float((found[0] >= exact[0][:, -1:] - 1e-6).float().mean())

    assert recall() > 0.95
    before = (tmp_path / 'graph.usearch').read_bytes()
    recall()
    assert (tmp_path / 'graph.usearch').read_bytes() == before  # nothing to do
    index = planted(tmp_path, 300, seed=1)  # more images
    assert len(index) == 900
    assert recall() > 0.95
    with index.updating():
        index.finish([record.name for record in index.records if record.name < '0-00500'])
    assert len(index) == 400
    assert recall() > 0.95


def test_search_by_a_graph_asks_for_its_library(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr('mmslip.apis.index._usearch', lambda: None)
    index = planted(tmp_path, 4)
    index.search(torch.randn(1, 24), 2)
    with pytest.raises(ImportError, match=r'mmslip\[search\]'):
        index.search(torch.randn(1, 24), 2, approximate=True)
