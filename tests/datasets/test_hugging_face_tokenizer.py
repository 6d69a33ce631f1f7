"""Tokenisers of Hugging Face against `transformers`, and what keeps the end token in its place."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmslip.datasets import CLIPTokenizer, HuggingFaceTokenizer
from mmslip.registry import TOKENIZERS
from tests.scripts import environment
from tests.text_parts import CAPTIONS, KINDS, write_tokenizer


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('length', [7, 24])
def test_ids_are_those_of_transformers(kind: str, length: int, tmp_path: Path) -> None:
    transformers = pytest.importorskip('transformers')
    folder = write_tokenizer(tmp_path, kind)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    theirs.padding_side = 'right'
    texts = [text.replace('[SEP]', 'SEP') for text in CAPTIONS]
    ours = HuggingFaceTokenizer(folder, length)
    got = ours(texts)
    assert got.dtype == torch.int64
    if kind == 'gpt2':  # which adds no end token, and pads with what would be one
        cut = theirs(texts, truncation=True, max_length=length - 1).input_ids
        expected = [[*ids, ours.end_id, *[1] * (length - 1 - len(ids))] for ids in cut]
    else:
        settings = dict(padding='max_length', truncation=True, max_length=length)
        expected = theirs(texts, **settings).input_ids
        assert ours.pad_id == theirs.pad_token_id
    assert got.tolist() == expected


@pytest.mark.parametrize(
    ('kind', 'start', 'end', 'pad'),
    [('bert', 2, 3, 0), ('xlm-roberta', 0, 2, 1), ('gpt2', None, 0, 1), ('t5', None, 1, 0)],
)
def test_all_is_known_from_the_files(
    kind: str, start: int | None, end: int, pad: int, tmp_path: Path
) -> None:
    folder = write_tokenizer(tmp_path, kind)
    tokenizer = HuggingFaceTokenizer(folder)
    assert (tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id) == (start, end, pad)
    assert tokenizer.context_length == 24
    size = len(tokenizer.tokenizer.get_vocab())
    assert tokenizer.vocab_size == size
    rows = tokenizer(['a dog ' * 40, *CAPTIONS])
    assert rows.max() < size
    lengths = (rows != pad).sum(1)
    assert (rows[range(len(rows)), lengths - 1] == end).all()  # last, and there when cut
    assert ((rows == end).sum(1) == 1).all()  # also where a caption spells it
    assert lengths[0] == 24


@pytest.mark.parametrize('kind', KINDS)
def test_decode(kind: str, tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(write_tokenizer(tmp_path, kind))
    assert tokenizer.decode(tokenizer('a red dog')[0]) == 'a red dog'
    assert tokenizer.decode(tokenizer.encode('a red dog')) == 'a red dog'
    assert tokenizer.decode(tokenizer('')[0]) == ''
    with pytest.raises(ValueError, match='outside the vocabulary'):
        tokenizer.decode([tokenizer.vocab_size])


def test_a_file_alone(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path, 'xlm-roberta') / 'tokenizer.json'
    (tmp_path / 'tokenizer_config.json').unlink()
    with pytest.raises(ValueError, match='states no length of its rows: set context_length'):
        HuggingFaceTokenizer(path)
    tokenizer = HuggingFaceTokenizer(path, 8, pad_token='<pad>')
    assert (tokenizer.end_id, tokenizer.pad_id) == (2, 1)
    assert HuggingFaceTokenizer(path, 8).pad_id == 0  # nothing names the pad token
    content = json.loads(path.read_text())
    content['truncation'] = dict(direction='Right', max_length=5, strategy='LongestFirst', stride=0)
    content['padding'] = dict(
        strategy='BatchLongest', direction='Left', pad_to_multiple_of=None, pad_id=1,
        pad_type_id=0, pad_token='<pad>',
    )  # fmt: skip
    (tmp_path / 'other').mkdir()
    other = tmp_path / 'other' / 'tokenizer.json'
    other.write_text(json.dumps(content))
    stated = HuggingFaceTokenizer(other)
    assert (stated.context_length, stated.pad_id) == (5, 1)
    assert stated(CAPTIONS).equal(HuggingFaceTokenizer(path, 5, pad_token='<pad>')(CAPTIONS))


def test_wrong_settings(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / 'gpt2', 'gpt2')
    with pytest.raises(FileNotFoundError, match=r'give `path` a tokenizer\.json'):
        HuggingFaceTokenizer(tmp_path / 'none')
    with pytest.raises(ValueError, match=r"pad_token='<\|endoftext\|>' is the end token"):
        HuggingFaceTokenizer(folder, pad_token='<|endoftext|>')
    with pytest.raises(ValueError, match="end_token='</s>' is not in the vocabulary"):
        HuggingFaceTokenizer(folder, end_token='</s>')
    for length in (1, 2.5, 0):
        with pytest.raises(ValueError, match='context_length must be an integer of at least 2'):
            HuggingFaceTokenizer(folder, length)
    alone = tmp_path / 'alone.json'
    alone.write_bytes((folder / 'tokenizer.json').read_bytes())
    with pytest.raises(ValueError, match='puts no token behind a caption'):
        HuggingFaceTokenizer(alone, 8)
    assert HuggingFaceTokenizer(alone, 8, end_token='!').end_id == 1
    (tmp_path / 'tokenizer.json').write_text('{}')
    with pytest.raises(ValueError, match='is no tokeniser that can be read'):
        HuggingFaceTokenizer(tmp_path, 8)


def test_broken_and_long_captions(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(write_tokenizer(tmp_path, 'gpt2'), 8)
    assert tokenizer.encode('half \ud83d one') == tokenizer.encode('half ? one')
    assert len(tokenizer.encode('x ' * 10**6)) <= 2**14


def test_registered_and_pickled_with_settings_only(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path)
    cfg = dict(type='mmslip.HuggingFaceTokenizer', path=str(folder), context_length=9)
    tokenizer = TOKENIZERS.build(cfg)
    data = pickle.dumps(tokenizer)
    assert len(data) < 500
    clone = pickle.loads(data)
    assert repr(clone) == repr(tokenizer)
    assert clone(CAPTIONS).equal(tokenizer(CAPTIONS))


@pytest.mark.skipif(not os.path.isdir('/proc/self/task'), reason='needs /proc to count threads')
def test_no_threads_and_no_warning_around_a_fork(tmp_path: Path) -> None:
    script = f"""
import os
from mmslip.datasets.text.hugging_face import HuggingFaceTokenizer
count = lambda: len(os.listdir('/proc/self/task'))
before = count()
tokenizer = HuggingFaceTokenizer({str(write_tokenizer(tmp_path))!r})
expected = tokenizer(['a photo of a cat'] * 64)
assert count() == before, 'threads in the parent'
child = os.fork()
if child == 0:
    same = tokenizer(['a photo of a cat'] * 64).equal(expected)
    os._exit(0 if same and count() == 1 else 1)
assert os.waitpid(child, 0)[1] == 0, 'child failed'
"""
    env = environment()
    env.pop('TOKENIZERS_PARALLELISM', None)
    done = subprocess.run(
        [sys.executable, '-c', script], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert 'fork' not in done.stderr


def test_clip_keeps_the_same_contract() -> None:
    tokenizer = CLIPTokenizer(8)
    assert (tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id) == (49406, 49407, 0)
    assert tokenizer.room == 6
    row = tokenizer('a ' * 20)[0].tolist()
    assert row == [49406, *tokenizer.encode('a ' * 6), 49407]


def test_padding_that_counts(tmp_path: Path) -> None:
    """SigLIP's, whose end token fills rows: the ids are those of transformers."""
    transformers = pytest.importorskip('transformers')
    folder = write_tokenizer(tmp_path, 'siglip')
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = HuggingFaceTokenizer(folder, padding_counts=True)
    texts = [*CAPTIONS, 'A Red DOG; on the grass!']
    rows = ours(texts)
    expected = theirs(texts, padding='max_length', truncation=True, max_length=24).input_ids
    assert rows.tolist() == expected
    assert rows[-1].tolist() == ours('a red dog on the grass')[0].tolist()
    assert (rows[:, -1] == 1).all()
    assert ours.decode(rows[-1]) == 'a red dog on the grass'
    copy = ours.plain_config('copy')
    assert copy == dict(
        type='mmslip.HuggingFaceTokenizer', path='copy', context_length=24, end_token='</s>',
        pad_token='</s>', padding_counts=True,
    )  # fmt: skip
