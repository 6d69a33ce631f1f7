"""Uploading a folder: to a hub on this machine, which takes what `huggingface_hub` sends."""

import base64
import hashlib
import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from mmslip.cli import push
from mmslip.weights import ImportedModel, export_weights, import_weights
from mmslip.weights.formats import FORMATS
from tests.weights.foreign_models import CLIP, assert_same, random_slip

pytest.importorskip('huggingface_hub')
TOKEN = 'hf_of_the_test'


class Hub(ThreadingHTTPServer):
    """A model hub with one repository."""

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), Answer)
        self.address = f'http://127.0.0.1:{self.server_port}'
        self.large: dict[str, bytes] = {}  # by SHA-256
        self.files: dict[str, bytes] = {}
        self.made: list[dict] = []
        self.message = None


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, content: object, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        if self.headers.get('Transfer-Encoding') != 'chunked':
            return self.rfile.read(int(self.headers.get('Content-Length', 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b''.join(parts)

    def do_GET(self) -> None:
        self.answer(dict(error='there is none'), 404)

    def do_PUT(self) -> None:
        content = self.body()
        digest = hashlib.sha256(content).hexdigest()
        assert self.path == f'/lfs/{digest}'
        self.server.large[digest] = content
        self.answer({})

    def do_POST(self) -> None:
        hub, path = self.server, self.path.partition('?')[0]
        body = self.body()
        if self.headers['Authorization'] != f'Bearer {TOKEN}':
            self.answer(dict(error='no'), 401)
        elif path == '/api/repos/create':
            hub.made.append(json.loads(body))
            self.answer(dict(url=f'{hub.address}/me/slip', id='me/slip'))
        elif path == '/api/validate-yaml':
            self.answer(dict(errors=[], warnings=[]))
        elif path == '/api/models/me/slip/preupload/main':
            names = [file['path'] for file in json.loads(body)['files']]
            modes = {name: 'lfs' if name.endswith('.safetensors') else 'regular' for name in names}
            files = [dict(path=n, uploadMode=modes[n], shouldIgnore=False) for n in names]
            self.answer(dict(files=files))
        elif path == '/me/slip.git/info/lfs/objects/batch':
            objects = [
                dict(wanted, actions=dict(upload=dict(href=f'{hub.address}/lfs/{wanted["oid"]}')))
                for wanted in json.loads(body)['objects']
            ]
            self.answer(dict(transfer='basic', objects=objects))
        elif path == '/api/models/me/slip/commit/main':
            for line in map(json.loads, body.splitlines()):
                value = line['value']
                if line['key'] == 'header':
                    hub.message = value['summary']
                elif line['key'] == 'file':
                    hub.files[value['path']] = base64.b64decode(value['content'])
                elif line['key'] == 'lfsFile':
                    hub.files[value['path']] = hub.large[value['oid']]
            url = f'{hub.address}/me/slip/commit/1'
            self.answer(dict(success=True, commitOid='1', commitUrl=url))
        else:
            self.answer(dict(error=f'no {path}'), 404)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv('HF_ENDPOINT', server.address)
    monkeypatch.setenv('HF_TOKEN', TOKEN)
    # Chunks of large files would go to a server of another protocol.
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_DISABLE_XET', True)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope='module')
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('weights') / 'slip'
    weights = random_slip(CLIP).state_dict()
    export_weights(ImportedModel(weights, CLIP, FORMATS['mmslip'], []), folder, 'hugging_face')
    return folder


def test_push(hub: Hub, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (written / '.cache').mkdir()
    (written / '.cache' / 'note').write_text('mine')
    push.main([str(written), 'me/slip', '--private', '--message', 'first'])
    (made,) = hub.made
    assert made['name'] == 'slip'
    assert hub.message == 'first'
    assert hub.files == {path.name: path.read_bytes() for path in written.iterdir() if path.suffix}
    assert {'config.json', 'model.safetensors', 'README.md', 'tokenizer.json'} <= hub.files.keys()
    shown = capsys.readouterr().out
    assert f'Uploaded: {hub.address}/me/slip\n' in shown
    assert 'README.md states no license' in shown
    # What arrived is the model, and the card may state a licence.
    for name, content in hub.files.items():
        (tmp_path / name).write_bytes(content)
    assert_same(import_weights(tmp_path).weights, import_weights(written).weights)
    card = (tmp_path / 'README.md').read_text()
    (tmp_path / 'README.md').write_text(card.replace('---\n', '---\nlicense: mit\n', 1))
    push.main([str(tmp_path), 'me/slip'])
    assert 'license' not in capsys.readouterr().out
    assert b'\nlicense: mit\n' in hub.files['README.md']


@pytest.mark.parametrize('missing', ['README.md', 'tokenizer.json', 'preprocessor_config.json'])
def test_a_folder_that_is_not_whole_stays(
    missing: str, hub: Hub, written: Path, tmp_path: Path
) -> None:
    shutil.copytree(written, tmp_path / 'part')
    (tmp_path / 'part' / missing).unlink()
    with pytest.raises(SystemExit, match=rf'part lacks {missing}, .* write it anew'):
        push.main([str(tmp_path / 'part'), 'me/slip'])
    assert not hub.made


def test_what_is_no_folder_of_weights(hub: Hub, written: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r'There is no folder .*: write one by `mmslip convert'):
        push.main([str(tmp_path / 'none'), 'me/slip'])
    with pytest.raises(SystemExit, match=r'no whole folder of weights: .* holds none of'):
        push.main([str(tmp_path), 'me/slip'])
    shutil.copytree(written, tmp_path / 'cut')
    whole = (written / 'model.safetensors').read_bytes()
    (tmp_path / 'cut' / 'model.safetensors').write_bytes(whole[:-100])
    with pytest.raises(SystemExit, match=r'no whole folder of weights: .* damaged'):
        push.main([str(tmp_path / 'cut'), 'me/slip'])
    assert not hub.made


def test_tokens(hub: Hub, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HF_TOKEN', 'hf_another')
    with pytest.raises(SystemExit, match='does not take me/slip: it does not know the token'):
        push.main([str(written), 'me/slip'])
    monkeypatch.setattr('huggingface_hub.get_token', lambda: None)
    with pytest.raises(SystemExit, match='no token that may write: run `hf auth login`'):
        push.main([str(written), 'me/slip'])
    assert not hub.files


def test_no_hub(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HF_TOKEN', TOKEN)
    monkeypatch.setenv('HF_ENDPOINT', 'http://127.0.0.1:9')
    with pytest.raises(SystemExit, match=r'http://127\.0\.0\.1:9 cannot be reached: '):
        push.main([str(written), 'me/slip'])
