"""Two hosts, each a network namespace: one dies in mid-epoch, comes back, and nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLES, BATCH, EPOCHS = 40, 2, 2  # of each process; an epoch has 10 steps
STEPS = SAMPLES // (2 * BATCH) * EPOCHS

CONFIG = """
_base_ = [{base!r}]
custom_imports = dict(imports=['mmslip.engine', 'pace'])
size = 32
tower = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
model = dict(
    type='mmslip.SLIP',
    backbone=dict(
        type='mmslip.VisionTransformer',
        arch=tower,
        img_size=size,
        patch_size=16,
        drop_path_rate=0.2,
    ),
    neck=dict(type='mmslip.LinearProjection', in_channels=32, out_channels=16),
    text_backbone=dict(
        type='mmslip.TextTransformer', context_length=16, width=32, num_layers=2, num_heads=2
    ),
    text_neck=dict(type='mmslip.LinearProjection', in_channels=32, out_channels=16),
    head=dict(type='mmslip.CLIPHead'),
)
pipeline = [
    dict(type='mmslip.LoadImage'),
    dict(type='mmslip.SLIPViews', size=size, image_crop=(0.08, 1.0), ssl_views=0),
    dict(
        type='mmslip.TokenizeCaption',
        tokenizer=dict(type='mmslip.CLIPTokenizer', context_length=16),
    ),
    dict(type='mmslip.PackSLIPInputs'),
]
train_dataloader = dict(
    batch_size={batch},
    num_workers=0,
    sampler=dict(type='mmslip.VisitSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmslip.ImageTextDataset',
        ann_file={data!r} + '/pairs.jsonl',
        data_prefix=dict(img_path={data!r} + '/images'),
        pipeline=pipeline,
    ),
)
train_cfg = dict(by_epoch=True, max_epochs={epochs})
optim_wrapper = dict(
    constructor='mmslip.NoDecay1dOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.1),
)
default_hooks = dict(
    checkpoint=dict(_delete_=True, type='CheckpointHook', by_epoch=False, interval=3),
    pace=dict(type='Pace'),
)
visualizer = dict(vis_backends=[])
"""

# A step takes long enough to be interrupted, and leaves its loss.
PACE = """
import json
import time
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class Pace(Hook):
    priority = 'HIGH'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        record = dict(rank=get_rank(), step=runner.iter + 1, loss=outputs['loss'].item().hex())
        with open(Path(runner.work_dir, 'trace.jsonl'), 'a') as file:
            file.write(json.dumps(record) + '\\n')
        time.sleep(0.3)
"""


def ip(*args: str) -> None:
    subprocess.run(['ip', *args], check=True, capture_output=True, text=True)


class Host:
    """A network namespace with one address."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f'mmslip-{os.getpid()}-{number}'
        self.link = f'mms{os.getpid() % 10**7}-{number}'
        self.address = f'10.201.7.{number + 1}'

    def connect(self) -> None:
        """Bring up its end of the cable."""
        ip('link', 'set', self.link, 'netns', self.name)
        ip('-n', self.name, 'addr', 'add', f'{self.address}/24', 'dev', self.link)
        ip('-n', self.name, 'link', 'set', 'lo', 'up')
        ip('-n', self.name, 'link', 'set', self.link, 'up')

    def train(self, config: Path, work_dir: Path, first: 'Host') -> subprocess.Popen:
        """Command that a person types on this host."""
        env = environment(config.parent)
        env.update(
            NNODES='2',
            NODE_RANK=str(self.number),
            MASTER_ADDR=first.address,
            LOCAL_ADDR=self.address,
            MAX_RESTARTS='3',
            GLOO_SOCKET_IFNAME=self.link,
        )
        command = [ROOT / 'tools' / 'dist_train.sh', config, '1', '--work-dir', work_dir]
        with open(work_dir.with_name(f'host{self.number}.log'), 'a') as log:
            return subprocess.Popen(
                ['ip', 'netns', 'exec', self.name, *command], env=env, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """Every process at once."""
        listing = subprocess.run(
            ['ip', 'netns', 'pids', self.name], capture_output=True, text=True, check=True
        )
        for pid in listing.stdout.split():
            os.kill(int(pid), signal.SIGKILL)


def environment(plugins: Path) -> dict:
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    return dict(os.environ, PATH=path, PYTHONPATH=f'{ROOT}:{plugins}', OMP_NUM_THREADS='1')


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """Two hosts and the cable between them."""
    pair = [Host(0), Host(1)]
    try:
        for host in pair:
            ip('netns', 'add', host.name)
        ip('link', 'add', pair[0].link, 'type', 'veth', 'peer', 'name', pair[1].link)
        for host in pair:
            host.connect()
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, 'stderr', None) or error
        remove(pair)
        pytest.skip(f'no network namespaces here: {reason}')
    yield pair
    for host in pair:
        host.kill()
    remove(pair)


def remove(hosts: list[Host]) -> None:
    for host in hosts:
        # With its namespace the cable goes as well.
        subprocess.run(['ip', 'netns', 'del', host.name], capture_output=True)


def read(work_dir: Path) -> list[tuple[int, int, str]]:
    path = work_dir / 'trace.jsonl'
    lines = path.read_text().splitlines() if path.exists() else []
    return [tuple(json.loads(line).values()) for line in lines]


def wait_for(path: Path, processes: list[subprocess.Popen], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert all(process.poll() is None for process in processes), 'a host has given up'
        assert time.monotonic() < end, f'{path.name} does not come'
        time.sleep(0.02)


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.skipif('MMSLIP_SLOW_TESTS' not in os.environ, reason='takes more than a minute')
def test_a_host_dies_and_comes_back(make_pairs, hosts, tmp_path):
    data = make_pairs(SAMPLES)
    (tmp_path / 'pace.py').write_text(PACE)
    config = tmp_path / 'two_hosts.py'
    base = str(ROOT / 'configs' / '_base_' / 'default_runtime.py')
    config.write_text(CONFIG.format(base=base, batch=BATCH, data=str(data), epochs=EPOCHS))

    # Undisturbed, and two processes of one host.
    quiet = tmp_path / 'quiet'
    command = [ROOT / 'tools' / 'dist_train.sh', config, '2', '--work-dir', quiet]
    env = dict(environment(tmp_path), MASTER_PORT='29517')
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    undisturbed = {(rank, step): loss for rank, step, loss in read(quiet)}
    assert set(undisturbed) == {(rank, step) for rank in (0, 1) for step in range(1, STEPS + 1)}

    work_dir = tmp_path / 'disturbed'
    first, second = hosts
    processes = [host.train(config, work_dir, first) for host in hosts]
    wait_for(work_dir / 'iter_6.pth', processes)
    # As if without power: the other host hears nothing, not even that connections have ended.
    ip('-n', second.name, 'link', 'set', second.link, 'down')
    second.kill()
    processes[1].wait()
    before = read(work_dir)
    time.sleep(2)
    ip('-n', second.name, 'link', 'set', second.link, 'up')
    processes[1] = second.train(config, work_dir, first)
    for process in processes:
        assert process.wait(timeout=240) == 0, (tmp_path / 'host0.log').read_text()[-3000:]

    trace = read(work_dir)
    last = max(step for _, step, _ in before)
    assert 6 <= last < STEPS // EPOCHS  # it was in mid-epoch
    again = trace[len(before) :]
    assert 6 <= min(step for _, step, _ in again) - 1 <= last  # from a checkpoint, not from scratch
    assert {(rank, step) for rank, step, _ in trace} == set(undisturbed)
    assert all(loss == undisturbed[rank, step] for rank, step, loss in trace)  # bit for bit
