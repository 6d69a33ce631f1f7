"""Whole runs: reproducible, resumable, testable, in every precision and over processes."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmslip.registry import MODELS
from tests.scripts import environment

ROOT = Path(__file__).parents[1]


def small_config(work_dir: Path, **options: object) -> Config:
    """The emoji job with 32 samples, a tiny model and a log line for each of 2 x 4 steps."""
    cfg = Config.fromfile(ROOT / 'configs' / 'slip' / 'slip_vit-tiny_emoji.py')
    width = 16
    cfg.merge_from_dict(
        {
            'work_dir': str(work_dir),
            # mmengine's visualisers are global by name.
            'experiment_name': f'{work_dir.parent.name}_{work_dir.name}',
            'model.backbone.arch': dict(
                embed_dims=width, num_layers=2, num_heads=2, feedforward_channels=2 * width
            ),
            'model.neck.in_channels': width,
            'model.text_backbone.width': width,
            'model.text_backbone.num_layers': 1,
            'model.text_neck.in_channels': width,
            'model.ssl.neck.in_channels': width,
            'model.ssl.neck.hid_channels': width,
            'train_dataloader.batch_size': 8,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_dataloader.dataset.indices': 32,
            'train_cfg.max_epochs': 2,
            'train_cfg.val_interval': 1,
            'default_hooks.logger.interval': 1,
            # The log shows means over ten steps by default.
            'log_processor': dict(window_size=1),
            'param_scheduler.0.end': 1,
            'param_scheduler.1.begin': 1,
        }
    )
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        for part in loader.dataset.datasets:
            part.indices = 64
    # Dropout makes the random state of the step count.
    cfg.model.backbone.drop_path_rate = 0.2
    cfg.merge_from_dict(options)
    return cfg


def logged(work_dir: Path, key: str = 'loss') -> list[float]:
    """A quantity of every training step, over all runs in a work folder in their order."""
    lines = []
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        lines += map(json.loads, path.read_text().splitlines())
    return [line[key] for line in lines if key in line]


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of an uninterrupted run."""
    work_dir = tmp_path_factory.mktemp('training') / 'straight'
    Runner.from_cfg(small_config(work_dir)).train()
    return work_dir


def test_a_run_leaves_what_it_promises(trained):
    losses = logged(trained)
    assert len(losses) == 8
    assert torch.tensor(losses).isfinite().all()
    for key in ('loss_clip', 'loss_ssl', 'acc_clip', 'acc_ssl', 'logit_scale', 'images_per_s'):
        assert len(logged(trained, key)) == 8, key
    clip, ssl = logged(trained, 'loss_clip'), logged(trained, 'loss_ssl')
    assert losses == pytest.approx([a + b for a, b in zip(clip, ssl, strict=True)], abs=1e-4)
    for task in ('val', 'concepts'):
        assert len(logged(trained, f'zero_shot/{task}_top1')) == 2
    assert list(trained.glob('best_zero_shot_val_top1_epoch_*.pth'))
    assert list(trained.glob('*/vis_data/vis_image/retrieval_val_*.png'))
    assert list(trained.glob('*/vis_data/events.out.tfevents.*'))
    log = next(trained.glob('*/*.log')).read_text()
    assert re.search(r'Done: 8 steps\.\n  best +zero_shot/val_top1 ', log)
    assert 'retrieval_val_8.png' in log


def test_same_seed_same_losses_for_any_number_of_workers(trained, tmp_path):
    work_dir = tmp_path / 'workers'
    cfg = small_config(work_dir, **{'train_dataloader.num_workers': 2})
    Runner.from_cfg(cfg).train()
    assert logged(work_dir) == logged(trained)


def test_another_seed_gives_other_losses(trained, tmp_path):
    work_dir = tmp_path / 'seed'
    Runner.from_cfg(small_config(work_dir, **{'randomness.seed': 1})).train()
    assert logged(work_dir) != logged(trained)


def test_resume_goes_on_with_the_losses_of_an_uninterrupted_run(trained, tmp_path):
    work_dir = tmp_path / 'resumed'
    # The resumed run has no validation between, whose random draws must not matter.
    cfg = small_config(work_dir, resume=True, load_from=str(trained / 'epoch_1.pth'))
    Runner.from_cfg(cfg).train()
    assert logged(work_dir) == logged(trained)[4:]
    straight = torch.load(trained / 'epoch_2.pth', weights_only=True)
    resumed = torch.load(work_dir / 'epoch_2.pth', weights_only=True)
    for name, value in straight['state_dict'].items():
        assert torch.equal(value, resumed['state_dict'][name]), name
    for index, state in straight['optimizer']['state'].items():
        for name, value in state.items():
            assert torch.equal(value, resumed['optimizer']['state'][index][name]), (index, name)


def test_auto_resume_finds_the_last_checkpoint(trained, tmp_path):
    work_dir = tmp_path / 'auto'
    work_dir.mkdir()
    shutil.copy(trained / 'epoch_1.pth', work_dir)
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
    Runner.from_cfg(small_config(work_dir, resume=True)).train()
    assert logged(work_dir) == logged(trained)[4:]


def test_test_reports_the_figures_of_training(trained, tmp_path):
    best = next(trained.glob('best_*.pth'))
    cfg = small_config(tmp_path / 'test', load_from=str(best))
    metrics = Runner.from_cfg(cfg).test()
    assert metrics['zero_shot/val_top1'] == max(logged(trained, 'zero_shot/val_top1'))


def test_load_from_starts_a_new_run_with_the_weights(trained, tmp_path):
    cfg = small_config(tmp_path / 'loaded', load_from=str(trained / 'epoch_2.pth'))
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    assert runner.epoch == 0
    reference = torch.load(trained / 'epoch_2.pth', weights_only=True)['state_dict']
    for name, value in runner.model.state_dict().items():
        assert torch.equal(value, reference[name]), name


def test_the_backbone_loads_into_an_mmpretrain_classifier(trained):
    checkpoint = str(trained / 'epoch_2.pth')
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    classifier = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(
                type='VisionTransformer',
                arch=arch,
                img_size=32,
                patch_size=8,
                init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
            ),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=16),
        )
    )
    classifier.init_weights()
    reference = torch.load(checkpoint, weights_only=True)['state_dict']
    loaded = classifier.backbone.state_dict()
    assert len(loaded) == sum(name.startswith('backbone.') for name in reference)
    for name, value in loaded.items():
        assert torch.equal(value, reference[f'backbone.{name}']), name


def run_tool(*args: object, launcher: tuple = ()) -> str:
    """Run a tool as a user does, on one thread."""
    command = [sys.executable, *launcher, *map(str, args)]
    env = environment(OMP_NUM_THREADS='1')
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.mark.dist
def test_torchrun_with_two_processes_then_test(tmp_path):
    """tools/train.py under torchrun and gloo in bf16, and tools/test.py on what it saved."""
    config, work_dir = tmp_path / 'config.py', tmp_path / 'ddp'
    small_config(work_dir).dump(config)
    torchrun = ('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2')
    train = (ROOT / 'tools' / 'train.py', config, '--launcher', 'pytorch', '--amp')
    run_tool(*train, launcher=torchrun)
    assert (work_dir / 'report.html').is_file()
    losses = logged(work_dir)
    assert len(losses) == 4  # 32 samples / 2 processes / batch 8, two epochs
    assert torch.tensor(losses).isfinite().all()

    out = tmp_path / 'metrics.json'
    run_tool(ROOT / 'tools' / 'test.py', config, work_dir / 'epoch_2.pth', '--out', out)
    tested = json.loads(out.read_text())
    assert len(tested) == 12  # two tasks, top-1 and top-5, each with the ends of its interval
    for name, value in tested.items():
        assert value == pytest.approx(logged(work_dir, name)[-1]), name


@pytest.mark.parametrize('amp', ['fp32', 'bf16'])
def test_a_small_set_is_learned(tmp_path, amp):
    """Eight pairs: the loss halves and accuracy rises far above chance."""
    cfg = small_config(tmp_path / amp, val_cfg=None, val_dataloader=None, val_evaluator=None)
    cfg.train_dataloader.dataset.indices = 8
    evaluation = ('mmslip.ZeroShotHook', 'mmslip.RetrievalPictureHook')
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook.type not in evaluation]
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=100)
    cfg.train_cfg = dict(by_epoch=True, max_epochs=60)
    cfg.param_scheduler = None
    cfg.optim_wrapper.optimizer.lr = 5e-3
    cfg.model.backbone.drop_path_rate = 0.0
    if amp == 'bf16':
        cfg.optim_wrapper.type = 'mmslip.BF16OptimWrapper'
    Runner.from_cfg(cfg).train()
    losses = logged(tmp_path / amp, 'loss_clip')
    assert losses[0] > 1.5
    assert sum(losses[-5:]) / 5 < losses[0] / 2
    accuracies = logged(tmp_path / amp, 'acc_clip')
    assert sum(accuracies[-5:]) / 5 > 40  # chance is 12.5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('amp', ['bf16', 'fp16'])
def test_mixed_precision_on_a_gpu(tmp_path, amp):
    config, work_dir = tmp_path / 'config.py', tmp_path / amp
    small_config(work_dir).dump(config)
    run_tool(ROOT / 'tools' / 'train.py', config, '--amp', amp)
    assert torch.tensor(logged(work_dir)).isfinite().all()
