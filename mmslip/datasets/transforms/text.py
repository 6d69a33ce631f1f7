"""From captions to token ids."""

import math
from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform, Compose

from mmslip.datasets.text.cleaning import is_blank
from mmslip.registry import TOKENIZERS, TRANSFORMS

__all__ = ['TokenizeCaption', 'TokenizeCaptions']


@TRANSFORMS.register_module()
class TokenizeCaption(BaseTransform):
    """Draw a sample's captions and tokenise them: ``text`` -> ``text_ids`` int64.

    One is drawn at each visit, for ``(L,)``, or ``number`` of them, for ``(number, L)``: as many of
    every image, so that the losses of all processes compare as many. No caption comes again before
    all others of its image have come: of five captions, ``number=5`` takes each, ``number=2``
    different ones, and ``number=7`` each, and two of them twice.

    Args:
        tokenizer: Config of the tokeniser.
        number: Captions of an image at a visit.
        weights: How often captions are drawn, relative to the others of their image, in the order
            of the data set (that of its ``caption_keys``); the last number holds for all that
            follow. ``(3, 1)`` draws the first, three times as often as any other. By default all
            are drawn alike.
        augment: Transforms of the drawn ``text``, a list of captions, such as
            :class:`mmslip.datasets.transforms.DropWords`.

    Raises:
        ValueError: The sample has no caption; or, when built, ``number`` or ``weights`` are not
            usable.
    """

    def __init__(
        self,
        tokenizer: dict | None = None,
        number: int = 1,
        weights: Sequence[float] | None = None,
        augment: Sequence[dict] = (),
    ) -> None:
        if not isinstance(number, int) or number < 1:
            raise ValueError(f'number of TokenizeCaption is {number!r}: take 1 or more captions.')
        if weights is not None and not (
            weights and all(0 < weight < math.inf for weight in weights)
        ):
            raise ValueError(f'weights={weights} of TokenizeCaption must be finite and above zero.')
        self.tokenizer = TOKENIZERS.build(tokenizer or dict(type='mmslip.CLIPTokenizer'))
        self.number = number
        self.weights = weights
        self.augment = Compose(list(augment))

    def transform(self, results: dict) -> dict:
        """Add ``text_ids``, and leave under ``text`` what was drawn, without augmentation."""
        texts = results.get('text') or ''
        texts = self._draw([texts] if isinstance(texts, str) else texts)
        if any(map(is_blank, texts)):
            name = results.get('img_name') or results.get('img_path')
            raise ValueError(
                f'{name} (sample {results.get("sample_idx")}) has no caption: an empty text is the '
                'same for every image and teaches nothing. Remove the sample, or give images '
                'without captions a data set of their own, without TokenizeCaption: docs/data.md.'
            )
        ids = self.tokenizer(self.augment(dict(text=texts))['text'])  # (number, L)
        if self.number == 1:
            texts, ids = texts[0], ids[0]
        results.update(text=texts, text_ids=ids)
        return results

    def _draw(self, texts: Sequence[str]) -> list[str]:
        """``number`` captions; in rounds, each of which takes every caption at most once."""
        shares = None
        if self.weights is not None:
            last = len(self.weights) - 1
            shares = np.array([self.weights[min(place, last)] for place in range(len(texts))])
            shares = shares / shares.sum()
        drawn: list[str] = []
        while (left := self.number - len(drawn)) > 0:
            size = min(left, len(texts))
            # A single draw with replacement is a draw of one number; without, of a permutation.
            places = np.random.choice(len(texts), size, replace=size == 1, p=shares)
            drawn += [texts[place] for place in places]
        return drawn


@TRANSFORMS.register_module()
class TokenizeCaptions(BaseTransform):
    """Tokenise all captions of an image: ``text`` -> ``caption_ids`` int64 ``(n, L)``.

    For retrieval, where every caption counts and their number may differ between images.

    Args:
        tokenizer: Config of the tokeniser.
    """

    def __init__(self, tokenizer: dict | None = None) -> None:
        self.tokenizer = TOKENIZERS.build(tokenizer or dict(type='mmslip.CLIPTokenizer'))

    def transform(self, results: dict) -> dict:
        """Add ``caption_ids``."""
        results['caption_ids'] = self.tokenizer(results['text'])  # (n, L)
        return results
