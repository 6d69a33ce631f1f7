"""Tokenisers that a text tower would read wrongly, and what says so."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmslip.analysis.config_check import check_config
from mmslip.datasets import CLIPTokenizer, HuggingFaceTokenizer, require_fit, tokenizer_faults
from mmslip.models import (
    HuggingFaceText,
    ModernTextTransformer,
    SigLIPTextTransformer,
    TextTransformer,
)
from tests.text_parts import MODELS, write_tokenizer

SMALL = dict(width=16, num_layers=1, num_heads=2)


def clip(**settings: object) -> TextTransformer:
    return TextTransformer(**{**SMALL, 'vocab_size': 600, 'context_length': 24, **settings})


def test_those_that_fit(tmp_path: Path) -> None:
    pytest.importorskip('transformers')
    assert tokenizer_faults(CLIPTokenizer(24, num_merges=0), clip()) == []
    for kind in ('bert', 'xlm-roberta', 'gpt2', 't5'):
        tokenizer = HuggingFaceTokenizer(write_tokenizer(tmp_path / kind, kind))
        for pooling in ('mean', 'eos', 'cls', 'last'):
            ids = dict(end_id=tokenizer.end_id) if pooling == 'eos' else {}
            tower = HuggingFaceText(config=MODELS[kind], pooling=pooling, **ids)
            assert tokenizer_faults(tokenizer, tower) == []
        assert tokenizer_faults(tokenizer, clip(end_id=tokenizer.end_id)) == []
        modern = ModernTextTransformer(400, pad_id=tokenizer.pad_id, **SMALL)
        assert tokenizer_faults(tokenizer, modern) == []


def test_each_fault_names_both_settings_and_the_remedy(tmp_path: Path) -> None:
    pytest.importorskip('transformers')
    bert = HuggingFaceTokenizer(write_tokenizer(tmp_path / 'bert'))
    xlm = HuggingFaceTokenizer(write_tokenizer(tmp_path / 'xlm', 'xlm-roberta'))
    # The rule of CLIP with another vocabulary: it would read the rarest word of a caption.
    (fault,) = tokenizer_faults(bert, clip(), 'pipeline[2].tokenizer')
    assert fault == (
        "model.text_backbone.end_id = 'highest': the end token of pipeline[2].tokenizer is 3, "
        'below other ids, one of which would be read in its place; set '
        'model.text_backbone.end_id = 3.'
    )
    (fault,) = tokenizer_faults(bert, clip(end_id=7), 'T')
    assert fault == (
        'model.text_backbone.end_id = 7: the end token of T is 3; set '
        'model.text_backbone.end_id = 3.'
    )
    (fault,) = tokenizer_faults(bert, clip(end_id=3, vocab_size=50), 'T')
    size = bert.vocab_size
    assert fault == (
        f'model.text_backbone.vocab_size = 50: T makes ids up to {size - 1}; must be at least '
        f'{size}.'
    )
    (fault,) = tokenizer_faults(bert, clip(end_id=3, context_length=20), 'T')
    assert fault == (
        'T.context_length = 24: is more than the text tower takes '
        '(model.text_backbone.context_length = 20); make them equal.'
    )
    # XLM-R counts positions from 2 on, so 26 of them are for 24 tokens.
    tower = HuggingFaceText(config=MODELS['xlm-roberta'])
    long = HuggingFaceTokenizer(tmp_path / 'xlm', 25)
    (fault,) = tokenizer_faults(long, tower, 'T')
    assert 'T.context_length = 25' in fault
    assert 'context_length = 24' in fault
    (fault,) = tokenizer_faults(bert, tower, 'T')
    assert fault.startswith('model.text_backbone.pad_id = 1: T fills rows with 0, which')
    eos = HuggingFaceText(config=MODELS['gpt2'], pooling='eos')
    (fault,) = tokenizer_faults(xlm, eos, 'T')
    assert 'end_id = 0: the end token of T is 2; set model.text_backbone.end_id = 2.' in fault
    with pytest.raises(ValueError, match=r'do not fit\. model\.text_backbone\.pad_id = 1'):
        require_fit(bert, tower)


def settings(tokenizer: dict, tower: dict, hook: dict | None) -> dict:
    """A config with what the check of tokenisers reads."""
    pipeline = [dict(type='mmslip.TokenizeCaption', tokenizer=tokenizer)]
    return dict(
        default_scope='mmpretrain',
        model=dict(type='mmslip.SLIP', text_backbone=tower),
        train_dataloader=dict(dataset=dict(type='mmslip.TableDataset', pipeline=pipeline)),
        custom_hooks=[dict(type='mmslip.ZeroShotHook', tokenizer=hook)],
    )


def problems(cfg: dict) -> list[str]:
    return [line for line in check_config(Config(cfg)) if 'tokenizer' in line]


def test_it_is_said_before_anything_is_built(tmp_path: Path) -> None:
    pytest.importorskip('transformers')
    folder = str(write_tokenizer(tmp_path))
    mine = dict(type='mmslip.HuggingFaceTokenizer', path=folder)
    tower = dict(type='mmslip.HuggingFaceText', config=MODELS['bert'])
    path = 'train_dataloader.dataset.pipeline[0].tokenizer'
    assert problems(settings(mine, tower, None)) == []
    assert problems(settings(mine, tower, dict(mine, context_length=8))) == []
    (line,) = problems(settings(mine, dict(tower, pad_id=9), None))
    assert line.startswith(f'model.text_backbone.pad_id = 9: {path} fills rows with 0')
    other = dict(type='mmslip.CLIPTokenizer', context_length=24, num_merges=0)
    vocabulary, different = problems(
        settings(mine, dict(tower, config=dict(MODELS['bert'], vocab_size=200)), other)
    )
    assert vocabulary.startswith('model.text_backbone.vocab_size = 200: custom_hooks[0].tokenizer')
    assert different == (
        f'{path}: is another vocabulary than custom_hooks[0].tokenizer; captions and the names of '
        'classes need the same.'
    )
    # The tokeniser that is meant where none is stated.
    lines = problems(settings(None, tower, None))
    assert any(f'{path} makes ids up to 49407' in line for line in lines)


def test_a_tower_that_reads_padding(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path, 'siglip')
    tower = SigLIPTextTransformer(120, 24, **SMALL)
    siglip = HuggingFaceTokenizer(path, padding_counts=True)
    assert siglip.pad_id == siglip.end_id == 1
    assert HuggingFaceTokenizer(path).pad_id == 0
    assert tokenizer_faults(siglip, tower) == []
    assert tokenizer_faults(siglip, clip(end_id=1)) == []  # reads the first of them
    (fault,) = tokenizer_faults(HuggingFaceTokenizer(path, 16, padding_counts=True), tower, 'T')
    assert fault == (
        'T.context_length = 16: the text tower reads whole rows, padding too, of '
        'model.text_backbone.context_length = 24; make them equal.'
    )
    (fault,) = tokenizer_faults(siglip, ModernTextTransformer(120, pad_id=1, **SMALL), 'T')
    assert fault == (
        'model.text_backbone.pad_id = 1: T fills rows with its end token, which the text tower '
        'would mask as well; leave padding_counts out.'
    )
