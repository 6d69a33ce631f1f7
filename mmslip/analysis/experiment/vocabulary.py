"""A vocabulary of one's own captions, where CLIP's spells their words in bytes."""

from dataclasses import dataclass
from pathlib import Path

from mmslip.analysis.experiment.survey import Survey
from mmslip.datasets import CLIPTokenizer
from mmslip.datasets.text.vocabulary import MANY_TOKENS, count_words, train_merges

__all__ = ['Vocabulary', 'make_vocabulary']

# Captions that a vocabulary needs, and the most tokens that it may need, as a share of CLIP's.
_FEWEST, _WORTH = 1000, 0.75


@dataclass(frozen=True)
class Vocabulary:
    """A trained table of merges.

    Attributes:
        path: The table.
        size: Ids of its tokeniser.
        tokens: Lengths in tokens of captions that it was not trained on, sorted.
        tokens_a_word: Of the same captions.
    """

    path: Path
    size: int
    tokens: list[int]
    tokens_a_word: float


def make_vocabulary(found: Survey, path: Path) -> tuple[Vocabulary | None, str]:
    """Train a vocabulary on the captions, if CLIP's needs many tokens a word and it is better.

    Every tenth caption is kept from it, by which it is judged.

    Args:
        found: A look at the data.
        path: The table to write.

    Returns:
        The vocabulary, or None; and the reason, empty where CLIP's suits the captions.
    """
    if found.tokens_a_word <= MANY_TOKENS:
        return None, ''
    clip = (
        f"CLIP's vocabulary, made for English, needs {found.tokens_a_word:.1f} tokens a word here"
    )
    if len(found.corpus) < _FEWEST:
        return None, (
            f'{clip}; {len(found.corpus):,} captions are too few to train another ({_FEWEST:,})'
        )
    train_merges((text for place, text in enumerate(found.corpus) if place % 10), path)
    tokenizer, judged = CLIPTokenizer(merges_file=path), found.corpus[::10]
    tokens = sorted(len(tokenizer.encode(text)) for text in judged)
    ours = sum(tokens) / max(sum(map(count_words, judged)), 1)
    if ours > _WORTH * found.tokens_a_word:
        path.unlink()
        return None, f'{clip}; one trained on the captions would need {ours:.1f}'
    return Vocabulary(path, tokenizer.vocab_size, tokens, ours), (
        f'{clip}; one of {tokenizer.num_merges:,} merges, trained on the captions, needs '
        f'{ours:.1f}: {path}'
    )
