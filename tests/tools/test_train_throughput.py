"""The benchmark of training steps: what it counts, and that every model takes its steps."""

import argparse
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from tests.scripts import load_script


@pytest.fixture
def tool() -> ModuleType:
    return load_script('benchmarks/train_throughput')


def arguments(tool: ModuleType, monkeypatch: pytest.MonkeyPatch, line: str) -> argparse.Namespace:
    monkeypatch.setattr(sys, 'argv', ['train_throughput.py', *line.split()])
    return tool.parse_args()


def block(width: int, tokens: int, read: int) -> int:
    """FLOPs of a transformer block, twice its multiplications, of which ``read`` tokens go on."""
    projections = 2 * tokens * width**2 + (2 + 8) * read * width**2
    return 2 * (projections + 2 * read * tokens * width)


def test_arithmetic_of_a_step(tool, monkeypatch):
    args = arguments(tool, monkeypatch, '--size tiny --image-size 64 --batch 3 --context 9')
    (width, layers, _), (text_width, text_layers, _), hidden = tool.SIZES['tiny']

    def image(patches: int, kept: int) -> int:
        tokens = 1 + kept
        blocks = (layers - 1) * block(width, tokens, tokens) + block(width, tokens, 1)
        return 2 * patches * 3 * 16**2 * width + blocks

    text = (text_layers - 1) * block(text_width, 9, 9) + block(text_width, 9, 1)
    language = text + 2 * 512 * (width + text_width)
    head = 2 * (width * hidden + hidden**2 + hidden * 256)
    expected = dict(
        clip=image(16, 16) + language,
        slip=3 * image(16, 16) + language + 2 * head,
        slip_cheap=image(16, 8) + 2 * image(4, 2) + language + 2 * head,
        simclr=2 * image(16, 16) + 2 * head,
        open_clip=image(16, 16) + language,
    )
    for name, flops in expected.items():
        assert tool.count_flops(name, args) == 3 * 3 * flops, name


@pytest.mark.parametrize('options', ['', '--amp --channels-last --chunk-size 1'])
def test_every_model_steps(tool, options, monkeypatch, capsys):
    shape = '--size tiny --image-size 32 --batch 2 --context 8 --caption 5'
    names = list(tool.MODELS)
    if importlib.util.find_spec('open_clip') is None:
        names.remove('open_clip')
    line = f'{shape} --rounds 1 --steps 1 --peak-tflops 0.1 {options} --models {" ".join(names)}'
    arguments(tool, monkeypatch, line)
    monkeypatch.setattr(tool.torch, 'set_num_threads', lambda number: None)
    tool.main()
    printed = capsys.readouterr().out
    for name in names:
        assert f'{name} ' in printed
    assert '1.00 (1.00 to 1.00)' in printed


def recording(losses: list[float]) -> Callable:
    """A backward pass that notes the loss."""
    backward = torch.Tensor.backward

    def record(loss: torch.Tensor, *args: object, **options: object) -> None:
        losses.append(loss.item())
        backward(loss, *args, **options)

    return record


def test_a_step_trains(tool, monkeypatch):
    """Ours and open_clip's learn the same batch by heart."""
    args = arguments(
        tool, monkeypatch, '--size tiny --image-size 32 --batch 4 --context 8 --models clip'
    )
    for name in ('clip', 'open_clip'):
        if name == 'open_clip':
            pytest.importorskip('open_clip', reason='open_clip is not installed')
        losses: list[float] = []
        monkeypatch.setattr(torch.Tensor, 'backward', recording(losses))
        torch.manual_seed(0)
        step = tool.build(name, args)
        for _ in range(8):
            step()
        monkeypatch.undo()
        assert losses[-1] < 0.7 * losses[0], name
