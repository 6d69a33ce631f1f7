"""Captions with words left out or in another order."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from mmslip.registry import TRANSFORMS

__all__ = ['STOP_WORDS', 'DropStopWords', 'DropWords', 'SwapWords']

# English words that say little about a picture.
STOP_WORDS = frozenset(
    'a about also am an and any are as at be been being but by can could did do does for from had '
    'has have he her here hers him his i if in into is it its itself just me my of on or our ours '
    'she so some such than that the their theirs them then there these they this those to too up '
    'us very was we were what when where which while who whose will with would you your'.split()
)


class _ChangeWords(BaseTransform):
    """Change each caption of ``text``, a caption or a list of them, with probability ``prob``.

    Words stand between white space: a caption in a script without it is one word and stays. One
    that would lose all its words stays as well.

    Args:
        prob: Probability of the change, for each caption by itself.
    """

    def __init__(self, prob: float) -> None:
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Change ``text``."""
        text = results['text']
        one = isinstance(text, str)
        texts = [self._maybe(caption) for caption in ([text] if one else text)]
        results['text'] = texts[0] if one else texts
        return results

    def _maybe(self, caption: str) -> str:
        if np.random.rand() >= self.prob:
            return caption
        return ' '.join(self.change(caption.split())) or caption

    @abstractmethod
    def change(self, words: list[str]) -> list[str]:
        """The words of a changed caption."""


@TRANSFORMS.register_module()
class DropWords(_ChangeWords):
    """Leave words of a caption out at random (Wei and Zou, arXiv 1901.11196).

    Args:
        prob: Probability that a caption is changed.
        share: Probability that a word of it is left out.
    """

    def __init__(self, prob: float = 0.2, share: float = 0.1) -> None:
        super().__init__(prob)
        self.share = share

    def change(self, words: list[str]) -> list[str]:
        """Keep some."""
        kept = np.random.rand(len(words)) >= self.share
        return [word for word, keep in zip(words, kept, strict=True) if keep]


@TRANSFORMS.register_module()
class DropStopWords(_ChangeWords):
    """Leave out all words of a caption that say little: *a*, *of*, *with*.

    Args:
        prob: Probability that a caption is changed; 0.8 to 0.9 in CLIP-Rocket (Fini et al., TMLR
            2023).
        words: Those that are left out, in lower case; :data:`STOP_WORDS`, which are English, by
            default.
    """

    def __init__(self, prob: float = 0.8, words: Sequence[str] | None = None) -> None:
        super().__init__(prob)
        self.words = STOP_WORDS if words is None else frozenset(words)

    def change(self, words: list[str]) -> list[str]:
        """Keep those that say something."""
        return [word for word in words if word.lower().strip('.,;:!?') not in self.words]


@TRANSFORMS.register_module()
class SwapWords(_ChangeWords):
    """Let two random words of a caption change places (Wei and Zou, arXiv 1901.11196).

    Args:
        prob: Probability that a caption is changed; 0.4 in CLIP-Rocket (Fini et al., TMLR 2023).
    """

    def __init__(self, prob: float = 0.4) -> None:
        super().__init__(prob)

    def change(self, words: list[str]) -> list[str]:
        """Exchange two."""
        if len(words) > 1:
            one, other = np.random.choice(len(words), 2, replace=False)
            words[one], words[other] = words[other], words[one]
        return words
