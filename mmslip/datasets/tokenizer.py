"""Byte-pair tokeniser of CLIP and SLIP.

The vocabulary and the text cleaning are those of CLIP (Radford et al. 2021, *Learning
Transferable Visual Models From Natural Language Supervision*); the merges follow byte-pair
encoding (Sennrich et al. 2016, *Neural Machine Translation of Rare Words with Subword Units*).
"""

import gzip
import html
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import ftfy
import numpy as np
import regex
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mmslip.registry import TOKENIZERS

START_TOKEN = '<|startoftext|>'
END_TOKEN = '<|endoftext|>'
END_OF_WORD = '</w>'
VOCAB_SIZE = 49408
NUM_MERGES = VOCAB_SIZE - 2 * 256 - 2
DEFAULT_MERGES_FILE = Path(__file__).parent / 'data' / 'bpe_simple_vocab_16e6.txt.gz'

# Case is ignored although captions are lower-cased: the long s and its like stay as they are
# under lower-casing, yet count as an "s" in a contraction.
_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_PLAIN_PATTERN = regex.compile(_WORD, regex.IGNORECASE)
_CONTROL_PATTERN = regex.compile(
    '|'.join([regex.escape(START_TOKEN), regex.escape(END_TOKEN), _WORD]), regex.IGNORECASE
)


def _byte_symbols() -> list[str]:
    """Return the 256 byte symbols in the order of their ids.

    Bytes that print as one Latin-1 character stand for themselves and come first. The others
    take the code points from 256 on, in byte order, so sorting by code point gives the ids.
    """
    return sorted(pre_tokenizers.ByteLevel.alphabet())


@lru_cache(maxsize=4)
def _load_bpe(merges_file: str) -> Tokenizer:
    """Build the byte-pair encoder of single words, once per process and merges table.

    Raises:
        FileNotFoundError: If the merges table is missing.
        ValueError: If the table holds fewer merges than the vocabulary needs.
    """
    if not Path(merges_file).is_file():
        raise FileNotFoundError(
            f'no merges table at {merges_file!r}: reinstall mmslip with its package data, or give '
            "`merges_file` the path of CLIP's bpe_simple_vocab_16e6.txt.gz"
        )
    with gzip.open(merges_file, 'rt', encoding='utf-8') as file:
        lines = file.read().split('\n')
    # The first line is a version header; the table runs on past the merges CLIP uses.
    merges = [tuple(line.split()) for line in lines[1 : NUM_MERGES + 1] if line]
    if len(merges) < NUM_MERGES:
        raise ValueError(f'{merges_file!r} holds {len(merges)} merges, {NUM_MERGES} are needed')
    symbols = _byte_symbols()
    names = [*symbols, *(symbol + END_OF_WORD for symbol in symbols)]
    names += [first + second for first, second in merges]
    # The control tokens only have ids here: no merge leads to them, so no caption yields them.
    names += [START_TOKEN, END_TOKEN]
    vocab = {name: index for index, name in enumerate(names)}
    bpe = Tokenizer(models.BPE(vocab=vocab, merges=merges, end_of_word_suffix=END_OF_WORD))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(END_OF_WORD, ' ')])
    return bpe


@lru_cache(maxsize=1 << 16)
def _encode_word(merges_file: str, word: str) -> tuple[int, ...]:
    """Return the byte-pair ids of one pre-tokenised word.

    Captions repeat a small set of words, so remembering words is faster than handing whole
    captions to `encode_batch`. It also starts no thread pool, which `encode_batch` does even for
    one text and which must not exist when a data loader forks its workers.
    """
    return tuple(_load_bpe(merges_file).encode(word).ids)


def _clean(text: str) -> str:
    """Repair encoding errors, unescape HTML twice, collapse white space and lower-case."""
    # On printable ASCII without "&" the repair and the unescaping change nothing and would
    # take most of the time of a caption.
    if not (text.isascii() and text.isprintable() and '&' not in text):
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return ' '.join(text.split()).lower()


def _as_texts(texts: str | Sequence[str]) -> Sequence[str]:
    """Return the input as a sequence of captions, or raise a TypeError that names the culprit."""
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, Sequence) or isinstance(texts, (bytes, bytearray)):
        raise TypeError(f'texts must be a str or a sequence of str, got {type(texts).__name__}')
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f'texts[{position}] must be a str, got {type(text).__name__}')
    return texts


@TOKENIZERS.register_module()
class CLIPTokenizer:
    """Turn captions into rows of byte-pair ids for the text encoder of CLIP and SLIP.

    The byte-pair encoding runs in the `tokenizers` library. An instance holds settings only:
    it is cheap to make and to pickle, and all instances of a process share one merges table.
    Encoding starts no threads, so data loader workers may use it after a fork.

    The vocabulary is that of Radford et al. (2021): 256 byte symbols, the same 256 at the end of
    a word, 48894 merges (Sennrich et al. 2016), start 49406 and end 49407. `keep_end_token=False`
    with `parse_control_tokens=True` gives the ids of the official implementation on every text.

    Args:
        context_length: Number of ids in a row, at least 3.
        keep_end_token: Whether a caption that is too long is cut so that its last id is the end
            token, which the text encoder pools from. The official code cuts the end token away
            (False).
        parse_control_tokens: Whether `<|startoftext|>` and `<|endoftext|>` spelled out in a
            caption become control ids, as in the official code. By default they are plain
            text, so that a caption cannot move the pooled position.
        merges_file: Path of the gzipped merges table; None takes the one shipped with mmslip.

    Raises:
        ValueError: If `context_length` is not an integer of at least 3, or the merges table is
            too short.
        FileNotFoundError: If the merges table is missing.
    """

    vocab_size: int = VOCAB_SIZE
    start_id: int = VOCAB_SIZE - 2
    end_id: int = VOCAB_SIZE - 1

    def __init__(
        self,
        context_length: int = 77,
        keep_end_token: bool = True,
        parse_control_tokens: bool = False,
        merges_file: str | Path | None = None,
    ) -> None:
        if not isinstance(context_length, int) or context_length < 3:
            raise ValueError(
                'context_length must be an integer of at least 3 (start, one token, end), '
                f'got {context_length!r}'
            )
        self.context_length = context_length
        self.keep_end_token = keep_end_token
        self.parse_control_tokens = parse_control_tokens
        self.merges_file = merges_file
        _load_bpe(self._merges_path)

    @property
    def _merges_path(self) -> str:
        # Looked up at use, so that a pickle made elsewhere finds this installation's table.
        return str(DEFAULT_MERGES_FILE if self.merges_file is None else self.merges_file)

    def __call__(self, texts: str | Sequence[str]) -> torch.Tensor:
        """Encode one caption or a batch of captions.

        Args:
            texts: A caption, or a sequence of B captions.

        Returns:
            Ids of shape (B, context_length), int64, padded with zeros; B is 1 for one caption.

        Raises:
            TypeError: If `texts` is neither a str nor a sequence of str.
        """
        texts = _as_texts(texts)
        # Filling a NumPy array row by row costs a fraction of doing so with a tensor.
        rows = np.zeros((len(texts), self.context_length), dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            ids = self._cut([self.start_id, *self.encode(text), self.end_id])
            row[: len(ids)] = ids
        return torch.from_numpy(rows)

    def encode(self, text: str) -> list[int]:
        """Return the ids of one caption, without start and end tokens and at full length."""
        path = self._merges_path
        ids: list[int] = []
        if not self.parse_control_tokens:
            for word in _PLAIN_PATTERN.findall(_clean(text)):
                ids += _encode_word(path, word)
            return ids
        controls = {START_TOKEN: (self.start_id,), END_TOKEN: (self.end_id,)}
        for word in _CONTROL_PATTERN.findall(_clean(text)):
            ids += controls.get(word) or _encode_word(path, word)
        return ids

    def decode(self, ids: torch.Tensor | Sequence[int]) -> str:
        """Return the cleaned text of one row of ids, words separated by a space.

        Reading stops at the first end token, where the text encoder pools, which also drops
        the padding. Bytes that form no character become U+FFFD.

        Args:
            ids: Ids of shape (L,); start token, end token and padding may be there or not.

        Raises:
            ValueError: If `ids` is not one row, or holds an id outside the vocabulary.
        """
        if isinstance(ids, (torch.Tensor, np.ndarray)):
            if ids.ndim != 1:
                raise ValueError(f'decode takes one row of ids, got shape {tuple(ids.shape)}')
            ids = ids.tolist()
        body = []
        for index in ids:
            if index == self.end_id:
                break
            if not 0 <= index < self.vocab_size:
                raise ValueError(f'id {index} is outside the vocabulary of {self.vocab_size}')
            if index != self.start_id:
                body.append(index)
        return _load_bpe(self._merges_path).decode(body).strip()

    def _cut(self, ids: list[int]) -> list[int]:
        """Shorten a row of ids, start and end included, to the context length."""
        if len(ids) <= self.context_length:
            return ids
        if self.keep_end_token:
            return [*ids[: self.context_length - 1], self.end_id]
        return ids[: self.context_length]

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(context_length={self.context_length}, '
            f'keep_end_token={self.keep_end_token}, '
            f'parse_control_tokens={self.parse_control_tokens})'
        )
