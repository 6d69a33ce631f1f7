"""The tokeniser of a text tower as the files that Hugging Face's libraries read."""

import json

from ftfy.chardata import CONTROL_CHARS, DOUBLE_QUOTE_RE, LIGATURES, SINGLE_QUOTE_RE, WIDTH_MAP
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors

from mmslip.datasets import BaseTokenizer, CLIPTokenizer, HuggingFaceTokenizer
from mmslip.datasets.text.vocabulary import OWN_HEADER
from mmslip.registry import TOKENIZERS
from mmslip.weights.spec import MERGES_NAME, ForeignText, TextSpec

__all__ = ['merges_of', 'tokenizer_files', 'tokenizer_of']

_START, _END = '<|startoftext|>', '<|endoftext|>'
# The HTML that captions of the web are full of; "&" first, as they are unescaped twice.
_HTML = (('&amp;', '&'), ('&amp;', '&'), ('&lt;', '<'), ('&gt;', '>'), ('&quot;', '"'))
_HTML += (('&#39;', "'"), ('&apos;', "'"), ('&nbsp;', ' '))


def tokenizer_of(text: TextSpec | ForeignText) -> CLIPTokenizer:
    """The tokeniser of a text tower: CLIP's, with as many merges as the vocabulary has, or an own.

    Raises:
        ValueError: Tower or tokeniser is another one.
    """
    if isinstance(text, ForeignText):
        raise ValueError(
            f'Other libraries have no text tower like {text.tower["type"]} with {text.tokenizer}: '
            'convert the model for mmslip.'
        )
    if text.tokenizer is not None:
        raise ValueError(
            f'The tokeniser {text.tokenizer} of the text tower cannot be written for other '
            'libraries: train with mmslip.CLIPTokenizer.'
        )
    if text.merges_file is not None:
        return TOKENIZERS.build(text.own_tokenizer())
    merges = CLIPTokenizer.merges_of(text.vocab_size)
    if merges is None:
        raise ValueError(
            f'No tokeniser is known for a text tower of {text.vocab_size} ids: those of '
            'mmslip.CLIPTokenizer have 514 (num_merges=0) to 49408.'
        )
    return CLIPTokenizer(text.context_length, num_merges=merges)


def tokenizer_files(tokenizer: BaseTokenizer) -> dict[str, str]:
    """Text files for ``AutoTokenizer.from_pretrained``, by name.

    Ids are those of ``tokenizer``, and a text that is cut keeps its end. Those of CLIP's are padded
    with the end-of-text token: the first one is read, and none behind it reaches it. Of its
    cleaning of captions, the repair of wrongly decoded text and rare HTML entities have no
    counterpart.

    Raises:
        ValueError: The tokeniser is none that other libraries can read.
    """
    if isinstance(tokenizer, CLIPTokenizer):
        return _clip_files(tokenizer)
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return _hugging_face_files(tokenizer)
    raise ValueError(
        f'The tokeniser is a {type(tokenizer).__name__}, which cannot be written for other '
        'libraries: train with mmslip.CLIPTokenizer or mmslip.HuggingFaceTokenizer.'
    )


def _clip_files(tokenizer: CLIPTokenizer) -> dict[str, str]:
    backend = Tokenizer(tokenizer.bpe.model)
    backend.normalizer = _normalizer()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(tokenizer.word), 'removed', invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = tokenizer.bpe.decoder
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in (_START, _END)])
    backend.post_processor = processors.RobertaProcessing(
        (_END, tokenizer.end_id), (_START, tokenizer.start_id), False, False
    )
    special = dict(bos_token=_START, eos_token=_END, pad_token=_END, unk_token=_END)
    files = _files_of(backend, tokenizer.context_length, special)
    vocab = json.loads(files['tokenizer.json'])['model']['vocab']
    files['vocab.json'] = json.dumps(vocab, ensure_ascii=False)
    files[MERGES_NAME] = merges_of(tokenizer)
    return files


def _hugging_face_files(tokenizer: HuggingFaceTokenizer) -> dict[str, str]:
    """The file it was read from, with what frames a caption and the length of its rows."""
    backend = Tokenizer.from_str(tokenizer.tokenizer.to_str())
    before = [backend.id_to_token(index) for index in tokenizer.before]
    after = [backend.id_to_token(index) for index in tokenizer.after]
    ids = {*tokenizer.before, *tokenizer.after}
    backend.post_processor = processors.TemplateProcessing(
        single=[*before, '$A', *after],
        special_tokens=[(backend.id_to_token(index), index) for index in sorted(ids)],
    )
    special = dict(eos_token=after[-1], pad_token=backend.id_to_token(tokenizer.pad_id))
    if before:
        special['bos_token'] = before[0]
    return _files_of(backend, tokenizer.context_length, special, not tokenizer.padding_counts)


def _files_of(
    backend: Tokenizer, length: int, special: dict[str, str], masked: bool = True
) -> dict[str, str]:
    """The files of a tokeniser that cuts texts to a length; ``masked`` says whether padding is."""
    backend.enable_truncation(length)
    settings = dict(
        tokenizer_class='PreTrainedTokenizerFast',
        model_max_length=length,
        # CLIPModel takes no others; given a mask, SiglipModel would leave out the padding.
        model_input_names=['input_ids', *['attention_mask'] * masked],
        padding_side='right',
        truncation_side='right',
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # spelled out in a caption, they are plain text
        **special,
    )
    return {
        'tokenizer.json': backend.to_str(),
        'special_tokens_map.json': json.dumps(special, indent=2) + '\n',
        'tokenizer_config.json': json.dumps(settings, indent=2) + '\n',
    }


def merges_of(tokenizer: CLIPTokenizer) -> str:
    """Content of the file of merges: by its first line, mmslip knows its own on import."""
    merges = json.loads(tokenizer.bpe.to_str())['model']['merges']
    header = OWN_HEADER if tokenizer.own else '#version: 0.2'
    return '\n'.join([header, *(' '.join(pair) for pair in merges)]) + '\n'


def _normalizer() -> normalizers.Normalizer:
    """As :func:`mmslip.datasets.text.cleaning.clean`, as far as rules for characters can."""
    controls = ''.join(f'\\x{{{code:x}}}' for code in CONTROL_CHARS if CONTROL_CHARS[code] is None)
    same = {**LIGATURES, **WIDTH_MAP}
    return normalizers.Sequence(
        [
            *(normalizers.Replace(old, new) for old, new in _HTML),
            normalizers.Replace(Regex(f'[{controls}]'), ''),
            normalizers.Replace(Regex(SINGLE_QUOTE_RE.pattern), "'"),
            normalizers.Replace(Regex(DOUBLE_QUOTE_RE.pattern), '"'),
            *(normalizers.Replace(chr(code), text) for code, text in same.items()),
            normalizers.NFC(),
            normalizers.Replace(Regex(r'\s+'), ' '),
            normalizers.Strip(),
            normalizers.Lowercase(),
        ]
    )
