"""Tests of tar shards: bytes, order, patterns, workers, and damaged files."""

import gzip
import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from mmslip.datasets import EvaluationDataset, ShardDataset, StreamDataset
from mmslip.datasets.io.faults import BadSampleError


def picture(number: int) -> bytes:
    """A JPEG of noise whose size depends on the number."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (12 + number, 20, 3), dtype=np.uint8)
    return cv2.imencode('.jpg', image)[1].tobytes()


def pack(path: Path, members: list[tuple[str, bytes]]) -> str:
    """Write a tar file, compressed if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, 'w:gz' if path.suffix == '.gz' else 'w') as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


def pairs(*numbers: int) -> list[tuple[str, bytes]]:
    """Members of text samples."""
    members = []
    for number in numbers:
        caption = f'Bild Nr. {number} ist schön'.encode()
        members += [(f'{number:03d}.jpg', picture(number)), (f'{number:03d}.txt', caption)]
    return members


def numbers_of(dataset: ShardDataset) -> list[int]:
    """Which samples a data set holds, from its names."""
    names = [dataset.get_data_info(index)['img_name'] for index in range(len(dataset))]
    return [int(name.rpartition(':')[2]) for name in names]


@pytest.mark.parametrize('name', ['a.tar', 'a.tar.gz'])
def test_text_samples_read_at_random(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / name, pairs(*range(7)))
    dataset = ShardDataset(path)
    assert len(dataset) == 7
    for index in [5, 0, 6, 3, 5, 1, 2, 4]:
        assert dataset[index] == dict(
            text=[f'Bild Nr. {index} ist schön'],
            img_bytes=picture(index),
            img_name=f'{path}:{index:03d}',
            sample_idx=index,
        )
    np.testing.assert_array_equal(
        dataset.load_image(2),
        cv2.imdecode(np.frombuffer(picture(2), np.uint8), cv2.IMREAD_COLOR)[..., ::-1],
    )


@pytest.mark.parametrize('name', ['a.tar', 'a.tar.gz'])
def test_json_samples(tmp_path: Path, name: str) -> None:
    contents = [
        dict(caption='one', title='ä title'),
        dict(caption=['two', 'three'], title=None),
        dict(title='only title', width=5),
    ]
    members = []
    for number, content in enumerate(contents):
        members.append((f'deep/{number}.json', json.dumps(content).encode()))
        members.append((f'deep/{number}.PNG', picture(number)))
        # img2dataset writes the caption twice; the JSON member wins.
        members.append((f'deep/{number}.txt', b'from txt'))
    path = pack(tmp_path / name, members)
    dataset = ShardDataset(path, caption_keys=('title', 'caption'))
    texts = [dataset[index]['text'] for index in range(3)]
    assert texts == [['ä title', 'one'], ['two', 'three'], ['only title']]
    assert [dataset[index]['img_bytes'] for index in range(3)] == [picture(i) for i in range(3)]
    assert ShardDataset(path)[0]['text'] == ['one']


def test_patterns_keep_order(tmp_path: Path) -> None:
    for shard in range(4):
        pack(tmp_path / 'set' / f'part-{shard:03d}.tar', pairs(10 * shard + 1, 10 * shard))
    pack(tmp_path / 'set' / 'other.tar.gz', pairs(90))

    def order(shards: str | list[str], root: str = str(tmp_path / 'set')) -> list[int]:
        return numbers_of(ShardDataset(shards, data_root=root))

    assert order('part-{000..002}.tar') == [1, 0, 11, 10, 21, 20]
    assert order('part-{003,001}.tar') == [31, 30, 11, 10]
    assert order('part-*.tar') == [1, 0, 11, 10, 21, 20, 31, 30]
    assert order('part-00[12].tar') == [11, 10, 21, 20]
    assert order(['other.tar.gz', 'part-{001..001}.tar']) == [90, 11, 10]
    assert order(str(tmp_path / 'set' / 'part-000.tar'), root='') == [1, 0]
    assert order(str(tmp_path / 'set' / 'part-000.tar'), root='ignored') == [1, 0]


def test_no_match_names_the_pattern(tmp_path: Path) -> None:
    pack(tmp_path / 'part-000.tar', pairs(0))
    for shards, missing in [('part-{000..001}.tar', 'part-001.tar'), ('x*.tar', 'x*.tar')]:
        with pytest.raises(FileNotFoundError, match='check `shards` and `data_root`') as caught:
            ShardDataset(shards, data_root=str(tmp_path))
        assert str(tmp_path / missing) in str(caught.value)


@pytest.mark.parametrize('folder', ['set [v2]', 'set {a,b}'])
def test_folder_with_pattern_characters(tmp_path: Path, folder: str) -> None:
    pack(tmp_path / folder / 'a.tar', pairs(4))
    assert numbers_of(ShardDataset('*.tar', data_root=str(tmp_path / folder))) == [4]


@pytest.mark.parametrize(
    ('members', 'message'),
    [
        ([('7.jpg', b'x')], '7 has jpg but no caption in .json or .txt'),
        ([('7.txt', b'x'), ('7.cls', b'1')], '7 has cls, txt but no image'),
        ([*pairs(1), ('a/7.json', b'{}')], 'a/7 has json but no image'),
    ],
)
def test_incomplete_sample(tmp_path: Path, members: list, message: str) -> None:
    path = pack(tmp_path / 'a.tar', members)
    dataset = ShardDataset(path, max_bad_share=0)
    with pytest.raises(BadSampleError, match=message) as caught:
        dataset[len(dataset) - 1]
    assert str(caught.value).startswith(path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'{"capt', 'is not valid JSON'),
        (b'{"title": "x", "n": 1}', 'under caption: its .json has title, n. Set'),
        (b'{"caption": null}', 'under caption: its .json has caption'),
        (b'{"caption": []}', 'under caption: its .json has caption'),
    ],
)
def test_bad_json_caption(tmp_path: Path, content: bytes, message: str) -> None:
    path = pack(tmp_path / 'a.tar', [*pairs(1), ('7.jpg', b'x'), ('7.json', content)])
    with pytest.raises(ValueError, match=message) as caught:
        ShardDataset(path, max_bad_share=0)[1]
    assert f'{path}:7' in str(caught.value)


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = pack(tmp_path / 'a.tar', [('7.jpg', b'x'), ('7.txt', 'Tür'.encode('latin-1'))])
    with pytest.raises(ValueError, match='cannot be read as UTF-8') as caught:
        ShardDataset(path)[0]
    assert f'{path}:7' in str(caught.value)


@pytest.mark.parametrize('content', [b'["x"]', b'{"caption": 5}', b'{"caption": [1]}'])
def test_json_of_other_types_is_named(tmp_path: Path, content: bytes) -> None:
    path = pack(tmp_path / 'a.tar', [('7.jpg', b'x'), ('7.json', content)])
    with pytest.raises(ValueError, match='caption') as caught:
        ShardDataset(path)[0]
    assert f'{path}:7' in str(caught.value)


def test_blank_captions_are_passed_over(tmp_path: Path) -> None:
    content = b'{"caption": ["", "a cat", " "]}'
    path = pack(tmp_path / 'a.tar', [('7.jpg', b'x'), ('7.json', content)])
    assert ShardDataset(path)[0]['text'] == ['a cat']


def test_damaged_shards_are_named(tmp_path: Path) -> None:
    whole = Path(pack(tmp_path / 'whole.tar', pairs(*range(4)))).read_bytes()
    packed = gzip.compress(whole)
    with tarfile.open(tmp_path / 'whole.tar') as archive:
        in_picture = archive.getmembers()[4].offset_data + 20
    bad_sum = packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]
    damaged = {
        'cut.tar': whole[:in_picture],
        'empty.tar': b'',
        'page.tar': b'<html>not found</html>' * 60,
        'cut.tar.gz': packed[: len(packed) // 2],
        'sum.tar.gz': bad_sum,
        'page.tar.gz': b'<html>not found</html>' * 60,
    }
    for name, content in damaged.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r'is damaged .* copy or make it again') as caught:
            ShardDataset(str(path))
        assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize('how', ['cut between members', 'cut in a header', 'broken header'])
def test_samples_behind_a_damaged_header_are_missed(tmp_path: Path, how: str) -> None:
    whole = Path(pack(tmp_path / 'whole.tar', pairs(*range(4)))).read_bytes()
    with tarfile.open(tmp_path / 'whole.tar') as archive:
        header = archive.getmembers()[4].offset
    damaged = {
        'cut between members': whole[:header],
        'cut in a header': whole[: header + 100],
        'broken header': whole[:header] + b'\xff' * 40 + whole[header + 40 :],
    }
    path = tmp_path / 'a.tar'
    path.write_bytes(damaged[how])
    with pytest.raises(ValueError, match='is damaged'):
        ShardDataset(str(path))


def test_broken_compression_is_named(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(Path(pack(tmp_path / 'a.tar', pairs(0, 1))).read_bytes()))
    packed[10] = 7  # a block type that does not exist
    path = tmp_path / 'a.tar.gz'
    path.write_bytes(packed)
    with pytest.raises(ValueError, match='is damaged') as caught:
        ShardDataset(str(path))
    assert str(caught.value).startswith(str(path))


def test_shard_without_samples_is_named(tmp_path: Path) -> None:
    path = pack(tmp_path / 'a.tar', [])
    with pytest.raises(ValueError, match=r'a\.tar'):
        ShardDataset(path)


@pytest.mark.parametrize('names', [['a.tar', 'b.tar'], ['a.tar.gz', 'b.tar.gz']])
def test_forked_workers_share_descriptors(tmp_path: Path, names: list[str]) -> None:
    for shard, name in enumerate(names):
        pack(tmp_path / name, pairs(*range(20 * shard, 20 * shard + 20)))
    dataset = ShardDataset(names, data_root=str(tmp_path))
    expected = [dataset[index] for index in range(40)]  # opens the files before the fork
    assert [item['img_bytes'] for item in expected] == [picture(number) for number in range(40)]
    # Positioned reads leave alone the file offset that a fork shares.
    assert {os.lseek(number, 0, os.SEEK_CUR) for number in dataset._descriptors.values()} <= {0}
    loader = DataLoader(
        dataset, batch_size=2, num_workers=2, collate_fn=list, multiprocessing_context='fork'
    )
    assert [item for batch in loader for item in batch] == expected


@pytest.mark.parametrize('name', ['a.tar', 'a.tar.gz'])
def test_pickled_copy_opens_its_own_files(tmp_path: Path, name: str) -> None:
    dataset = ShardDataset(pack(tmp_path / name, pairs(*range(3))))
    expected = [dataset[index] for index in range(3)]
    clone = pickle.loads(pickle.dumps(dataset))
    # In a spawned worker the parent's descriptors are not open.
    for descriptor in dataset._descriptors.values():
        os.close(descriptor)
    dataset._descriptors.clear()
    assert [clone[index] for index in range(3)] == expected
    assert [dataset[index] for index in range(3)] == expected


@pytest.mark.parametrize('name', ['a.tar', 'a.tar.gz'])
def test_shard_of_webdataset(tmp_path: Path, name: str) -> None:
    webdataset = pytest.importorskip('webdataset', reason='webdataset is not installed')
    path = str(tmp_path / name)
    with webdataset.TarWriter(path) as writer:
        for number in range(5):
            text = dict(txt=f'caption {number} ü') if number % 2 else {}
            json_text = {} if text else dict(json=dict(caption=f'caption {number} ü'))
            sample = dict(__key__=f'{number:06d}', jpg=picture(number))
            writer.write({**sample, **text, **json_text})
    dataset = ShardDataset(path)
    assert len(dataset) == 5
    for number in range(5):
        caption = f'caption {number} ü'
        assert dataset[number] == dict(
            text=[caption],
            img_bytes=picture(number),
            img_name=f'{path}:{number:06d}',
            sample_idx=number,
        )


def texts_of(*members: tuple[str, bytes], folder: Path, **kwargs: object) -> list:
    dataset = ShardDataset(pack(folder / 'a.tar', list(members)), **kwargs)
    return [dataset.get_data_info(index).get('text') for index in range(len(dataset))]


def test_names_are_split_at_their_first_dot(tmp_path: Path) -> None:
    members = [
        *(('v1.0/1.jpg', b'x'), ('v1.0/1.seg.png', b'y'), ('v1.0/1.txt', b'one')),
        *(('./v1.0/2.JPG', b'x'), ('./v1.0/2.TXT', b'two'), ('v1.0/._1.jpg', b'mac')),
        *(('__MACOSX/v1.0/3.jpg', b'mac'), ('README', b'x'), ('.cache/4.txt', b'x')),
        *(('1.0.jpg', b'x'), ('1.0.txt', b'x'), ('notes.md', b'x')),
    ]
    path = pack(tmp_path / 'a.tar', members)
    dataset = ShardDataset(path)
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert [(info['img_name'], info['text']) for info in infos] == [
        (f'{path}:v1.0/1', ['one']),
        (f'{path}:./v1.0/2', ['two']),
    ]
    with pytest.raises(ValueError, match=r'no samples .only v1\.jpg.* split at its first dot'):
        ShardDataset(pack(tmp_path / 'b.tar', [('img.v1.jpg', b'x')]))


def test_keys_are_those_of_webdataset(tmp_path: Path) -> None:
    webdataset = pytest.importorskip('webdataset')
    from mmslip.datasets.io.tar_sample import split_name

    names = ['a.jpg', 'a/b.jpg', 'a.b/c.d.e.JPG', './a.b.txt', 'a/b/c.tar.gz', 'noext', 'a/.x']
    for name in names:
        key, suffix = webdataset.tariterators.base_plus_ext(name)
        found = split_name(name)
        assert found == ((key, suffix.lower()) if key and not name.endswith('/.x') else None)


def test_where_captions_are_read(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    both = [('0.jpg', b'x'), ('0.txt', b'\xef\xbb\xbfnew'), ('0.json', b'{"caption": "old"}')]
    assert texts_of(*both, folder=tmp_path) == [['old']]
    assert texts_of(*both, folder=tmp_path, caption_members='txt') == [['new']]
    assert texts_of(*both, folder=tmp_path, caption_members=['txt', 'json']) == [['new']]
    assert texts_of(*both, folder=tmp_path, caption_keys='alt') == [['new']]
    for content in (b'{"key": 0}', b'{"caption": null}', b'{"caption": " "}', b'[1, 2]', b'5'):
        members = [*both[:2], ('0.json', content)]
        assert texts_of(*members, folder=tmp_path) == [['new']]
    nulls = [('0.jpg', b'x'), ('0.json', b'{"caption": [null, "a", "&nbsp;", "\\ud83d"]}')]
    assert texts_of(*nulls, folder=tmp_path) == [['a', '\ufffd']]
    assert texts_of(('0.jpg', b'x'), ('0.json', b'"a dog"'), folder=tmp_path) == [['a dog']]
    with pytest.raises(ValueError, match=r"caption_members must be of json, txt, not \['cls'\]"):
        ShardDataset(str(tmp_path / 'a.tar'), caption_members='cls')


def test_two_members_that_differ_are_said(tmp_path: Path, monkeypatch) -> None:
    said = []
    monkeypatch.setattr('mmslip.datasets.shards.print_log', lambda text, **_: said.append(text))
    both = [('0.jpg', b'x'), ('0.txt', b'new'), ('0.json', b'{"caption": "old"}')]
    texts_of(*both, folder=tmp_path)
    assert 'other captions in .json than in .txt: those in .json are read' in said.pop()
    texts_of(*both[:2], ('0.json', b'{"caption": "new"}'), folder=tmp_path)
    texts_of(*both, folder=tmp_path, captions='ignored')
    assert said == []


@pytest.mark.parametrize('suffix', ['gif', 'tiff', 'avif', 'jfif', 'JPEG', 'jp2'])
def test_every_suffix_of_the_decoder(tmp_path: Path, suffix: str) -> None:
    assert texts_of((f'0.{suffix}', b'x'), ('0.txt', b'a'), folder=tmp_path) == [['a']]


def test_labels(tmp_path: Path) -> None:
    members = [('0.jpg', b'x'), ('0.cls', b'3\n'), ('1.jpg', b'x'), ('1.cls', b' 0')]
    path = pack(tmp_path / 'a.tar', members)
    dataset = ShardDataset(path, captions='ignored')
    assert [dataset.get_data_info(index)['gt_label'] for index in range(2)] == [3, 0]
    task = dict(name='shapes', classes=['a', 'b', 'c', 'd'], templates=['{}'])
    config = dict(type='mmslip.ShardDataset', shards=path, captions='ignored')
    assert EvaluationDataset(task, config).get_data_info(0)['gt_label'] == 3
    with pytest.raises(ValueError, match='sample 0 has label 3, but the task has 2 classes'):
        EvaluationDataset(dict(task, classes=['a', 'b']), config).get_data_info(0)
    pack(tmp_path / 'a.tar', [*members[:3], ('1.cls', b'cat')])
    with pytest.raises(BadSampleError, match=r"\.cls of .*a\.tar:1 is no number: b'cat'"):
        ShardDataset(path, captions='ignored').get_data_info(1)


def test_labels_of_some_samples_alone_are_said(tmp_path: Path, monkeypatch) -> None:
    said = []
    monkeypatch.setattr('mmslip.datasets.shards.print_log', lambda text, **_: said.append(text))
    pack(tmp_path / 'a.tar', [('0.jpg', b'x'), ('0.cls', b'3'), ('1.jpg', b'x'), ('1.cls', b'0')])
    bare = pack(tmp_path / 'b.tar', [('2.jpg', b'x'), ('2.cls', b'1'), ('7.jpg', b'x')])
    config = dict(shards='*.tar', data_root=str(tmp_path), captions='ignored')
    dataset = ShardDataset(**config)
    # A batch of both kinds could not be put together.
    assert not [number for number in range(4) if 'gt_label' in dataset.get_data_info(number)]
    assert said.pop().startswith(f'1 of 4 samples have no .cls, such as {bare}:7: so no label is')
    task = dict(name='shapes', classes=['a', 'b', 'c', 'd'], templates=['{}'])
    judged = EvaluationDataset(task, dict(type='mmslip.ShardDataset', **config))
    with pytest.raises(ValueError, match='sample 0 has no label'):
        judged.get_data_info(0)
    said.clear()
    assert 'gt_label' in ShardDataset(**dict(config, shards='a.tar')).get_data_info(0)
    ShardDataset(pack(tmp_path / 'c.tar', [('0.jpg', b'x')]), captions='ignored')
    assert said == []


def test_a_repeated_suffix_begins_another_sample(tmp_path: Path) -> None:
    """As in archives that were put together; the stream has the same samples."""
    pytest.importorskip('webdataset', reason='webdataset is not installed')
    members = [
        *(*pairs(1, 2), ('001.jpg', picture(3)), ('001.txt', b'again')),
        *(('001.jpg', picture(4)), ('001.npy', b''), ('001.npy', b''), ('001.txt', b'third')),
        *(('009.cls', b'1'), ('009.cls', b'1')),
    ]
    expected = [
        ('001', 'Bild Nr. 1 ist schön', picture(1)),
        ('002', 'Bild Nr. 2 ist schön', picture(2)),
        ('001', 'again', picture(3)),
        ('001', 'third', picture(4)),
    ]
    for name in ('a.tar', 'a.tar.gz'):
        path = pack(tmp_path / name, members)
        dataset = ShardDataset(path)
        for samples in (
            [dataset[number] for number in range(len(dataset))],
            list(StreamDataset(path, length=4, shuffle_buffer=1)),
        ):
            found = [(item['img_name'], item['text'], item['img_bytes']) for item in samples]
            assert found == [(f'{path}:{key}', [text], image) for key, text, image in expected]


@pytest.mark.parametrize('name', ['a.tar', 'a.tar.gz'])
def test_archives_behind_one_another(tmp_path: Path, name: str) -> None:
    """``cat 0.tar 1.tar > a.tar``: tarfile ends at the end of the first."""
    pytest.importorskip('webdataset', reason='webdataset is not installed')
    parts = [pack(tmp_path / f'{shard}-{name}', pairs(shard, 7)) for shard in range(3)]
    path = tmp_path / name
    path.write_bytes(b''.join(Path(part).read_bytes() for part in parts))
    assert numbers_of(ShardDataset(str(path))) == [0, 7, 1, 7, 2, 7]
    for source in (str(path), f'pipe:cat {path}'):
        stream = StreamDataset(source, length=6, shuffle_buffer=1, max_bad_share=0)
        assert [int(item['sample_idx']) for item in stream] == [0, 7, 1, 7, 2, 7]
    if name == 'a.tar':  # cut off in the second, and in the zeros between
        whole = path.read_bytes()
        size = len(Path(parts[0]).read_bytes())
        for damaged in (
            whole[: size + 2048],
            whole[: size + 100],
            whole[:size] + b'\xff' * 512 + whole[size:],
        ):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match='is damaged'):
                ShardDataset(str(path))
            with pytest.raises(BadSampleError, match='cannot be read'):
                list(StreamDataset(f'pipe:cat {path}', length=6, max_bad_share=0))


def test_members_without_image_or_caption_are_no_samples(tmp_path: Path) -> None:
    members = [*pairs(1), ('1.npy', b'x'), ('stats.parquet', b'x'), ('2.cls', b'1'), ('3.mp4', b'')]
    dataset = ShardDataset(pack(tmp_path / 'a.tar', members))
    assert numbers_of(dataset) == [1]
