"""A vocabulary of own captions goes with the weights, into every folder and back."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmslip.apis import EmbeddingInferencer, init_model
from mmslip.datasets import CLIPTokenizer
from mmslip.datasets.text.vocabulary import OWN_HEADER
from mmslip.utils.config import load_config
from mmslip.weights import ImportedModel, export_weights, exportable, import_weights
from mmslip.weights.formats import FORMATS
from mmslip.weights.spec_from_config import spec_from_config
from tests.weights.foreign_models import CLIP, ROOT, random_slip

TABLE = 'mmslip::emoji/languages_merges.txt.gz'
TEXTS = ['Katzengesicht', 'हाथी का चेहरा, 2', 'ليمون', 'แมวหน้ายิ้ม', '猫咪的脸', "it's a cat"]
MERGES, LENGTH = 3000, 20
OWN = dict(vocab_size=514 + MERGES, context_length=LENGTH, merges_file=TABLE)
SPEC = replace(CLIP, text=replace(CLIP.text, **OWN))


def expected_ids() -> torch.Tensor:
    ids = CLIPTokenizer(LENGTH, merges_file=TABLE, num_merges=MERGES)(TEXTS)
    # What the tower would get if the table were forgotten.
    assert not ids.equal(CLIPTokenizer(LENGTH, num_merges=MERGES)(TEXTS))
    return ids


@pytest.mark.parametrize('library', ['mmslip', 'hugging_face', 'open_clip'])
def test_folders_are_complete(library: str, tmp_path: Path) -> None:
    model = random_slip(SPEC)
    first, second = tmp_path / 'first', tmp_path / 'second'
    imported = ImportedModel(model.state_dict(), SPEC, FORMATS['mmslip'], [])
    export_weights(imported, first, library)
    export_weights(import_weights(first), second, library)  # of a copy
    lines = (second / 'merges.txt').read_text(encoding='utf-8').splitlines()
    assert (lines[0], len(lines)) == (OWN_HEADER, 1 + MERGES)
    (first / 'merges.txt').unlink()
    bare = first.rename(tmp_path / 'bare')  # a name that no tokeniser was loaded by
    inferencer = EmbeddingInferencer(init_model(second, device='cpu'))
    assert inferencer.tokenizer(TEXTS).equal(expected_ids())
    if library == 'mmslip':
        hooks = Config.fromfile(second / 'config.py').custom_hooks
        assert hooks[0].tokenizer.merges_file == f'{second}/merges.txt'
        with pytest.raises(FileNotFoundError, match='no merges table at'):
            EmbeddingInferencer(init_model(bare, device='cpu'))
        return
    transformers = pytest.importorskip('transformers')
    theirs = transformers.AutoTokenizer.from_pretrained(second)
    end = OWN['vocab_size'] - 1
    for text, row in zip(TEXTS, expected_ids().tolist(), strict=True):
        assert theirs(text)['input_ids'] == row[: row.index(end) + 1]


def test_a_config_states_it() -> None:
    config = load_config(ROOT / 'configs' / 'slip' / 'slip_vit-b16_yfcc15m.py')
    config.model.text_backbone.update(vocab_size=16514, quick_gelu=True)
    config.train_dataloader.dataset.pipeline[2].tokenizer.merges_file = TABLE
    text = spec_from_config(config).text
    assert (text.tokenizer, text.merges_file) == (None, TABLE)
    assert exportable(config)['hugging_face'] is None
