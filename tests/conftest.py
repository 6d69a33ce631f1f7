"""Fixtures that many tests share."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from mmslip.models import SLIP
from tests.installed import Installed, install

SHARED = Path(__file__).parents[2] / 'shared'


@pytest.fixture(scope='session', autouse=True)
def _single_thread() -> None:
    """Keep tests reproducible, cheap, and safe to fork from."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


@pytest.fixture(autouse=True)
def _default_scope() -> Iterator[None]:
    """Resolve unprefixed names as configs do, whatever another test has set."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture(params=['cpu', pytest.param('cuda', marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where a test runs: on the CPU, and once more, marked ``gpu``, on a CUDA device.

    There convolutions take all of float32, which they round (TF32) by default.
    """
    if request.param == 'cpu':
        yield 'cpu'
        return
    if not torch.cuda.is_available():
        pytest.skip('needs a CUDA device')
    rounds = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield 'cuda'
    torch.backends.cudnn.allow_tf32 = rounds


@pytest.fixture(scope='session')
def shared_dir() -> Path:
    """Reference material beside the checkout, which is not part of the project."""
    if not SHARED.is_dir():
        pytest.skip('there is no folder `shared` beside the checkout')
    return SHARED


@pytest.fixture(scope='session')
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel of this checkout in a folder of its own."""
    return install(tmp_path_factory.mktemp('installed'))


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """Address of a server of ``tmp_path``, and the paths that it was asked for."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch_home'))
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=tmp_path)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f'http://127.0.0.1:{server.server_port}', asked
        server.shutdown()
        thread.join()


def draw_shape(number: int) -> np.ndarray:
    """A filled disc or square on a plain ground, BGR uint8; size and colours vary."""
    rng = np.random.default_rng(number)
    height, width = 40 + 7 * (number % 5), 72 - 6 * (number % 4)
    ground, colour = rng.integers(0, 256, (2, 3)).tolist()
    image = np.full((height, width, 3), ground, np.uint8)
    if number % 2:
        cv2.circle(image, (width // 2, height // 2), height // 3, colour, -1)
    else:
        cv2.rectangle(image, (width // 4, height // 4), (width // 2, height // 2), colour, -1)
    return image


@pytest.fixture
def make_pairs(tmp_path: Path) -> Callable[..., Path]:
    """Write pictures ``images/NN.png`` and ``pairs.jsonl``; returns their folder."""

    def make(number: int = 6, captions: int = 2) -> Path:
        (tmp_path / 'images').mkdir()
        lines = []
        for index in range(number):
            name = f'{index:02d}.png'
            cv2.imwrite(str(tmp_path / 'images' / name), draw_shape(index))
            texts = [f'shape {index} told in way {way}' for way in range(captions)]
            lines.append(json.dumps(dict(image=name, caption=texts)) + '\n')
        (tmp_path / 'pairs.jsonl').write_text(''.join(lines), encoding='utf-8')
        return tmp_path

    return make


@pytest.fixture
def make_slip() -> Callable[..., SLIP]:
    """Build a SLIP of two tiny towers, 32-pixel images and 16-token captions."""

    def make(seed: int = 0, **changes: object) -> SLIP:
        torch.manual_seed(seed)
        settings = dict(
            backbone=dict(
                type='mmslip.VisionTransformer',
                arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
                img_size=32,
                patch_size=16,
            ),
            neck=dict(type='mmslip.LinearProjection', out_channels=16),
            text_backbone=dict(
                type='mmslip.TextTransformer',
                context_length=16,
                width=32,
                num_layers=2,
                num_heads=2,
            ),
            text_neck=dict(type='mmslip.LinearProjection', out_channels=16),
            head=dict(type='mmslip.CLIPHead'),
            ssl=dict(
                type='mmslip.SimCLR',
                neck=dict(
                    type='NonLinearNeck',
                    hid_channels=64,
                    out_channels=16,
                    num_layers=3,
                    with_bias=True,
                    with_last_bias=True,
                    with_last_bn=False,
                    with_avg_pool=False,
                    norm_cfg=dict(type='BN1d'),
                ),
                head=dict(type='mmslip.SimCLRHead'),
            ),
        )
        model = SLIP(**{**settings, **changes})
        model.init_weights()
        return model

    return make
