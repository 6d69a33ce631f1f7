"""Small tokenisers and text towers of Hugging Face's kinds."""

import json
import re
from pathlib import Path
from string import punctuation

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

CAPTIONS = [
    'a photo of a red dog on the grass, seen from above',
    'two cats sleep on a blue sofa [SEP] and a bird looks at them',
    'ein Hund läuft über die grüne Wiese',
    '一只黑色的狗在草地上',
    'x',
    '',
]
KINDS = ('bert', 'xlm-roberta', 'gpt2', 't5')
_SIZES = dict(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    vocab_size=310,
    max_position_embeddings=26,
)
# Configs of text models, for tokenisers of the same name; ModernBERT's are like BERT's.
MODELS = {
    'bert': dict(model_type='bert', **_SIZES),
    'xlm-roberta': dict(model_type='xlm-roberta', **_SIZES),
    'modernbert': dict(
        model_type='modernbert', pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=2,
        eos_token_id=3, global_attn_every_n_layers=2, local_attention=8, **_SIZES,
    ),
    'gpt2': dict(
        model_type='gpt2', n_embd=16, n_layer=2, n_head=2, n_positions=26, vocab_size=310,
        pad_token_id=1, eos_token_id=0, bos_token_id=0,
    ),
    't5': dict(
        model_type='t5', d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=310
    ),
}  # fmt: skip


def write_tokenizer(folder: Path, kind: str = 'bert') -> Path:
    """A tokeniser trained on the captions, with the special tokens of its kind.

    Args:
        folder: Takes its files.
        kind: One of :data:`KINDS`, or SigLIP's, whose padding counts.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    make = dict(bert=_bert, gpt2=_gpt2, t5=_t5, siglip=_siglip)
    tokenizer, tokens = make.get(kind, _xlm_roberta)()
    tokenizer.save(str(folder / 'tokenizer.json'))
    settings = dict(tokens, tokenizer_class='PreTrainedTokenizerFast', model_max_length=24)
    (folder / 'tokenizer_config.json').write_text(json.dumps(settings))
    return folder


def _bert() -> tuple[Tokenizer, dict]:
    special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    tokenizer = Tokenizer(models.WordPiece(unk_token='[UNK]'))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        CAPTIONS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special)
    )
    tokenizer.post_processor = processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2))
    tokens = dict(pad_token='[PAD]', unk_token='[UNK]', cls_token='[CLS]', sep_token='[SEP]')
    return tokenizer, tokens


def _unigram(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token='<unk>')
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    return tokenizer


def _xlm_roberta() -> tuple[Tokenizer, dict]:
    tokenizer = _unigram(['<s>', '<pad>', '</s>', '<unk>'])
    tokenizer.post_processor = processors.RobertaProcessing(('</s>', 2), ('<s>', 0))
    # Some files hold a token with its settings.
    pad = dict(__type='AddedToken', content='<pad>', lstrip=False, normalized=False)
    return tokenizer, dict(bos_token='<s>', eos_token='</s>', pad_token=pad, unk_token='<unk>')


def _t5() -> tuple[Tokenizer, dict]:
    tokenizer = _unigram(['<pad>', '</s>', '<unk>'])
    tokenizer.post_processor = processors.TemplateProcessing(
        single='$A </s>', special_tokens=[('</s>', 1)]
    )
    return tokenizer, dict(eos_token='</s>', pad_token='<pad>', unk_token='<unk>')


def _siglip() -> tuple[Tokenizer, dict]:
    """T5's, in small letters without punctuation; its end token fills rows, too."""
    tokenizer, _ = _t5()
    steps = [normalizers.Lowercase(), normalizers.Replace(Regex(f'[{re.escape(punctuation)}]'), '')]
    steps += [normalizers.Replace(Regex(r'\s+'), ' '), normalizers.Strip()]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokens = dict(eos_token='</s>', pad_token='</s>', unk_token='<unk>')
    return tokenizer, dict(tokens, model_input_names=['input_ids'])


def _gpt2() -> tuple[Tokenizer, dict]:
    """Adds no token to a text; the end token stands for the pad token, as its users set it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        CAPTIONS,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=['<|endoftext|>'],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return tokenizer, dict.fromkeys(('bos_token', 'eos_token', 'pad_token'), '<|endoftext|>')
