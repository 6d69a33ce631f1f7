"""What every tokeniser has: the ids that frame a caption, the size of its rows, its vocabulary."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

__all__ = ['BaseTokenizer']


class BaseTokenizer(ABC):
    """Captions to rows of token ids; what pipelines, evaluation and text towers rely on.

    A row is the ids ``before`` every caption, those of the caption, those ``after`` it, and padding
    up to ``context_length``. A caption that is too long loses its own last ids, never those behind
    it: the last one that is not padding is always the end token.

    Attributes:
        context_length: Number of ids in a row.
        vocab_size: Ids are below it.
        before: Ids in front of every caption.
        after: Ids behind every caption, the end token last.
        pad_id: Fills a row; not the end token, but where a text tower reads the padding.
    """

    context_length: int
    vocab_size: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    pad_id: int

    @property
    def start_id(self) -> int | None:
        """The id in front of every caption; None where there is none."""
        return self.before[0] if self.before else None

    @property
    def end_id(self) -> int:
        """The id of the end token."""
        return self.after[-1]

    @property
    def room(self) -> int:
        """Most ids of its own that a caption keeps."""
        return self.context_length - len(self.before) - len(self.after)

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of one caption alone, without those that frame it, and not cut."""

    @abstractmethod
    def _decode(self, ids: list[int]) -> str:
        """Text of a caption's own ids."""

    def __call__(self, texts: str | Sequence[str]) -> torch.Tensor:
        """Ids of one caption or several.

        Args:
            texts: A caption, or B captions.

        Returns:
            int64 ``(B, context_length)``; B is 1 for one caption.

        Raises:
            TypeError: ``texts`` is neither a text nor a sequence of texts.
        """
        texts = _as_texts(texts)
        # Filling a NumPy array row by row costs a fraction of doing so with a tensor.
        rows = np.full((len(texts), self.context_length), self.pad_id, dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            ids = self._frame(self.encode(text))
            row[: len(ids)] = ids
        return torch.from_numpy(rows)

    def decode(self, ids: torch.Tensor | Sequence[int]) -> str:
        """Text of one row of ids.

        Reading stops at the first end token behind the start, so padding is left out. Bytes that
        form no character become U+FFFD.

        Args:
            ids: ``(L,)``; start token, end token and padding may be there or not.

        Raises:
            ValueError: ``ids`` is not one row, or has an id outside the vocabulary.
        """
        if isinstance(ids, (torch.Tensor, np.ndarray)):
            if ids.ndim != 1:
                raise ValueError(f'decode takes one row of ids, got shape {tuple(ids.shape)}')
            ids = ids.tolist()
        ids = list(ids)
        if tuple(ids[: len(self.before)]) == self.before:
            del ids[: len(self.before)]
        ids = ids[: ids.index(self.after[0])] if self.after[0] in ids else ids
        for index in ids:
            if not 0 <= index < self.vocab_size:
                raise ValueError(f'id {index} is outside the vocabulary of {self.vocab_size}')
        return self._decode(ids)

    def _frame(self, ids: list[int]) -> list[int]:
        """A row without its padding, cut to the context length."""
        return [*self.before, *ids[: self.room], *self.after]


def _as_texts(texts: str | Sequence[str]) -> Sequence[str]:
    """The captions as a sequence; a TypeError names one that is no text."""
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, Sequence) or isinstance(texts, (bytes, bytearray)):
        raise TypeError(f'texts must be a str or a sequence of str, got {type(texts).__name__}')
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f'texts[{position}] must be a str, got {type(text).__name__}')
    return texts
