"""``mmslip interpolate``: weights between two trainings, and the choice among them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import pytest
import torch
from safetensors.torch import load_file

from mmslip.analysis.interpolation import Point, best_of, table_of
from mmslip.cli import init, interpolate
from mmslip.registry import MODELS
from mmslip.utils.config import load_config
from mmslip.weights import ModelSpec
from mmslip.weights.interpolate import interpolate_weights
from tests.weights.foreign_models import CLIP, random_slip, save, shake


def test_every_number_lies_between() -> None:
    first = dict(a=torch.tensor([0.0, 2.0]), n=torch.tensor(1), h=torch.ones(2).half())
    second = dict(a=torch.tensor([4.0, 2.5]), n=torch.tensor(9), h=torch.zeros(2).half())
    mixed = interpolate_weights(first, second, 0.25)
    assert mixed['a'].tolist() == [1.0, 2.125]
    assert mixed['n'] == 9
    assert mixed['h'].dtype == torch.float16
    assert mixed['h'].tolist() == [0.75, 0.75]
    assert interpolate_weights(first, second, 0.0)['a'].equal(first['a'])
    assert interpolate_weights(first, second, 1.0)['a'].equal(second['a'])
    for alpha in (-0.1, 1.5, float('nan')):
        with pytest.raises(ValueError, match='not between 0'):
            interpolate_weights(first, second, alpha)


def test_the_best_is_that_of_the_best_mean() -> None:
    points = [Point(0, 10, 50), Point(0.5, 40, 45), Point(0.75, 45, 40), Point(1, 50, 20)]
    assert best_of(points) == points[1]  # of equal means, the smaller change
    table = table_of(points, ['own', 'kept'], points[1]).splitlines()
    assert table[3].split() == '| 0.5 | 40.00 | 45.00 | 42.50 | chosen |'.split()
    assert 'chosen' not in table[2]
    assert best_of([Point(0, 10), Point(1, 20)]).alpha == 1


@pytest.fixture
def root(make_pairs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of CLIP in two states, and an experiment whose pairs judge them."""
    root = make_pairs(48, captions=1)
    monkeypatch.chdir(root)
    save(random_slip(CLIP), CLIP, root / 'before')
    after = shake(MODELS.build(CLIP.model()), seed=5)
    torch.save(dict(state_dict=after.state_dict()), root / 'after.pth')
    init.main(['own', '--data', 'pairs.jsonl', '--from', 'before', '--ssl', 'simclr'])
    return root


def run(*arguments: object) -> None:
    interpolate.main([str(argument) for argument in arguments])


def refusal(*arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    return str(caught.value)


def test_scores_table_plot_and_file(root: Path, capsys: pytest.CaptureFixture) -> None:
    keep = root / 'keep.py'  # the same pairs, under another metric
    keep.write_text("_base_ = ['own.py']\nload_from = None\n")
    arguments = ['before', 'after.pth', '--config', 'own.py', '--keep', keep]
    metric = 'retrieval/held_out_i2t_r5'
    run(*arguments, '--keep-metric', metric, '--alpha', 1, 0, 0.5, '--out', 'mixed')
    said = capsys.readouterr().out
    table = (root / 'mixed' / 'interpolation.md').read_text()
    assert table in said
    head, _, *rows = ([cell.strip() for cell in row.split('|')[1:-1]] for row in table.splitlines())
    own = 'retrieval/held_out_t2i_r5'
    assert head == ['alpha', own, metric, 'mean', '']
    assert [row[0] for row in rows] == ['0', '0.5', '1']
    (chosen,) = [row for row in rows if row[-1] == 'chosen']
    assert float(chosen[3]) == max(float(row[3]) for row in rows)
    assert matplotlib.image.imread('mixed/interpolation.png').shape[2] == 4
    weights = load_file('mixed/model.safetensors')
    before, after = load_file('before/model.safetensors'), torch.load('after.pth')['state_dict']
    expected = interpolate_weights(before, after, float(chosen[0]))
    assert weights.keys() == expected.keys()
    assert all(weights[name].equal(value) for name, value in expected.items())
    assert not list(root.glob('mixed/*/results.jsonl'))  # which is of one model


def test_one_alpha_needs_no_evaluation(root: Path) -> None:
    run('before', 'after.pth', '--alpha', 0.5, '--out', 'half')
    assert [path.name for path in Path('half').iterdir()] == ['model.safetensors']
    before, after = load_file('before/model.safetensors'), torch.load('after.pth')['state_dict']
    half = load_file('half/model.safetensors')['neck.weight']
    torch.testing.assert_close(half, (before['neck.weight'] + after['neck.weight']) / 2)


def test_what_cannot_be_meant(root: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save(dict(state_dict=random_slip(_spec(width=64, heads=1)).state_dict()), 'narrow.pth')
    larger = random_slip(_spec(image_size=48)).state_dict()
    torch.save(dict(state_dict=larger), 'large.pth')
    larger.pop('neck.weight')
    torch.save(dict(state_dict=larger), 'less.pth')
    message = refusal('before', 'narrow.pth', '--alpha', 0.5)
    assert 'weights differ in shape, such as backbone.cls_token: (1, 1, 128) in before' in message
    assert 'mmslip convert before FOLDER --image-size N' in refusal(
        'before', 'large.pth', '--alpha', 0.5
    )
    message = refusal('large.pth', 'less.pth', '--alpha', 0.5)
    assert '1 weights are in one alone, such as neck.weight, which large.pth has' in message
    assert 'There is no checkpoint none.pth' in refusal('before', 'none.pth', '--alpha', 0.5)
    assert 'has no metric retrieval/x: it has retrieval/held' in refusal(
        *('before', 'after.pth', '--config', 'own.py', '--metric', 'retrieval/x')
    )
    for arguments, message in (
        (['a', 'b'], 'without --config nothing is judged'),
        (['a', 'b', '--alpha', 0.5, '--choose', 0.2], '--choose 0.2 is none of --alpha'),
    ):
        refusal(*arguments)
        assert message in capsys.readouterr().err
    assert load_config('own.py').model.ssl  # which the evaluation leaves out


def _spec(**changes: object) -> ModelSpec:
    return replace(CLIP, vision=replace(CLIP.vision, **changes))
