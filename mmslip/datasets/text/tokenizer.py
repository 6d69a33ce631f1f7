"""Byte-pair tokeniser of CLIP and SLIP.

The vocabulary is that of CLIP (Radford et al. 2021, *Learning Transferable Visual Models From
Natural Language Supervision*); the merges follow byte-pair encoding (Sennrich et al. 2016, *Neural
Machine Translation of Rare Words with Subword Units*).
"""

from functools import lru_cache
from pathlib import Path

import regex
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mmslip.datasets.text.base import BaseTokenizer
from mmslip.datasets.text.cleaning import clean
from mmslip.datasets.text.vocabulary import (
    END_OF_WORD,
    OWN_WORD,
    byte_symbols,
    find_table,
    is_own,
    read_table,
)
from mmslip.registry import TOKENIZERS

__all__ = ['CLIPTokenizer']

_START, _END = '<|startoftext|>', '<|endoftext|>'
_VOCAB_SIZE = 49408
_NUM_MERGES = _VOCAB_SIZE - 2 * 256 - 2
_CLIP_TABLE = 'mmslip::bpe_simple_vocab_16e6.txt.gz'

_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
# Longer words are not remembered: hardly any comes again, and each takes memory.
_MAX_KNOWN_WORD = 64


@TOKENIZERS.register_module()
class CLIPTokenizer(BaseTokenizer):
    """Captions to rows of byte-pair ids, for the text tower of CLIP and SLIP.

    The byte-pair encoding runs in the ``tokenizers`` library. An instance holds settings only:
    it is cheap to make and to pickle, and all instances of a process share one merges table.
    Encoding starts no threads, so workers of a data loader may use it after a fork.

    The vocabulary: 256 byte symbols, the same 256 at the end of a word, 48,894 merges, start 49406
    and end 49407. ``keep_end_token=False`` with ``parse_control_tokens=True`` gives the ids of the
    official implementation on every text of up to 16,384 characters; what is behind those is
    left out (:func:`mmslip.datasets.text.cleaning.clean`).

    Attributes:
        own: Whether the table was trained on own captions, see :mod:`.vocabulary`.

    Args:
        context_length: Number of ids in a row, 3 or more.
        keep_end_token: Whether the last id of a caption that is cut is the end token, whose feature
            the text tower takes. The official code cuts it away (``False``).
        parse_control_tokens: Whether ``<|startoftext|>`` and ``<|endoftext|>`` spelled out in a
            caption become control ids, as in the official code. By default they are plain
            text, so that a caption cannot move the position whose feature is taken.
        merges_file: The table of merges, gzipped or not, by default CLIP's: one that ``mmslip
            init`` has trained on captions (:func:`mmslip.datasets.text.vocabulary.train_merges`),
            or ``mmslip::`` and the name of one in this package.
        num_merges: How many merges of the table are used, from its start, where the most frequent
            stand; by default the 48,894 of CLIP, or all of an own table. Fewer make a small
            vocabulary for small data: 512 bytes, the merges, start and end. The text tower needs
            the same ``vocab_size``.

    Raises:
        ValueError: ``context_length`` is no integer of 3 or more, ``num_merges`` none of 0 or more,
            or the table is too short.
        FileNotFoundError: There is no such table.
    """

    def __init__(
        self,
        context_length: int = 77,
        keep_end_token: bool = True,
        parse_control_tokens: bool = False,
        merges_file: str | Path | None = None,
        num_merges: int | None = None,
    ) -> None:
        if not isinstance(context_length, int) or context_length < 3:
            raise ValueError(
                'context_length must be an integer of at least 3 (start, one token, end), '
                f'got {context_length!r}'
            )
        self.merges_file = merges_file
        self.own, merges = _describe_table(str(merges_file or _CLIP_TABLE))
        num_merges = merges if num_merges is None else num_merges
        if not isinstance(num_merges, int) or num_merges < 0:
            raise ValueError(f'num_merges must be an integer of at least 0, got {num_merges!r}')
        self.context_length = context_length
        self.keep_end_token = keep_end_token
        self.parse_control_tokens = parse_control_tokens
        self.num_merges = num_merges
        self.vocab_size = 2 * 256 + num_merges + 2
        self.before, self.after, self.pad_id = (self.vocab_size - 2,), (self.vocab_size - 1,), 0
        _load_bpe(*self._merges)

    @property
    def word(self) -> str:
        """Regular expression of what the table takes for a word."""
        return OWN_WORD if self.own else _WORD

    @property
    def _merges(self) -> tuple[str, int]:
        # Looked up at use, so that a pickle made elsewhere finds this installation's table.
        return str(self.merges_file or _CLIP_TABLE), self.num_merges

    @staticmethod
    def merges_of(vocab_size: int) -> int | None:
        """``num_merges`` of a vocabulary; ``None`` where the table of CLIP has no such number."""
        merges = vocab_size - 2 * 256 - 2
        return merges if 0 <= merges <= _NUM_MERGES else None

    @property
    def bpe(self) -> Tokenizer:
        """The byte-pair encoder of single words, which all instances of a process share."""
        return _load_bpe(*self._merges)

    def encode(self, text: str) -> list[int]:
        """Ids of one caption, without start and end tokens and not cut to the context length."""
        merges = self._merges
        ids: list[int] = []
        pattern = _pattern(self.word, self.parse_control_tokens)
        if not self.parse_control_tokens:
            for word in pattern.findall(clean(text)):
                ids += _encode_word(*merges, word)
            return ids
        controls = {_START: (self.start_id,), _END: (self.end_id,)}
        for word in pattern.findall(clean(text)):
            ids += controls.get(word) or _encode_word(*merges, word)
        return ids

    def _decode(self, ids: list[int]) -> str:
        """Clean text, words separated by a space; start tokens are left out."""
        return self.bpe.decode([index for index in ids if index != self.start_id]).strip()

    def _frame(self, ids: list[int]) -> list[int]:
        if self.keep_end_token:
            return super()._frame(ids)
        return [self.start_id, *ids, self.end_id][: self.context_length]

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(context_length={self.context_length}, '
            f'keep_end_token={self.keep_end_token}, '
            f'parse_control_tokens={self.parse_control_tokens})'
        )


@lru_cache(maxsize=4)
def _pattern(word: str, with_controls: bool) -> regex.Pattern:
    """The words of a text, and the control tokens spelled out in it."""
    parts = [regex.escape(_START), regex.escape(_END), word] if with_controls else [word]
    # Case is ignored although captions are lower-cased: the long s and its like stay as they are
    # under lower-casing, yet count as an "s" in a contraction.
    return regex.compile('|'.join(parts), regex.IGNORECASE)


@lru_cache(maxsize=4)
def _describe_table(merges_file: str) -> tuple[bool, int]:
    """Whether a table was trained on own captions, and how many of its merges are meant.

    Raises:
        FileNotFoundError: There is no such table.
        ValueError: It is damaged.
    """
    if not find_table(merges_file).is_file():
        raise FileNotFoundError(
            f'no merges table at {merges_file!r}: reinstall mmslip with its package data, or give '
            "`merges_file` the path of CLIP's bpe_simple_vocab_16e6.txt.gz, or of the table that "
            '`mmslip init` wrote beside your experiment'
        )
    own = is_own(merges_file)
    # The table of CLIP runs on past the merges that it uses.
    return own, len(read_table(merges_file)) - 1 if own else _NUM_MERGES


@lru_cache(maxsize=4)
def _load_bpe(merges_file: str, num_merges: int) -> Tokenizer:
    """The byte-pair encoder of single words, built once per process and vocabulary.

    Raises:
        ValueError: The table has fewer merges than that.
    """
    # The first line is a header.
    lines = read_table(merges_file, num_merges + 1)[1:]
    merges = [tuple(line.split()) for line in lines if line]
    if len(merges) < num_merges:
        raise ValueError(f'{merges_file!r} holds {len(merges)} merges, {num_merges} are needed')
    symbols = byte_symbols()
    names = [*symbols, *(symbol + END_OF_WORD for symbol in symbols)]
    names += [first + second for first, second in merges]
    # The control tokens only have ids here: no merge leads to them, so no caption yields them.
    names += [_START, _END]
    vocab = {name: index for index, name in enumerate(names)}
    bpe = Tokenizer(models.BPE(vocab=vocab, merges=merges, end_of_word_suffix=END_OF_WORD))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(END_OF_WORD, ' ')])
    return bpe


@lru_cache(maxsize=1 << 16)
def _encode_known_word(merges_file: str, num_merges: int, word: str) -> tuple[int, ...]:
    """Byte-pair ids of one word.

    Captions repeat a small set of words, so remembering words is faster than handing whole
    captions to ``encode_batch``. It also starts no thread pool, which ``encode_batch`` does even
    for one text and which must not exist when a data loader forks its workers.
    """
    return tuple(_load_bpe(merges_file, num_merges).encode(word).ids)


def _encode_word(merges_file: str, num_merges: int, word: str) -> tuple[int, ...]:
    known = len(word) <= _MAX_KNOWN_WORD
    encode = _encode_known_word if known else _encode_known_word.__wrapped__
    return encode(merges_file, num_merges, word)
