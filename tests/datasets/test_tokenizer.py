"""Tests of the byte-pair tokeniser against ids of the official implementation."""

import copy
import gzip
import json
import os
import pickle
import random
import string
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmslip.datasets.text import cleaning
from mmslip.datasets.text.tokenizer import CLIPTokenizer
from mmslip.registry import TOKENIZERS
from tests.scripts import environment

ROOT = Path(__file__).parents[2]
OWN_FILE = ROOT / 'tests' / 'data' / 'tokenizer_expected.json'
SHARED_FILE = ROOT.parent / 'shared' / 'parity' / 'tokenizer_expected.json'
EXPECTED = json.loads(OWN_FILE.read_text(encoding='utf-8'))
START, END = 49406, 49407
OFFICIAL = dict(keep_end_token=False, parse_control_tokens=True)


def strip_padding(row: torch.Tensor) -> list[int]:
    """Drop trailing zeros, as the expected files do."""
    ids = row.tolist()
    while ids and ids[-1] == 0:
        ids.pop()
    return ids


@pytest.fixture(scope='module')
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer()


@pytest.mark.parametrize('file', [OWN_FILE, SHARED_FILE], ids=['own', 'shared'])
def test_official_switches_give_official_ids(file: Path) -> None:
    if not file.is_file():
        pytest.skip(f'{file.name} is not in a shared folder beside the checkout')
    entries = json.loads(file.read_text(encoding='utf-8'))
    official = CLIPTokenizer(**OFFICIAL)
    rows = official([entry['text'] for entry in entries])
    assert rows.shape == (len(entries), 77)
    for entry, row in zip(entries, rows, strict=True):
        assert strip_padding(row) == entry['ids'], entry['text']
        assert official.encode(entry['text']) == entry['body'], entry['text']


def test_expected_file_covers_the_hard_cases() -> None:
    joined = ''.join(entry['text'] for entry in EXPECTED)
    for piece in ['😀', '日本', 'â€™', '&amp;', '<|endoftext|>', 'İ']:
        assert piece in joined
    assert sum(len(entry['body']) > 75 for entry in EXPECTED) >= 2


def test_default_equals_official_on_ordinary_texts(tokenizer: CLIPTokenizer) -> None:
    ordinary = [
        entry
        for entry in EXPECTED
        if len(entry['body']) <= 75 and not {START, END} & set(entry['body'])
    ]
    assert len(ordinary) == len(EXPECTED) - 3  # two over-long texts, one with control tokens
    rows = tokenizer([entry['text'] for entry in ordinary])
    assert [strip_padding(row) for row in rows] == [entry['ids'] for entry in ordinary]


@pytest.mark.parametrize('context_length', [3, 16, 77])
def test_cut_caption_keeps_its_end_token(context_length: int) -> None:
    text = 'a ' * 100
    kept = CLIPTokenizer(context_length)(text)[0].tolist()
    assert kept == [START, *[320] * (context_length - 2), END]
    lost = CLIPTokenizer(context_length, keep_end_token=False)(text)[0].tolist()
    assert lost == [START, *[320] * (context_length - 1)]


def test_caption_that_just_fits_is_not_cut(tokenizer: CLIPTokenizer) -> None:
    for count in (74, 75):
        row = tokenizer('a ' * count)[0].tolist()
        assert row == [START, *[320] * count, END, *[0] * (75 - count)]
    assert tokenizer('a ' * 75).equal(CLIPTokenizer(**OFFICIAL)('a ' * 75))


@pytest.mark.parametrize(
    'text',
    [
        'a <|endoftext|> b',
        '<|startoftext|>',
        '<|EndOfText|>x<|STARTOFTEXT|>',
        '&lt;|endoftext|&gt;',
        '&amp;lt;|endoftext|&amp;gt;',
    ],
)
def test_control_tokens_are_plain_text_by_default(tokenizer: CLIPTokenizer, text: str) -> None:
    body = tokenizer.encode(text)
    assert body
    assert not {START, END} & set(body)
    assert strip_padding(tokenizer(text)[0]) == [START, *body, END]
    assert {START, END} & set(CLIPTokenizer(parse_control_tokens=True).encode(text))


def test_plain_control_token_has_the_ids_of_its_pieces(tokenizer: CLIPTokenizer) -> None:
    pieces = [tokenizer.encode(piece) for piece in ('<|', 'endoftext', '|>')]
    assert tokenizer.encode('<|endoftext|>') == [index for piece in pieces for index in piece]
    # After a symbol the official pattern reads the bracket as part of that symbol's run.
    glued = CLIPTokenizer(parse_control_tokens=True).encode('!<|endoftext|>')
    assert glued == tokenizer.encode('!<|endoftext|>')


def test_known_ids_and_padding(tokenizer: CLIPTokenizer) -> None:
    row = tokenizer('A photo of a cat')
    assert row.dtype == torch.int64
    assert row.tolist() == [[START, 320, 1125, 539, 320, 2368, END, *[0] * 70]]
    assert tokenizer('').tolist() == [[START, END, *[0] * 75]]
    short = CLIPTokenizer(16)('A photo of a cat')
    assert short.tolist() == [row[0, :16].tolist()]


def test_batch_equals_single(tokenizer: CLIPTokenizer) -> None:
    texts = [entry['text'] for entry in EXPECTED]
    single = torch.cat([tokenizer(text) for text in texts])
    assert tokenizer(texts).equal(single)
    assert tokenizer(tuple(texts)).equal(single)
    assert tokenizer([]).shape == (0, 77)


def test_attributes(tokenizer: CLIPTokenizer) -> None:
    assert tokenizer.context_length == 77
    assert tokenizer.vocab_size == 49408
    assert (tokenizer.start_id, tokenizer.end_id) == (START, END)


def test_decode_text(tokenizer: CLIPTokenizer) -> None:
    assert tokenizer.decode(tokenizer('A  photo of\ta Cat.')[0]) == 'a photo of a cat .'
    assert tokenizer.decode([2368, 7334]) == 'cat 😀'
    assert tokenizer.decode(tokenizer('日本語')[0]) == '日本語'
    assert tokenizer.decode([]) == ''
    assert tokenizer.decode([START, 320, END, 2368]) == 'a'
    # Half of a character, as a cut caption may end in.
    assert tokenizer.decode(tokenizer.encode('語')[:1]) == '�'


def test_decode_round_trip(tokenizer: CLIPTokenizer) -> None:
    for entry in EXPECTED:
        if len(entry['body']) <= 75:
            row = tokenizer(entry['text'])
            assert tokenizer(tokenizer.decode(row[0])).equal(row), entry['text']


def test_fast_cleaning_equals_full_cleaning(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    letters = string.printable[:95].replace('&', '')
    texts = [''.join(rng.choices(letters, k=rng.randint(0, 40))) for _ in range(500)]
    repaired = []
    monkeypatch.setattr(cleaning.ftfy, 'fix_text', lambda t: repaired.append(t) or t)
    fast = [cleaning.clean(text) for text in texts]
    assert not repaired  # the short cut was taken
    monkeypatch.undo()
    full = [cleaning.html.unescape(cleaning.ftfy.fix_text(t)) for t in texts]
    assert fast == [' '.join(text.split()).lower() for text in full]


def test_pickle_and_copy_hold_settings_only() -> None:
    tokenizer = CLIPTokenizer(16, **OFFICIAL)
    data = pickle.dumps(tokenizer)
    assert len(data) < 500
    for clone in (pickle.loads(data), copy.deepcopy(tokenizer)):
        assert repr(clone) == repr(tokenizer)
        assert clone('a <|endoftext|> cat').equal(tokenizer('a <|endoftext|> cat'))


def test_registry() -> None:
    built = TOKENIZERS.build(dict(type='mmslip.CLIPTokenizer', context_length=16))
    assert isinstance(built, CLIPTokenizer)
    assert built('a cat').shape == (1, 16)


@pytest.mark.skipif(not os.path.isdir('/proc/self/task'), reason='needs /proc to count threads')
def test_no_threads_and_no_warning_around_a_fork() -> None:
    script = """
import os
from mmslip.datasets.text.tokenizer import CLIPTokenizer
count = lambda: len(os.listdir('/proc/self/task'))
before = count()
tokenizer = CLIPTokenizer()
expected = tokenizer(['a photo of a cat'] * 64)
assert count() == before, 'threads in the parent'
child = os.fork()
if child == 0:
    same = tokenizer(['a photo of a cat'] * 64).equal(expected)
    same = same and tokenizer('a photo of an unseen word').shape == (1, 77)
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


@pytest.mark.parametrize(
    ('texts', 'message'),
    [
        (3, 'sequence of str, got int'),
        (None, 'got NoneType'),
        (b'cat', 'got bytes'),
        (['a', 'b', 5], r'texts\[2\] must be a str, got int'),
        (['a', None], r'texts\[1\] must be a str, got NoneType'),
        ([['a']], r'texts\[0\] must be a str, got list'),
    ],
)
def test_wrong_input_names_position_and_type(
    tokenizer: CLIPTokenizer, texts: object, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        tokenizer(texts)


@pytest.mark.parametrize('context_length', [2, 0, -1, 7.5, None])
def test_wrong_context_length(context_length: object) -> None:
    with pytest.raises(ValueError, match='context_length must be an integer of at least 3'):
        CLIPTokenizer(context_length)


def test_missing_or_short_merges_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='give `merges_file` the path'):
        CLIPTokenizer(merges_file=tmp_path / 'none.txt.gz')
    short = tmp_path / 'short.txt.gz'
    short.write_bytes(gzip.compress(b'#version\na b\n'))
    with pytest.raises(ValueError, match='holds 1 merges, 48894 are needed'):
        CLIPTokenizer(merges_file=short)
    damaged = tmp_path / 'damaged.txt.gz'
    for content in (b'\x1f\x8bmerges', gzip.compress(b'#version\na b\n')[:-9], b'\xff\n'):
        damaged.write_bytes(content)
        with pytest.raises(ValueError, match='is no table of merges, or a damaged one'):
            CLIPTokenizer(merges_file=damaged)


@pytest.mark.parametrize('num_merges', [-1, 2.5, '9'])
def test_wrong_number_of_merges(num_merges: object) -> None:
    with pytest.raises(ValueError, match='num_merges must be an integer of at least 0'):
        CLIPTokenizer(num_merges=num_merges)


def test_fewer_merges_keep_the_ids_and_leave_rare_words_in_pieces() -> None:
    whole, short = CLIPTokenizer(), CLIPTokenizer(context_length=8, num_merges=4000)
    assert (short.vocab_size, short.start_id, short.end_id) == (4514, 4512, 4513)
    # A word whose merges are all among the first has the same ids.
    assert short.encode('a red cat') == whole.encode('a red cat')
    rare = short.encode('ophiuchus')
    assert len(rare) > len(whole.encode('ophiuchus'))
    assert max(rare) < short.start_id
    assert short.decode(rare) == 'ophiuchus'
    assert short('cat').tolist() == [[4512, *whole.encode('cat'), 4513, 0, 0, 0, 0, 0]]
    assert CLIPTokenizer(num_merges=0).encode('ab') == [64, 256 + 65]  # single bytes


def test_decode_errors(tokenizer: CLIPTokenizer) -> None:
    with pytest.raises(ValueError, match=r'one row of ids, got shape \(1, 77\)'):
        tokenizer.decode(tokenizer('a cat'))
    with pytest.raises(ValueError, match='id 49408 is outside the vocabulary'):
        tokenizer.decode([49408])
