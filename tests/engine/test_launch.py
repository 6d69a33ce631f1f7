"""Distributed runs on machines without a GPU."""

import os
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from torch import distributed as dist

from mmslip.cli.launch import prepare_environment


@pytest.mark.parametrize('chosen', [None, dict(type='mmslip.FullyShard')])
def test_the_wrapper_of_a_config_stays(monkeypatch, chosen):
    """Processes talk over gloo, and are copies of each other unless the config says otherwise."""
    begun = []
    monkeypatch.setattr(dist, 'init_process_group', begun.append)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.setenv(name, '0')
    cfg = Config(dict(sync_bn='torch', model_wrapper_cfg=chosen))
    prepare_environment(cfg, 'pytorch')
    assert begun == ['gloo']
    assert cfg.launcher == 'pytorch'
    assert cfg.sync_bn is None
    expected = 'MMDistributedDataParallel' if chosen is None else 'mmslip.FullyShard'
    assert cfg.model_wrapper_cfg.type == expected


@pytest.mark.parametrize('stopped', ['', 'raise SystemExit(0)'])
def test_no_thread_of_a_process_group_is_left(stopped):
    """One that outlives Python aborts a process that has done its work."""
    script = f"""
import os
import torch
import torch._dynamo  # there in every training, as mmengine imports it
from mmengine.config import Config
from torch.nn.parallel import DistributedDataParallel
from mmslip.cli.launch import processes

def train():
    model = DistributedDataParallel(torch.nn.Linear(2, 2))
    model.itself = [model]  # a cycle, as a runner and its hooks are
    model(torch.ones(1, 2)).sum().backward()
    print(len(os.listdir('/proc/self/task')))
    {stopped}

try:
    with processes(Config(dict(sync_bn=None)), 'pytorch'):
        train()
finally:
    print(len(os.listdir('/proc/self/task')))
"""
    torchrun = ('-m', 'torch.distributed.run', '--standalone', '--no-python')
    result = subprocess.run(
        [sys.executable, *torchrun, sys.executable, '-c', script],
        env=dict(os.environ, OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = map(int, result.stdout.split())
    assert before > after == 1
