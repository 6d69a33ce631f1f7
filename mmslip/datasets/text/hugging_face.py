"""Tokenisers of Hugging Face, read from their files without network or ``transformers``."""

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from mmslip.datasets.text.base import BaseTokenizer
from mmslip.registry import TOKENIZERS

__all__ = ['HuggingFaceTokenizer']

# Longer texts are cut first, as CLIP's are: some hundred tokens are read.
_MAX_CHARS = 2**14
# A larger `model_max_length` stands for "not known".
_UNBOUNDED = 10**6


@TOKENIZERS.register_module()
class HuggingFaceTokenizer(BaseTokenizer):
    """Any fast tokeniser of Hugging Face: WordPiece, byte-pair, Unigram, of any language.

    Ids are those of ``transformers.AutoTokenizer``, with two exceptions, which keep a caption from
    moving the token that a text tower reads: special tokens spelled out in a caption are plain
    text, and an end token follows every caption, also where the tokeniser adds none by itself
    (GPT-2, Llama) and where the caption is cut.

    Padding is the tokeniser's own pad token. Where it has none, or the end token stands for it
    (GPT-2, CLIP), it is id 0, or id 1 where that is the end token. Any id will do: text towers take
    for padding only what follows the end token. SigLIP's tower reads the padding, so that it has to
    be the tokeniser's own: ``padding_counts``.

    An instance holds settings only: it is cheap to pickle, and all instances of a process share one
    vocabulary. Encoding starts no threads, so workers of a data loader may use it after a fork.

    Args:
        path: A folder with ``tokenizer.json``, such as ``save_pretrained`` writes, or that file.
            Beside it, ``tokenizer_config.json`` and ``special_tokens_map.json`` are read.
        context_length: Number of ids in a row; by default what the files state.
        end_token: The end token as text, where the files name none.
        pad_token: The pad token as text, where another one is wanted.
        padding_counts: Whether the text tower reads the padding, as
            :class:`mmslip.models.SigLIPTextTransformer` does. The pad token has to be named, and
            may be the end token.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no tokeniser, or lacks an end token or a length that are not given;
            a given token is not in the vocabulary, or both are the same; ``context_length`` leaves
            no room for a token; with ``padding_counts``, the files name no pad token, or pad on the
            left.
    """

    def __init__(
        self,
        path: str | Path,
        context_length: int | None = None,
        end_token: str | None = None,
        pad_token: str | None = None,
        padding_counts: bool = False,
    ) -> None:
        path = Path(path)
        self.path = str(path / 'tokenizer.json' if path.is_dir() else path)
        found = _load(self.path)
        end_token = end_token or (None if found.after else found.end_token)
        if end_token is None and not found.after:
            raise ValueError(
                f'{self.path} puts no token behind a caption, and no file beside it names an '
                "eos_token: state the text of one, end_token='...'."
            )
        self.vocab_size, self.before, self.after = found.vocab_size, found.before, found.after
        if end_token is not None:
            self.after = (self._id(end_token, 'end_token'),)
        self.padding_counts = padding_counts
        if padding_counts:
            self.pad_id = self._read_pad_id(pad_token or found.pad_token, found.padding_side)
        else:
            self.pad_id = self._pad_id(pad_token, found.pad_token)
        self.context_length = self._length(context_length, found.length)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokeniser of the library ``tokenizers``, which all instances of a process share."""
        return _load(self.path).tokenizer

    def encode(self, text: str) -> list[int]:
        """Ids of one caption alone, without start and end tokens and not cut."""
        # Half surrogate pairs, which broken captions hold, are no text for the library.
        text = text[:_MAX_CHARS].encode('utf-8', 'replace').decode('utf-8')
        # `encode_batch` would start a pool of threads, which must not be there at a fork.
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def plain_config(self, path: str) -> dict[str, Any]:
        """The config of this tokeniser where its ``tokenizer.json`` is copied to, alone."""
        counts = dict(padding_counts=True) if self.padding_counts else {}
        return dict(
            type='mmslip.HuggingFaceTokenizer',
            path=path,
            context_length=self.context_length,
            end_token=self.tokenizer.id_to_token(self.end_id),
            pad_token=self.tokenizer.id_to_token(self.pad_id),
            **counts,
        )

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _id(self, token: str, argument: str) -> int:
        index = self.tokenizer.token_to_id(token)
        if index is None:
            raise ValueError(f'{argument}={token!r} is not in the vocabulary of {self.path}.')
        return index

    def _pad_id(self, given: str | None, stated: str | None) -> int:
        token = stated if given is None else given
        index = None if token is None else self._id(token, 'pad_token')
        if given is not None and index == self.end_id:
            raise ValueError(
                f'pad_token={given!r} is the end token of {self.path} as well, so that nothing '
                'would tell where a caption ends: leave pad_token out, or name another token.'
            )
        return int(self.end_id == 0) if index in (None, self.end_id) else index

    def _read_pad_id(self, token: str | None, side: str) -> int:
        """Id of padding that a tower reads: nothing else may stand in its place."""
        if token is None:
            raise ValueError(
                f'The files beside {self.path} name no pad_token, and padding counts: state the '
                "one that the text tower was trained with, pad_token='...'."
            )
        if side != 'right':
            raise ValueError(
                f'The files beside {self.path} have padding_side {side!r}, and padding counts: '
                'rows of mmslip are padded on the right alone.'
            )
        return self._id(token, 'pad_token')

    def _length(self, given: int | None, stated: int | None) -> int:
        length, least = stated if given is None else given, len(self.before) + len(self.after) + 1
        if length is None:
            raise ValueError(
                f'{self.path} states no length of its rows: set context_length, such as 77.'
            )
        if not isinstance(length, int) or length < least:
            raise ValueError(
                f'context_length must be an integer of at least {least} (one token, and those that '
                f'{self.path} puts around a caption), got {length!r}'
            )
        return length

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.path!r}, context_length={self.context_length})'


class _Loaded(NamedTuple):
    """What the files of a tokeniser say; None of what they do not say."""

    tokenizer: Tokenizer
    vocab_size: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    end_token: str | None
    pad_token: str | None
    padding_side: str
    length: int | None


@lru_cache(maxsize=4)
def _load(path: str) -> _Loaded:
    """The tokeniser of a file, loaded once per process."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f'no tokeniser at {path!r}: give `path` a tokenizer.json or the folder of one. Of a '
            'tokeniser with other files, AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)'
            ' writes it.'
        )
    try:
        tokenizer = Tokenizer.from_file(path)
    except Exception as error:  # the library raises nothing more precise
        raise ValueError(f'{path} is no tokeniser that can be read: {error}') from error
    settings = _settings_beside(Path(path))
    lengths = [(tokenizer.truncation or {}).get('max_length'), settings.get('model_max_length')]
    lengths = [int(length) for length in lengths if length and length < _UNBOUNDED]
    padding = tokenizer.padding or {}
    pad_token = settings.get('pad_token') or padding.get('pad_token')
    side = settings.get('padding_side') or padding.get('direction', 'right')
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # those in a caption are plain text
    vocab = tokenizer.get_vocab()
    return _Loaded(
        tokenizer,
        1 + max(vocab.values()),
        *_frame_of(tokenizer, vocab),
        settings.get('eos_token'),
        pad_token,
        side,
        min(lengths, default=None),
    )


def _settings_beside(path: Path) -> dict[str, Any]:
    """What the files beside a ``tokenizer.json`` say; special tokens as texts."""
    settings = {}
    for name in ('special_tokens_map.json', 'tokenizer_config.json'):
        file = path.with_name(name)
        if file.is_file():
            settings.update(json.loads(file.read_text(encoding='utf-8')))
    return {
        name: value['content'] if isinstance(value, dict) and 'content' in value else value
        for name, value in settings.items()
    }


def _frame_of(
    tokenizer: Tokenizer, vocab: Iterable[str]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that a tokeniser puts before and behind every text."""
    texts = ('a', *vocab)  # not every vocabulary has this letter
    bodies = ((text, tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)
    text, body = next((text, ids) for text, ids in bodies if ids)
    whole = tokenizer.encode(text).ids
    places = (place for place in range(len(whole)) if whole[place : place + len(body)] == body)
    start = next(places)
    return tuple(whole[:start]), tuple(whole[start + len(body) :])
