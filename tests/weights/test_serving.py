"""Infinity serves a folder for Hugging Face, as docs/weights.md describes it."""

import base64
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmslip.apis import EmbeddingInferencer, init_model
from tests.scripts import kill_group, lines_of
from tests.weights.matrix import TEXTS, embed_ours, evaluated_as, export, small, write_images

INFINITY = 'MMSLIP_INFINITY'
DEADLINE = 240  # seconds; it imports PyTorch and transformers, and runs the model to warm up

opener = build_opener(ProxyHandler({}))  # the server is on this machine


@pytest.fixture
def program() -> str:
    """The executable of Infinity, which has an environment of its own."""
    found = os.environ.get(INFINITY) or shutil.which('infinity_emb')
    if found is None:
        pytest.skip(f'{INFINITY} does not name an infinity_emb, and there is none on the path')
    return found


@contextmanager
def infinity(program: str, folder: Path, cache: Path) -> Iterator[str]:
    """Address of a server of the model in a folder, which ends with the block."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [program, 'v2', '--model-id', folder, '--served-model-name', 'slip']
    command += ['--engine', 'torch', '--device', 'cpu', '--no-bettertransformer']
    command += ['--host', '127.0.0.1', '--port', port]
    # Its Python has other versions of the same packages: ours must not be found there.
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    environment.update(DO_NOT_TRACK='1', HF_HUB_OFFLINE='1', HF_HOME=str(cache))
    lines: list[str] = []
    with lines_of(command, env=environment, cwd=cache) as process:
        # Once the pipe was full, the server would wait.
        reader = Thread(target=lambda: lines.extend(process.stdout), daemon=True)
        reader.start()
        address = f'http://127.0.0.1:{port}'
        try:
            wait_for(address, lambda: process.poll() is None)
            yield address
        finally:
            kill_group(process)
            reader.join(10)
            print(''.join(lines))  # pytest shows it where a test fails


def wait_for(address: str, runs: Callable[[], bool]) -> None:
    """Until a server answers; an error if it has ended or does not in time."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            opener.open(f'{address}/health', timeout=5).close()
            return
        except (URLError, TimeoutError):
            assert runs(), 'the server has ended'
            assert time.monotonic() < end, f'the server does not answer after {DEADLINE} s'
            time.sleep(0.2)


def post(address: str, modality: str, inputs: list[str]) -> Tensor:
    """Embeddings that the server gives, one a row, float64."""
    content = json.dumps(dict(model='slip', modality=modality, input=inputs))
    header = {'Content-Type': 'application/json'}
    request = Request(f'{address}/embeddings', content.encode(), header)
    with opener.open(request, timeout=DEADLINE) as answer:
        data = json.load(answer)['data']
    assert [line['index'] for line in data] == [*range(len(inputs))]
    return torch.tensor([line['embedding'] for line in data], dtype=torch.float64)


def assert_served(found: Tensor, wanted: Tensor, apart: list[float]) -> None:
    """Normalised, and from ours no more ``apart``, in 1 - cosine, than given for each."""
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(len(wanted), dtype=torch.float64))
    distance = 1 - F.cosine_similarity(found, wanted.double(), dim=-1)
    print(f'1 - cosine: {distance.tolist()}')
    assert (distance <= torch.tensor(apart, dtype=torch.float64)).all()
    # Or closeness would say nothing.
    assert F.cosine_similarity(wanted[:1], wanted[1:], dim=-1).max() < 0.99


@pytest.mark.slow
def test_infinity(program: str, tmp_path: Path) -> None:
    config = evaluated_as(small('slip/slip_vit-b16_yfcc15m'), 'hugging_face')
    folder, paths = export(config, 'hugging_face', tmp_path), write_images(tmp_path)
    ours = EmbeddingInferencer(init_model(config, tmp_path / 'epoch_1.pth', 'cpu'))
    with torch.no_grad():
        image, text = embed_ours(ours, paths)
    coded = [base64.b64encode(Path(path).read_bytes()).decode() for path in paths]
    with infinity(program, folder, tmp_path) as address:
        found_text = post(address, 'text', TEXTS)
        found_image = post(address, 'image', [f'data:image/png;base64,{x}' for x in coded])
    assert_served(found_text, text, [1e-5] * len(TEXTS))
    # The last image is tall. Pillow 13 resizes its rows first and Pillow 12 its columns, which
    # rounds some pixels to the next grey level: 2e-5 where the two environments have both.
    assert_served(found_image, image, [1e-5, 1e-5, 1e-5, 1e-4])
