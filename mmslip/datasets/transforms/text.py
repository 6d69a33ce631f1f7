"""From captions to token ids."""

import numpy as np
from mmcv.transforms import BaseTransform

from mmslip.registry import TOKENIZERS, TRANSFORMS

__all__ = ['TokenizeCaption', 'TokenizeCaptions']


@TRANSFORMS.register_module()
class TokenizeCaption(BaseTransform):
    """Draw one of a sample's captions and tokenise it: ``text`` -> ``text_ids`` int64 ``(L,)``.

    Args:
        tokenizer: Config of the tokeniser.

    Raises:
        ValueError: The caption is empty.
    """

    def __init__(self, tokenizer: dict | None = None) -> None:
        self.tokenizer = TOKENIZERS.build(tokenizer or dict(type='mmslip.CLIPTokenizer'))

    def transform(self, results: dict) -> dict:
        """Add ``text_ids``, and leave the drawn caption under ``text``."""
        text = results['text']
        if not isinstance(text, str):
            text = text[np.random.randint(len(text))]
        if not text.strip():
            name = results.get('img_name') or results.get('img_path')
            raise ValueError(
                f'The caption of {name} (sample {results.get("sample_idx")}) is empty: an empty '
                'text is the same for every image and teaches nothing. Remove the sample.'
            )
        results.update(text=text, text_ids=self.tokenizer(text)[0])  # (L,)
        return results


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
