"""Words of any script, and byte-pair vocabularies trained on captions of one's own."""

import gzip
import json
import zlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import regex
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from mmslip.datasets.text.cleaning import clean
from mmslip.utils import whole_file

__all__ = [
    'END_OF_WORD',
    'MANY_TOKENS',
    'OWN_HEADER',
    'OWN_WORD',
    'byte_symbols',
    'count_words',
    'find_table',
    'is_own',
    'read_table',
    'train_merges',
]

END_OF_WORD = '</w>'
# First line of a table made here. Its words are those of OWN_WORD, which keep their marks: CLIP's
# rule cuts a word at each vowel sign of Devanagari, Thai or Arabic, since those are no letters.
OWN_HEADER = '#mmslip: words keep their marks'
OWN_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}[\p{L}\p{M}]*|\p{N}|[^\s\p{L}\p{N}]+"

_PREFIX, _DATA = 'mmslip::', Path(__file__).parents[1] / 'data'

# Tokens a word that make another vocabulary worth a try: English has 1.1 to 1.5 of CLIP's.
MANY_TOKENS = 1.8

# A pair seen less often becomes no token: of so few captions it would learn nothing.
_LEAST_SEEN = 5
# Bytes of a token, the end of a word counted as 4. Without a limit, scripts without spaces between
# words would have whole phrases as tokens, which captions of other words could not share.
_LONGEST = 24

# Scripts without spaces between words, by how many letters a word of theirs has or so.
_SHORT, _LONG = r'\p{Han}\p{Hiragana}', r'\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}'
_SHORT_LETTERS = regex.compile(rf'[[{_SHORT}]&&\p{{L}}]', regex.VERSION1)
_LONG_LETTERS = regex.compile(rf'[[{_LONG}]&&\p{{L}}]', regex.VERSION1)
_UNSPACED = regex.compile(f'[{_SHORT}{_LONG}]+')
_SPACED = regex.compile(r'[\p{L}\p{N}]\S*')


def count_words(text: str) -> float:
    """Number of words: what begins with a letter or digit and ends with a space.

    Scripts without spaces between words are counted by letters: 2 of Han or Hiragana are a word, 4
    of Katakana, Thai, Lao, Khmer or Myanmar.
    """
    unspaced = len(_SHORT_LETTERS.findall(text)) / 2 + len(_LONG_LETTERS.findall(text)) / 4
    return unspaced + len(_SPACED.findall(_UNSPACED.sub(' ', text)))


def byte_symbols() -> list[str]:
    """The 256 byte symbols in the order of their ids.

    Bytes that print as one Latin-1 character stand for themselves and come first. The others
    take the code points from 256 on, in byte order, so sorting by code point gives the ids.
    """
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def find_table(name: str | Path) -> Path:
    """Path of a table: one in this package is called ``mmslip::NAME``, as it is on any machine."""
    name = str(name)
    return _DATA / name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else Path(name)


def read_table(name: str | Path, lines: int | None = None) -> list[str]:
    """The first lines of a table, gzipped or not: a header, and a merge each.

    Raises:
        ValueError: There is none that can be read.
    """
    path = find_table(name)
    try:
        with path.open('rb') as file:
            packed = file.read(2) == b'\x1f\x8b'
        with (gzip.open if packed else open)(path, 'rt', encoding='utf-8') as file:
            return [line.rstrip('\n') for line in islice(file, lines)]
    except (EOFError, OSError, UnicodeDecodeError, zlib.error) as error:
        raise ValueError(f'{path} is no table of merges, or a damaged one: {error}') from error


def is_own(name: str | Path) -> bool:
    """Whether there is a table of this name that was trained on own captions."""
    return find_table(name).is_file() and read_table(name, 1) == [OWN_HEADER]


def train_merges(captions: Iterable[str], path: str | Path, num_merges: int = 30_000) -> int:
    """Train a byte-pair vocabulary, and write it as a table of merges for ``CLIPTokenizer``.

    The same captions give the same file, in whatever order they come. Byte-pair encoding: Sennrich
    et al. 2016, arXiv 1508.07909.

    Args:
        captions: As they are; they are cleaned here.
        path: The gzipped table to write: a header, then a merge a line, the most frequent first.
        num_merges: At most so many; fewer where no other pair is seen five times.

    Returns:
        Number of merges in the table.
    """
    symbols = byte_symbols()
    # As special tokens they have fixed ids, by which the trainer decides between equal counts.
    alphabet = [*symbols, *(symbol + END_OF_WORD for symbol in symbols)]
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + num_merges,
        min_frequency=_LEAST_SEEN,
        max_token_length=_LONGEST,
        special_tokens=alphabet,
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pattern = regex.compile(OWN_WORD, regex.IGNORECASE)
    bpe.train_from_iterator((w for text in captions for w in pattern.findall(clean(text))), trainer)
    merges = json.loads(bpe.to_str())['model']['merges']
    lines = [OWN_HEADER, *(' '.join(pair) for pair in merges), '']
    with whole_file(Path(path)) as part:
        part.write_bytes(gzip.compress('\n'.join(lines).encode(), mtime=0))
    return len(merges)
