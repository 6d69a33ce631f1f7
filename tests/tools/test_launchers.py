"""The shell launchers hand the right arguments to torchrun, with stubs in the place of Slurm."""

import os
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'

STUBS = {
    'torchrun': 'printf "%s\\n" "$@"',
    # What srun sets on the second of two nodes; its own options are shown too.
    'srun': 'while [ "${1#--}" != "$1" ]; do echo "srun $1"; shift; done; '
    'SLURM_NNODES=2 SLURM_NODEID=1 SLURM_JOB_NODELIST=node[7-8] exec "$@"',
    'scontrol': 'echo node7; echo node8',
}


def launch(folder: Path, script: str, *args: str, **env: str) -> subprocess.CompletedProcess:
    for name, body in STUBS.items():
        path = folder / name
        path.write_text(f'#!/usr/bin/env bash\n{body}\n')
        path.chmod(0o755)
    environment = dict(os.environ, PATH=f'{folder}:{os.environ["PATH"]}', **env)
    return subprocess.run([TOOLS / script, *args], env=environment, capture_output=True, text=True)


def test_dist_train(tmp_path):
    result = launch(tmp_path, 'dist_train.sh', 'c.py', '4', '--amp', 'bf16', MASTER_PORT='12345')
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert '--nproc_per_node=4' in lines
    assert '--nnodes=1' in lines
    assert '--master_port=12345' in lines
    script, *rest = lines[lines.index('--master_port=12345') + 1 :]
    assert Path(script) == TOOLS / 'train.py'
    assert rest == ['c.py', '--launcher', 'pytorch', '--amp', 'bf16']


def test_dist_train_with_restarts(tmp_path):
    """Each host knows whether it is the meeting point; training goes on from its checkpoints."""
    for rank in (0, 1):
        lines = launch(
            tmp_path,
            'dist_train.sh',
            'c.py',
            '4',
            '--amp',
            MAX_RESTARTS='3',
            NNODES='2',
            NODE_RANK=str(rank),
            MASTER_ADDR='node7',
            LOCAL_ADDR='10.0.0.8',
        ).stdout.splitlines()
        assert lines[:7] == [
            '--nnodes=2',
            '--nproc_per_node=4',
            '--max_restarts=3',
            '--rdzv_backend=c10d',
            '--rdzv_endpoint=node7:29500',
            f'--rdzv_conf=is_host={1 - rank}',
            '--local_addr=10.0.0.8',
        ]
        assert lines[8:] == ['c.py', '--launcher', 'pytorch', '--resume', '--amp']


def test_dist_test(tmp_path):
    lines = launch(tmp_path, 'dist_test.sh', 'c.py', 'w.pth', '2').stdout.splitlines()
    assert lines[-5:] == [str(TOOLS / 'test.py'), 'c.py', 'w.pth', '--launcher', 'pytorch']


def test_slurm_train_runs_torchrun_on_each_node(tmp_path):
    result = launch(
        tmp_path,
        'slurm_train.sh',
        'gpu',
        'my job',
        'c.py',
        '--resume',
        GPUS='16',
        SRUN_ARGS='--time=9',
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    for option in ('--partition=gpu', '--job-name=my job', '--nodes=2', '--gres=gpu:8', '--time=9'):
        assert f'srun {option}' in lines
    for option in ('--nnodes=2', '--node_rank=1', '--nproc_per_node=8', '--master_addr=node7'):
        assert option in lines
    assert lines[-4:] == ['c.py', '--launcher', 'pytorch', '--resume']


def test_slurm_test(tmp_path):
    result = launch(tmp_path, 'slurm_test.sh', 'gpu', 'job', 'c.py', 'w.pth', GPUS='2')
    lines = result.stdout.splitlines()
    assert '--nproc_per_node=2' in lines
    assert lines[-4:] == ['c.py', 'w.pth', '--launcher', 'pytorch']


def test_slurm_refuses_uneven_nodes(tmp_path):
    result = launch(tmp_path, 'slurm_train.sh', 'gpu', 'job', 'c.py', GPUS='12', GPUS_PER_NODE='8')
    assert result.returncode == 2
    assert 'GPUS=12 is not a multiple of GPUS_PER_NODE=8' in result.stderr


@pytest.mark.parametrize(
    'script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh']
)
def test_usage_without_arguments(tmp_path, script):
    result = launch(tmp_path, script)
    assert result.returncode == 2
    assert f'tools/{script}' in result.stderr
