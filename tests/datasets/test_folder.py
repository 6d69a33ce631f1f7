"""Tests of the walk over folders, patterns of paths, and data sets of a folder."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmslip.apis import sources
from mmslip.datasets import EvaluationDataset, FolderDataset, Visit
from mmslip.datasets.io.decode import decode_image
from mmslip.datasets.io.folder import IMAGE_SUFFIXES, list_images
from mmslip.datasets.io.patterns import expand_braces, expand_patterns


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., None]:
    """Makes image files of these names below the test's folder."""

    def make(*names: str) -> None:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (20, 20), 'red').save(path, 'PNG')

    return make


def test_suffixes_are_those_of_the_decoder() -> None:
    Image.init()
    formats = {'AVIF', 'BMP', 'DIB', 'GIF', 'JPEG', 'JPEG2000', 'MPO', 'PNG', 'PPM', 'TIFF', 'WEBP'}
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in formats}
    assert known - {'.pfm'} <= set(IMAGE_SUFFIXES)  # '.pfm': floating-point numbers
    assert len(set(IMAGE_SUFFIXES)) == len(IMAGE_SUFFIXES)


@pytest.mark.parametrize('suffix', ['.jfif', '.tif', '.webp', '.gif', '.avif', '.jp2', '.ppm'])
def test_decoder_reads_the_suffix(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f'a{suffix}'
    try:
        Image.new('RGB', (20, 20), 'red').save(path)
    except (KeyError, OSError):
        pytest.skip(f'Pillow writes no {suffix} here')
    blue, green, red = decode_image(path.read_bytes(), 1000)[10, 10]
    assert red > 240 > 20 > max(blue, green)


def test_list_images_has_a_public_place() -> None:
    assert sources.list_images is list_images


def test_walk(put: Callable, tmp_path: Path) -> None:
    put('b.JPG', 'a/2.webp', 'a/.ipynb_checkpoints/2-checkpoint.webp', '.hidden/3.png')
    put('__MACOSX/b.jpg', 'a/._2.webp', 'deep/er/4.tiff', 'folder.png/5.gif')
    (tmp_path / 'a' / 'notes.txt').write_text('x')
    (tmp_path / 'broken.jpg').symlink_to('nowhere.jpg')
    (tmp_path / 'loop').symlink_to('loop')
    assert list_images(tmp_path) == ['a/2.webp', 'b.JPG', 'deep/er/4.tiff', 'folder.png/5.gif']
    with pytest.raises(FileNotFoundError, match='nowhere'):
        list_images(tmp_path / 'nowhere')


def test_links_are_followed_once(put: Callable, tmp_path: Path) -> None:
    put('set/real/1.png', 'other/2.png', 'single.png')
    root = tmp_path / 'set'
    (root / 'a_link').symlink_to('real')  # before `real` in the order of names
    (root / 'real' / 'up').symlink_to('..')
    (root / 'self').symlink_to('.')
    (root / 'first').symlink_to('../other')
    (root / 'second').symlink_to(tmp_path / 'other')
    (root / '3.png').symlink_to(tmp_path / 'single.png')
    assert list_images(root) == ['3.png', 'first/2.png', 'real/1.png']
    (tmp_path / 'link').symlink_to('set')
    assert list_images(tmp_path / 'link') == ['3.png', 'first/2.png', 'real/1.png']


def test_names_that_are_not_utf8(put: Callable, tmp_path: Path) -> None:
    put('a.png')
    os.rename(tmp_path / 'a.png', os.fsencode(tmp_path) + b'/\xff\xe2\x80\xa8.png')
    (name,) = list_images(tmp_path)
    assert os.fsencode(name) == b'\xff\xe2\x80\xa8.png'
    assert len(FolderDataset(str(tmp_path), pipeline=[dict(type='mmslip.LoadImage')])[0]['img'])


def test_folder_without_captions(put: Callable, tmp_path: Path) -> None:
    put(*(f'{number // 3}/{number}.png' for number in range(9)))
    pipeline = [dict(type='mmslip.LoadImage')]
    dataset = FolderDataset(str(tmp_path), pipeline=pipeline)
    dataset.pipeline.transforms.append(lambda results: dict(results, drawn=np.random.rand()))
    assert len(dataset) == 9
    assert 'text' not in dataset[4]
    assert dataset[Visit(4, 5)]['drawn'] == dataset[Visit(3, 5)]['drawn'] != dataset[4]['drawn']
    (tmp_path / '1' / '4.png').write_bytes(b'')
    assert dataset[4]['sample_idx'] == 5
    assert (dataset.bad_samples.visits, dataset.bad_samples.replaced) == (5, 1)
    assert len(FolderDataset(str(tmp_path), dict(img_path='2'))) == 3
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='holds no image known by'):
        FolderDataset(str(tmp_path / 'empty'))


def test_classes(put: Callable, tmp_path: Path) -> None:
    put('red/1.png', 'green/deep/2.gif', 'green/3.png', 'none.png', '.cache/4.png')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'texts').mkdir()
    (tmp_path / 'texts' / 'a.txt').write_text('x')
    dataset = FolderDataset(str(tmp_path), with_label=True)
    assert dataset.metainfo['classes'] == ('green', 'red')
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert [(Path(info['img_path']).name, info['gt_label']) for info in infos] == [
        ('3.png', 0),
        ('2.gif', 0),
        ('1.png', 1),
    ]
    task = dict(name='colours', classes=['red', 'green'], templates=['{}'])
    config = dict(type='mmslip.FolderDataset', data_root=str(tmp_path), with_label=True)
    judged = EvaluationDataset(task, config)
    assert [judged.get_data_info(index)['gt_label'] for index in range(3)] == [1, 1, 0]
    with pytest.raises(ValueError, match='in a folder for its class'):
        FolderDataset(str(tmp_path / 'red'), with_label=True)


def test_captions_beside_images(put: Callable, tmp_path: Path) -> None:
    put('a/1.png', 'a/2.png', 'b.png')
    (tmp_path / 'a' / '1.txt').write_text('\ufeff eine Tür \n', encoding='utf-8')
    (tmp_path / 'b.txt').write_text('b', encoding='utf-8')
    dataset = FolderDataset(str(tmp_path), captions='optional')
    infos = [dataset.get_data_info(index) for index in range(3)]
    assert [info.get('text') for info in infos] == [['eine Tür'], None, ['b']]
    assert 'text' not in FolderDataset(str(tmp_path)).get_data_info(0)
    with pytest.raises(ValueError, match=r'1 of 3 images have no caption beside them; .*/a/2.txt'):
        FolderDataset(str(tmp_path), captions='required')
    moved = tmp_path.with_name('moved')
    shutil.copytree(tmp_path, moved)
    elsewhere = FolderDataset(str(moved), captions='optional')
    assert [dataset.identify(n) for n in range(3)] == [elsewhere.identify(n) for n in range(3)]
    (tmp_path / 'b.txt').write_bytes(b'\xff')
    with pytest.raises(ValueError, match=r'b.txt is not UTF-8 .*convert it'):
        dataset.get_data_info(2)
    (tmp_path / 'b.txt').write_text(' ')
    assert 'text' not in dataset.get_data_info(2)
    (tmp_path / 'a' / '2.txt').write_text('zwei')
    dataset = FolderDataset(str(tmp_path), captions='required')
    with pytest.raises(ValueError, match=r"b.txt is empty: fill it in, .* captions='optional'"):
        dataset.get_data_info(2)


@pytest.mark.parametrize('folder', ['set [v2]', 'set {a,b}', 'set {a', 'set *', 'plain'])
def test_a_path_is_tried_as_it_stands(put: Callable, tmp_path: Path, folder: str) -> None:
    put(f'{folder}/0.tar', f'{folder}/1.tar', f'{folder}/a[0].tar', f'{folder}/x{{0..1}}.tar')

    def names(pattern: str) -> list[str]:
        found = expand_patterns(f'{folder}/{pattern}', str(tmp_path), 'shards')
        assert expand_patterns(str(tmp_path / folder / pattern), '', 'shards') == found
        assert expand_patterns(pattern, str(tmp_path / folder), 'shards') == found
        assert {path.parent for path in found} == {tmp_path / folder}
        return [path.name for path in found]

    assert names('1.tar') == ['1.tar']
    assert names('{1,0}.tar') == ['1.tar', '0.tar']
    assert names('{0..1}.tar') == ['0.tar', '1.tar']
    assert names('[01].tar') == ['0.tar', '1.tar']
    assert names('a[0].tar') == ['a[0].tar']
    assert names('x{0..1}.tar') == ['x{0..1}.tar']
    assert names('?.tar') == ['0.tar', '1.tar']
    braces = expand_braces(str(tmp_path / folder / '{1,2}.tar'))
    assert braces == [str(tmp_path / folder / name) for name in ('1.tar', '2.tar')]


def test_long_lists_in_braces(put: Callable, tmp_path: Path) -> None:
    put(*(f'shard-{number:03d}.tar' for number in range(60)))
    pattern = 'shard-{' + ','.join(f'{number:03d}' for number in range(60)) + '}.tar'
    assert len(pattern) < 255 or len(expand_patterns(pattern, str(tmp_path), 'shards')) == 60
    pattern = f'{{{pattern},{pattern}}}'
    assert len(expand_patterns(pattern, str(tmp_path), 'shards')) == 120
