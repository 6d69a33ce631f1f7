"""Distributed runs on machines without a GPU."""

import pytest
import torch
from mmengine.config import Config
from torch import distributed as dist

from mmslip.engine.launch import prepare_environment


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
