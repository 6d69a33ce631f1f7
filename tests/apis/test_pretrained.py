"""The weights that come with mmslip."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.registry import DefaultScope

import mmslip
from mmslip.evaluation import ClassEmbedder, score_classes
from mmslip.registry import DATASETS, TOKENIZERS

NAME = 'slip_tiny_emoji'
FOLDER = Path(mmslip.__file__).parent / 'weights' / 'pretrained'
CARD = (FOLDER / 'README.md').read_text(encoding='utf-8')


def stated(task: str) -> list[float]:
    """Top-1 and top-5 of a task, in the table of the card."""
    (row,) = re.findall(rf'^\| `{task}`.*$', CARD, flags=re.M)
    top1, top5 = row.strip('| ').split('|')[-2:]
    return [float(top1), float(top5)]


@pytest.mark.parametrize('task', ['val', 'concepts'])
def test_weights_score_what_their_card_states(task: str) -> None:
    model = mmslip.get_model(NAME, pretrained=True, device='cpu')
    cfg = model._config
    (part,) = (part for part in cfg.val_dataloader.dataset.datasets if part.split == task)
    (hook,) = (hook for hook in cfg.custom_hooks if hook['type'] == 'mmslip.ZeroShotHook')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(part)
    embed = ClassEmbedder(TOKENIZERS.build(hook['tokenizer']))
    embeddings = embed(model, {task: (dataset.metainfo['classes'], hook['templates'])})
    batch = default_collate([dataset[index] for index in range(len(dataset))])
    with torch.no_grad():
        samples = model.predict(**{**model.data_preprocessor(batch)})
    score_classes(samples, embeddings)
    scores = torch.stack([sample.pred_score for sample in samples])  # (N, K)
    truth = scores.gather(1, torch.stack([sample.gt_label for sample in samples]))  # (N, 1)
    # As many as stand before the true name; one that scores the same does, too.
    ranks = (scores >= truth).sum(1) - 1
    top = [100 * (ranks < k).double().mean().item() for k in (1, 5)]
    assert top == pytest.approx(stated(task), abs=0.1)


def test_no_two_names_are_equal() -> None:
    """A head reads about one token: with too few, the only one that differs is left out."""
    model = mmslip.get_model(NAME, pretrained=True, device='cpu')
    names = DATASETS.build(dict(type='mmslip.EmojiDataset', split='val')).metainfo['classes']
    (hook,) = (hook for hook in model._config.custom_hooks if hook['type'] == 'mmslip.ZeroShotHook')
    embed = ClassEmbedder(TOKENIZERS.build(hook['tokenizer']))
    embeddings = embed(model, {'val': (names, ['{}'])})['val']  # (1436, D)
    assert (embeddings @ embeddings.T).fill_diagonal_(-1).max() < 0.99999


def test_weights_are_small_and_half() -> None:
    file = FOLDER / f'{NAME}.safetensors'
    assert file.stat().st_size < 8 * 2**20
    weights = mmslip.weights.read_weights(file)
    assert {value.dtype for value in weights.values()} <= {torch.float16, torch.int64}
    assert not any(name.startswith('ssl.') for name in weights)


def test_the_word_pretrained_stands_for_the_file() -> None:
    by_word = mmslip.init_model(NAME, 'pretrained', 'cpu')
    by_file = mmslip.init_model(NAME, FOLDER / f'{NAME}.safetensors', 'cpu')
    for one, other in zip(
        by_word.state_dict().values(), by_file.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match='No weights of slip_vit-b16_cc3m come with mmslip'):
        mmslip.init_model('slip_vit-b16_cc3m', 'pretrained')
