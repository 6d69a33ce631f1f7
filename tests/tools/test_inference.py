"""The commands of docs/inference.md do what it says, word for word."""

import io
import json
import os
import re
import runpy
import shlex
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
import torch

from mmslip.apis import EmbeddingInferencer, init_model
from mmslip.cli.inference import draw_labels
from tests.conftest import draw_shape

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / 'docs' / 'inference.md').read_text(encoding='utf-8')
BLOCKS = {
    kind: re.findall(rf'^```{kind}\n(.*?)^```', DOCS, re.MULTILINE | re.DOTALL)
    for kind in ('shell', 'python')
}
COMMANDS = [
    line
    for block in BLOCKS['shell']
    for line in block.replace('\\\n', '').splitlines()
    if line.startswith(('python ', 'mmslip ')) and ' web ' not in line  # which test_webpage.py runs
]
CONFIG, CHECKPOINT = 'configs/slip/slip_vit-tiny_emoji.py', 'emoji.pth'


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = init_model(str(ROOT / CONFIG), device='cpu')
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2)
    path = tmp_path_factory.mktemp('weights') / CHECKPOINT
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path) -> Path:
    """A folder with all that the commands name; the current one."""
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(weights, tmp_path)
    (tmp_path / 'photos' / 'new').mkdir(parents=True)
    (tmp_path / 'shards').mkdir()
    for number, name in enumerate(['cat.png', 'new/größe [1].png', 'new/b.png']):
        content = cv2.imencode('.png', draw_shape(number))[1].tobytes()
        (tmp_path / 'photos' / name).write_bytes(content)
        with tarfile.open(tmp_path / 'shards' / f'00{number}.tar', 'w') as archive:
            info = tarfile.TarInfo('a.png')
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    (tmp_path / 'photos' / 'new' / 'broken.jpg').write_bytes(b'no image')
    rows = ''.join(json.dumps(dict(image=name, caption='x')) + '\n' for name in ['cat.png'])
    (tmp_path / 'pairs.jsonl').write_text(rows)
    logs = [dict(epoch=1, iter=n, step=n, time=0.1, lr=1.0, loss_clip=3.0 / n) for n in range(1, 5)]
    (tmp_path / 'log.json').write_text(''.join(json.dumps(log) + '\n' for log in logs))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[[str], str]:
    """Runs a command line as a shell would; returns what it prints."""

    def run_(line: str) -> str:
        program, script, *arguments = shlex.split(line)
        if program == 'mmslip':
            script = f'tools/inference/{script}.py'
        monkeypatch.setattr(sys, 'argv', [script, *arguments])
        monkeypatch.setattr(sys, 'path', [str(Path(script).resolve().parent), *sys.path])
        monkeypatch.setenv('COLUMNS', '200')
        capsys.readouterr()
        runpy.run_path(script, run_name='__main__')
        return capsys.readouterr().out

    return run_


@pytest.mark.parametrize('line', COMMANDS)
def test_commands_of_the_docs(place: Path, run: Callable, line: str) -> None:
    out = run(line)
    files = [word for word in shlex.split(line) if word.endswith(('.png', '.json'))]
    assert all((place / name).is_file() for name in files)
    expected = dict(
        classify=['größe [1].png', 'red heart', 'cannot be read', 'wrote labels.png'],
        search=['3 images; 3 embedded', '1 cannot be read', 'größe [1].png', 'cat.png', '1.000'],
        embed=['1 parts'],
        run_mmpretrain=[],
        get_flops=['text_backbone', 'G multiplications'],
    )
    for word in expected[Path(shlex.split(line)[1]).stem]:
        assert word in out


def test_the_docs_have_commands() -> None:
    assert len(COMMANDS) == 9
    assert len(BLOCKS['python']) == 3


def test_python_of_the_docs(place: Path, capsys: pytest.CaptureFixture) -> None:
    for block in BLOCKS['python']:
        exec(compile(block, 'docs/inference.md', 'exec'), {})
    out = capsys.readouterr().out
    for word in ('broken.jpg', 'new/b.png', 'slip_vit-b16_yfcc15m_100e'):
        assert word in out


def test_results_in_files(place: Path, run: Callable) -> None:
    run(COMMANDS[0])
    results = json.loads(Path('labels.json').read_text(encoding='utf-8'))
    names = ['cat.png', 'b.png', 'broken.jpg', 'größe [1].png']
    assert [Path(result['image']).name for result in results] == names
    assert 'broken.jpg' in results[2]['error']
    assert [len(results[number]['top']) for number in (0, 1, 3)] == [3] * 3
    assert 'größe' in Path('labels.json').read_text(encoding='utf-8')  # no \u escapes
    sheet = mmcv.imread('labels.png', channel_order='rgb')
    columns = sheet.shape[1] // 220
    for number, place in [(0, 0), (2, 1), (1, 3)]:  # pictures in the order of the results
        colour = draw_shape(number)[0, 0, ::-1]
        top, left = (place // columns) * (sheet.shape[0] // 2), place % columns * 220
        tile = sheet[top : top + 240, left : left + 220]
        assert (tile == colour).all(-1).sum() > 1000
    run(COMMANDS[1])
    by_text, _, by_image = json.loads(Path('found.json').read_text(encoding='utf-8'))
    assert by_text['query'] == 'a smiling face'
    assert by_image['hits'][0] == dict(image='cat.png', score=pytest.approx(1, abs=1e-5))
    assert len(by_text['hits']) == 3
    out = run(COMMANDS[1])
    assert '3 images; 0 embedded, 0 recognised, 0 removed, 1 cannot be read' in out


def test_large_pictures_are_shown_small(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((3000, 2000, 3), (0, 0, 255), np.uint8))
    top = [dict(label='$x_{', score=0.5)]
    sheet = draw_labels([dict(image=str(tmp_path / 'a.png'), top=top)] * 3)
    assert sheet.shape[1] == 3 * 220
    assert (sheet == (255, 0, 0)).all(-1).any()


@pytest.mark.parametrize(
    ('command', 'message'),
    [
        (f'classify.py {CONFIG} {CHECKPOINT} none.jpg --labels a b', 'none.jpg'),
        (f'classify.py {CONFIG} none.pth photos --labels a b', 'none.pth'),
        (f'classify.py none {CHECKPOINT} photos --labels a b', 'no config none'),
        (f'classify.py {CONFIG} {CHECKPOINT} photos --labels a', 'two labels'),
        (f'classify.py {CONFIG} {CHECKPOINT} photos --labels a b --out a.txt', 'a.txt must end'),
        (f'classify.py {CONFIG} log.json photos --labels a b', 'log.json'),
        (f'search.py {CONFIG} {CHECKPOINT} empty --text a', 'holds no image'),
        (f'search.py {CONFIG} {CHECKPOINT} none --text a', 'no folder none'),
        (f'search.py {CONFIG} {CHECKPOINT} photos --image none.jpg', 'none.jpg'),
        (f'embed.py {CONFIG} {CHECKPOINT} empty out', 'holds no image'),
        (f'embed.py {CONFIG} {CHECKPOINT} photos photos', 'not empty'),
        (f'embed.py {CONFIG} {CHECKPOINT} x.tar out', 'x.tar'),
    ],
)
def test_errors_end_a_command_with_one_line(place, run, command, message) -> None:
    (place / 'empty').mkdir()
    with pytest.raises(SystemExit) as caught:
        run(f'python tools/inference/{command}')
    assert message in str(caught.value.code)


def test_unknown_tools_of_mmpretrain(place: Path, run: Callable) -> None:
    with pytest.raises(SystemExit, match='analyze_logs'):
        run('python tools/analysis/run_mmpretrain.py nothing')


def test_flops_are_those_counted_by_hand(place: Path, run: Callable) -> None:
    Path('model.py').write_text("_base_ = ['configs/slip/slip_vit-tiny_emoji.py']\n")
    out = run('python tools/analysis/get_flops.py model.py --size 32')
    image, text = tower(tokens=17, width=128, layers=4), tower(tokens=32, width=128, layers=2)
    patches, projections = 16 * 3 * 8 * 8 * 128, 2 * 128 * 128
    found = float(re.search(r'([\d.]+) G multiplications', out)[1])
    assert found == pytest.approx((image + text + patches + projections) / 1e9, rel=1e-3)


def tower(tokens: int, width: int, layers: int) -> int:
    """Multiplications of a transformer whose last layer is asked for one token only."""

    def layer(asked: int) -> int:
        keys_and_values = 2 * tokens * width**2
        # Query, output and both layers of the MLP; both products of the attention; norms at 5 each.
        rest = asked * (1 + 1 + 8) * width**2 + 2 * asked * tokens * width
        return keys_and_values + rest + 5 * (tokens + asked) * width

    return (layers - 1) * layer(tokens) + layer(1) + 5 * width


def test_embeddings_are_the_api_s(place: Path, run: Callable) -> None:
    run(COMMANDS[3])
    EmbeddingInferencer('slip_tiny_emoji', 'pretrained')('photos', 'again', 'npy')
    one, two = np.load('vectors/part-000000.npy'), np.load('again/part-000000.npy')
    assert one.shape == (2, 128)
    assert two.shape == (3, 128)
    np.testing.assert_allclose(one[0], two[0], atol=1e-6)  # shard 000 holds cat.png
    assert os.path.exists('again/bad_images.jsonl')
