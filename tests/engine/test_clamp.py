"""The logit scale that is saved, averaged and used next is within its bound."""

import math

import pytest
import torch
from mmengine.runner import Runner

from tests.test_training import logged, small_config

BOUND = math.log(100)


@pytest.mark.parametrize(('start', 'maximize'), [(0.0101, True), (0.99, False)])
def test_what_is_saved_is_within_bounds(start, maximize, tmp_path):
    """A step beyond the bound, towards either side, is taken back before anything reads it."""
    cfg = small_config(tmp_path / 'run', param_scheduler=None)
    cfg.model.head.init_temperature = start
    cfg.optim_wrapper.optimizer.lr = 1.0  # of AdamW: the first steps are about this long
    cfg.optim_wrapper.optimizer.update(weight_decay=0.0, maximize=maximize)
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='EMAHook')]
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint.pop('save_best')
    Runner.from_cfg(cfg).train()
    saved = torch.load(tmp_path / 'run' / 'epoch_2.pth', weights_only=True)
    values = [saved['state_dict']['head.logit_scale'].item()]
    values.append(saved['ema_state_dict']['module.head.logit_scale'].item())
    values += [math.log(value) for value in logged(tmp_path / 'run', 'logit_scale')]
    assert all(-1e-5 <= value <= BOUND + 1e-5 for value in values)
    # The run did meet the bound.
    assert min(min(abs(value), abs(value - BOUND)) for value in values[2:]) < 1e-5


def test_averages_of_a_file_are_brought_back(tmp_path):
    """Such as of a run of an older version, which saved values beyond the bound."""
    cfg = small_config(tmp_path / 'run', param_scheduler=None)
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='EMAHook')]
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint.pop('save_best')
    Runner.from_cfg(cfg).train()
    path = tmp_path / 'run' / 'epoch_2.pth'
    places = dict(state_dict='head.logit_scale', ema_state_dict='module.head.logit_scale')
    saved = torch.load(path, weights_only=True)
    for key, name in places.items():
        saved[key][name].fill_(4.655)
    torch.save(saved, path)
    cfg.update(resume=True, load_from=str(path), work_dir=str(tmp_path / 'on'))
    cfg.train_cfg.max_epochs = 3
    cfg.experiment_name = f'{tmp_path.name}_on'
    Runner.from_cfg(cfg).train()
    saved = torch.load(tmp_path / 'on' / 'epoch_3.pth', weights_only=True)
    for key, name in places.items():
        assert saved[key][name].item() <= BOUND + 1e-6
