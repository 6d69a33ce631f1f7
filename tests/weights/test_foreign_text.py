"""Models whose text tower or tokeniser is not CLIP's, in a folder of weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmslip.apis import ZeroShotClassificationInferencer, init_model
from mmslip.datasets.text.vocabulary import train_merges
from mmslip.registry import MODELS
from mmslip.weights import export_weights, exportable, import_weights
from mmslip.weights.spec import ForeignText
from mmslip.weights.spec_from_config import spec_from_config
from tests.models.test_text_grid import slip_of
from tests.text_parts import CAPTIONS, write_tokenizer
from tests.text_parts import MODELS as CONFIGS

SMALL = dict(width=16, num_layers=2, num_heads=2)


def config_of(folder: Path, kind: str) -> Config:
    """A config with a tokeniser of its own and the files that it names."""
    tokens = write_tokenizer(folder / 'tokens', 'gpt2' if kind == 'gpt2' else 'bert')
    tokenizer = dict(type='mmslip.HuggingFaceTokenizer', path=str(tokens), context_length=20)
    if kind == 'modern':  # with a table of merges of its own
        train_merges(CAPTIONS * 5, folder / 'own.txt.gz', 60)
        table = str(folder / 'own.txt.gz')
        tokenizer = dict(type='mmslip.CLIPTokenizer', merges_file=table, context_length=20)
    clip = dict(type='mmslip.TextTransformer', vocab_size=400, context_length=20, end_id=3)
    towers = dict(
        clip=dict(clip, **SMALL),
        modern=dict(type='mmslip.ModernTextTransformer', vocab_size=600, **SMALL),
        gpt2=dict(type='mmslip.HuggingFaceText', config=CONFIGS['gpt2'], pooling='eos'),
    )
    if kind == 'bert':
        transformers = pytest.importorskip('transformers')
        config = transformers.AutoConfig.for_model(**CONFIGS['bert'])
        transformers.AutoModel.from_config(config).save_pretrained(folder / 'bert')
        towers['bert'] = dict(type='mmslip.HuggingFaceText', folder=str(folder / 'bert'))
    pipeline = [dict(type='mmslip.TokenizeCaption', tokenizer=tokenizer)]
    return Config(
        dict(
            default_scope='mmpretrain',
            image_size=16,
            model=slip_of(towers[kind]),
            train_dataloader=dict(dataset=dict(type='mmslip.TableDataset', pipeline=pipeline)),
        )
    )


@pytest.mark.parametrize('kind', ['clip', 'modern', 'bert', 'gpt2'])
def test_a_folder_of_weights_holds_all_that_is_needed(kind: str, tmp_path: Path) -> None:
    pytest.importorskip('transformers')
    source = tmp_path / 'source'
    cfg = config_of(source, kind)
    cfg.dump(source / 'mine.py')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), source / 'epoch_1.pth')
    imported = import_weights(source / 'epoch_1.pth', config=source / 'mine.py')
    assert isinstance(imported.spec.text, ForeignText)
    export_weights(imported, tmp_path / 'out')
    image = tmp_path / 'a.png'
    Image.fromarray(np.full((16, 16, 3), 77, np.uint8)).save(image)
    ours = init_model(Config.fromfile(source / 'mine.py'), source / 'epoch_1.pth', 'cpu')
    labels = CAPTIONS[:3]

    def classify(model: object) -> list[dict]:
        (found,) = ZeroShotClassificationInferencer(model)(image, labels, ['{}'], topk=3)
        return found['top']

    expected = classify(ours)
    assert len({top['similarity'] for top in expected}) == 3
    shutil.rmtree(source)
    moved = (tmp_path / 'out').rename(tmp_path / 'moved')
    assert str(tmp_path) not in (moved / 'mmslip.json').read_text()
    assert str(tmp_path) not in (moved / 'config.py').read_text()
    by_config = init_model(str(moved / 'config.py'), str(moved / 'model.safetensors'), 'cpu')
    for loaded in (init_model(moved, device='cpu'), by_config):
        assert [top['label'] for top in classify(loaded)] == [top['label'] for top in expected]
        np.testing.assert_allclose(
            [top['similarity'] for top in classify(loaded)],
            [top['similarity'] for top in expected],
            atol=1e-6,
        )
    # And once more, from the folder.
    again = import_weights(moved)
    export_weights(again, tmp_path / 'twice')
    first, second = (
        json.loads((folder / 'mmslip.json').read_text()) for folder in (moved, tmp_path / 'twice')
    )
    assert first == second


def test_other_libraries_are_refused_before_training(tmp_path: Path) -> None:
    cfg = config_of(tmp_path, 'modern')
    reasons = exportable(cfg)
    assert reasons['mmslip'] is None
    assert reasons['timm'] is None  # the image tower alone
    for name in ('hugging_face', 'open_clip', 'official_slip'):
        assert 'text tower like mmslip.ModernTextTransformer with' in reasons[name]
        assert reasons[name].endswith('convert the model for mmslip.')


def test_a_foreign_tokeniser_on_clips_tower_is_not_lost(tmp_path: Path) -> None:
    cfg = config_of(tmp_path, 'clip')
    del cfg.model.text_backbone['end_id']
    assert isinstance(spec_from_config(cfg).text, ForeignText)
