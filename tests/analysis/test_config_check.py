"""A config is checked before anything is built: each kind of fault is named by its key."""

import re
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from mmslip.analysis.config_check import RUNNER_SETTINGS, check_config
from mmslip.cli import config as cli
from mmslip.cli import train

ROOT = Path(__file__).parents[2]
EMOJI = ROOT / 'configs' / 'slip' / 'slip_vit-tiny_emoji.py'
TRAINING = ['model', 'train_dataloader', 'train_cfg', 'optim_wrapper']


def read(path: Path) -> Config:
    cfg = Config.fromfile(path)
    import_modules_from_strings(**cfg.get('custom_imports', dict(imports=[])))
    return cfg


@pytest.mark.parametrize(
    'path',
    [path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts],
    ids=lambda path: path.stem,
)
def test_shipped_configs_have_no_fault(path: Path) -> None:
    assert check_config(read(path)) == []


NAN = float('nan')


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('custom_ooks', [], 'custom_ooks: nothing reads this setting; is custom_hooks meant?'),
        ('model', None, 'model: missing, and nothing can run without it.'),
        (
            'default_hooks.step_checkpoint.iterval',
            5,
            'default_hooks.step_checkpoint.iterval: CheckpointHook has no iterval; is interval '
            'meant?',
        ),
        (
            'default_hooks.chekpoint',
            dict(type='CheckpointHook'),
            'default_hooks.chekpoint: there is no default hook of this name; is checkpoint meant?',
        ),
        (
            'default_hooks.step_chekpoint',
            dict(interval=5),
            'default_hooks.step_chekpoint: lacks the type of the hook; is step_checkpoint meant?',
        ),
        (
            'default_hooks.logger.interval',
            NAN,
            'default_hooks.logger.interval = nan: must be int.',
        ),
        (
            'default_hooks.logger.interval',
            -5,
            'default_hooks.logger.interval = -5: must lie between 1 and 1e+09.',
        ),
        (
            'default_hooks.checkpoint.backend_args.backend',
            'atomc',
            "default_hooks.checkpoint.backend_args.backend = 'atomc': is none of local, memcached, "
            'lmdb, petrel, http, atomic.',
        ),
        (
            'model.head.init_temperature',
            NAN,
            'model.head.init_temperature = nan: must be a finite number.',
        ),
        (
            'model.head.init_temperature',
            1e30,
            'model.head.init_temperature = 1e+30: must lie between 0.0001 and 1000.',
        ),
        (
            'model.ssl.neck.in_chanels',
            128,
            'model.ssl.neck.in_chanels: NonLinearNeck has no in_chanels; is in_channels meant?',
        ),
        ('model.ssl_weight', '1', "model.ssl_weight = '1': must be float."),
        ('model.backbone', 'vit', "model.backbone = 'vit': must be dict."),
        (
            'model.backbone.type',
            'mmslip.VisonTransformer',
            "model.backbone.type = 'mmslip.VisonTransformer': no such model; is "
            'mmslip.VisionTransformer meant?',
        ),
        (
            'model.head.type',
            'CLIPHead',
            "model.head.type = 'CLIPHead': no such model; is mmslip.CLIPHead meant?",
        ),
        (
            'model.ssl.type',
            'SimCLR',
            "model.ssl.type = 'SimCLR': mmslip has a class of this name, and without a prefix it "
            "is mmpretrain's; write mmslip.SimCLR (or mmpretrain.SimCLR, if that is meant).",
        ),
        (
            'model.backbone.arch.num_heads',
            5,
            'model.backbone.arch.embed_dims = 128: must be a multiple of '
            'model.backbone.arch.num_heads = 5.',
        ),
        (
            'model.text_neck.out_channels',
            64,
            'model.neck.out_channels = 128 and model.text_neck.out_channels = 64: must be equal, '
            'images and texts are compared.',
        ),
        (
            'optim_wrapper.optimizer.betas',
            (0.9, 1.5),
            'optim_wrapper.optimizer.betas[1] = 1.5: must lie between 0 and 1, 1 excluded.',
        ),
        (
            'optim_wrapper.optimizer.lr',
            [0, 1],  # --cfg-options optim_wrapper.optimizer.lr=0,001
            'optim_wrapper.optimizer.lr = [0, 1]: must be float | torch.Tensor.',
        ),
        (
            'train_dataloader.batch_size',
            0,
            'train_dataloader.batch_size = 0: must lie between 1 and 1e+06.',
        ),
        ('train_dataloader.dataset', 'text', "train_dataloader.dataset = 'text': must be dict."),
        (
            'train_cfg.max_epochs',
            2,  # as many as the warm-up has
            'param_scheduler[1].begin = 2: the warm-up lasts as long as the training '
            '(train_cfg.max_epochs = 2) or this part of it (end = 2); train longer, or shorten the '
            'warm-up (end of param_scheduler[0], begin of this one).',
        ),
        *(
            (
                f'optim_wrapper.clip_grad.{key}',
                value,
                f'optim_wrapper.clip_grad.{key} = {value}: must lie between 0 and 1e+06, 0 '
                'excluded.',
            )
            for key, value in (('max_norm', -1), ('max_norm', 0), ('clip_value', 0))
        ),
        *(
            (key, 1.0, f'{key} = 1: must lie between 0 and 1, 1 excluded.')
            for key in (
                'model.backbone.drop_rate',
                'model.backbone.drop_path_rate',
                'model.backbone.patch_dropout',
                'model.backbone.layer_cfgs.attn_drop_rate',
            )
        ),
        (
            'optim_wrapper.optimizer.maximize',
            True,
            'optim_wrapper.optimizer.maximize = True: would raise the loss; leave it out.',
        ),
        (
            'optim_wrapper.optimizer.betas',
            [0.9],
            'optim_wrapper.optimizer.betas = [0.9]: must be '
            'tuple[float | torch.Tensor, float | torch.Tensor].',
        ),
        (
            'model.backbone.arch.num_layer',
            2,
            'model.backbone.arch.num_layer: the arch of VisionTransformer has no num_layer; is '
            'num_layers meant?',
        ),
        (
            'model.backbone',
            dict(
                _delete_=True,
                type='SwinTransformer',
                arch=dict(embed_dims=96, depths=[2, 2], num_heads=[3, 6], depth=3),
            ),
            'model.backbone.arch.depth: the arch of SwinTransformer has no depth; is depths meant?',
        ),
        (
            'model.backbone.frozen_stages',
            99,
            'model.backbone.frozen_stages = 99: must lie between -1 and 4, the number of its '
            'stages.',
        ),
        (
            'model.backbone',
            dict(_delete_=True, type='ConvNeXt', arch='tiny', frozen_stages=5),
            'model.backbone.frozen_stages = 5: must lie between -1 and 4, the number of its '
            'stages.',
        ),
        (
            'model.text_backbone.vocab_size',
            100,
            'model.text_backbone.vocab_size = 100: '
            'train_dataloader.dataset.pipeline[2].tokenizer makes ids up to 49407; must be at '
            'least 49408.',
        ),
        (
            'model.data_preprocessor.mean',
            [0, 0],
            'model.data_preprocessor.mean = [0, 0]: must be three numbers (red, green, blue).',
        ),
        (
            'model.data_preprocessor.std',
            [0, 0, 0],
            'model.data_preprocessor.std = [0, 0, 0]: must be three positive numbers (red, green, '
            'blue).',
        ),
        (
            'train_dataloader.dataset.indices',
            0,
            'train_dataloader.dataset.indices = 0: leaves no sample; N takes the first N, -N the '
            'last, and a list those of its numbers.',
        ),
        (
            'train_dataloader.prefetch_factor',
            0,
            'train_dataloader.prefetch_factor = 0: must lie between 1 and 1000.',
        ),
        (
            'train_dataloader.timeout',
            -1,
            'train_dataloader.timeout = -1: must lie between 0 and 1e+06.',
        ),
        (
            'val_dataloader.timeout',
            5,
            'val_dataloader.timeout = 5: is of workers, and val_dataloader.num_workers is 0; leave '
            'it out.',
        ),
        (
            'train_dataloader.shuffle',
            True,
            'train_dataloader.shuffle: the order is that of the sampler; leave this setting out, '
            'and say train_dataloader.sampler.shuffle = True.',
        ),
        (
            'env_cfg.mp_cfg.mp_start_method',
            'frok',
            "env_cfg.mp_cfg.mp_start_method = 'frok': must be one of fork, spawn, forkserver.",
        ),
        (
            'default_hooks.param_scheduler',
            None,
            'default_hooks.param_scheduler = None: the learning rate would not follow '
            'param_scheduler; leave this setting out.',
        ),
        *(
            (
                'default_hooks.checkpoint.filename_tmpl',
                name,
                f'default_hooks.checkpoint.filename_tmpl = {name!r}: must be like '
                "'epoch_{}.pth' and not begin with best_ or a dot, or --resume would not find "
                'these checkpoints.',
            )
            for name in ('best_{}.pth', '.{}.pth', 'epoch_{}.pt', 'epoch.pth')
        ),
        *(
            (
                f'default_hooks.step_checkpoint.{name}',
                False,
                f'default_hooks.step_checkpoint.{name} = False: --resume could not go on from such '
                'checkpoints; leave it out (mmslip convert --pth writes the '
                'weights alone).',
            )
            for name in ('save_optimizer', 'save_param_scheduler')
        ),
        ('env_cfg.cudnn_benchmark', 'yes', "env_cfg.cudnn_benchmark = 'yes': must be bool."),
        (
            'randomness.sed',
            1,
            'randomness.sed: randomness has no sed; is seed meant?',
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and '=' not in value else '',
)
def test_faults_are_named(key: str, value: Any, message: str) -> None:
    cfg = read(EMOJI)
    cfg.merge_from_dict({key: value})
    assert message in check_config(cfg, TRAINING)


@pytest.mark.parametrize('name', ['gray_prob', 'blur_prob', 'flip_prob', 'jitter_prob'])
def test_views_have_probabilities(name: str) -> None:
    cfg = read(EMOJI)
    cfg.train_dataloader.dataset.pipeline[1][name] = 1e12
    (problem,) = check_config(cfg, TRAINING)
    path = f'train_dataloader.dataset.pipeline[1].{name}'
    assert problem.startswith(f'{path} = 1e+12: must lie between 0 and 1')


def test_faults_deep_in_a_list_and_several_at_once() -> None:
    cfg = read(EMOJI)
    cfg.train_dataloader.dataset.pipeline[1].ssl_crp = (0.5, 1.0)
    cfg.custom_hooks.append(dict(type='mmslip.BadSampleHook'))
    first, second = check_config(cfg)
    path = 'train_dataloader.dataset.pipeline[1].ssl_crp'
    assert first == f'{path}: SLIPViews has no ssl_crp; is ssl_crop meant?'
    same = r'custom_hooks\[\d+\]: the same as custom_hooks\[\d+\]; leave one of them out\.'
    assert re.fullmatch(same, second)


def test_transforms_of_captions_are_looked_into() -> None:
    cfg = read(EMOJI)
    tokenize = cfg.train_dataloader.dataset.pipeline[2]
    drop = dict(type='mmslip.DropWords', share=0.2)
    tokenize.update(number=2, weights=(3, 1), augment=[drop, dict(type='mmslip.SwapWords')])
    assert check_config(cfg, TRAINING) == []
    tokenize.update(number=0, augment=[dict(drop, share=2), dict(type='mmslip.SwapWord')])
    found = '\n'.join(check_config(cfg, TRAINING))
    for start in ('number = 0: must lie', 'augment[0].share = 2: must lie', 'augment[1].type'):
        assert f'train_dataloader.dataset.pipeline[2].{start}' in found


def test_a_vocabulary_is_that_of_the_tokenizer() -> None:
    cfg = read(EMOJI)
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline[2].tokenizer = dict(type='mmslip.CLIPTokenizer', context_length=32, num_merges=1000)
    cfg.model.text_backbone.vocab_size = 1514  # 2 x 256 bytes, the merges, start and end
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook.type != 'mmslip.ZeroShotHook']
    assert check_config(cfg) == []
    cfg.model.text_backbone.vocab_size = 1513
    (problem,) = check_config(cfg)
    assert problem.endswith('.tokenizer makes ids up to 1513; must be at least 1514.')


def test_arguments_that_a_class_hands_to_others_are_free_unless_misspelt() -> None:
    model = dict(type='TIMMBackbone', model_name='resnet10t', output_stride=16)
    assert check_config(dict(model=model)) == []
    (problem,) = check_config(dict(model=dict(model, model_nam='resnet10t')))
    assert problem == 'model.model_nam: TIMMBackbone has no model_nam; is model_name meant?'


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('default_hooks.checkpoint.filename_tmpl', 'slip_{:06d}.pth'),
        ('default_hooks.checkpoint', None),
        ('param_scheduler', None),
        ('model.backbone.frozen_stages', 4),
        ('model.backbone.drop_path_rate', 0.0),
        ('train_dataloader.dataset.indices', [0]),
        ('train_dataloader.dataset.indices', -4),
        ('train_dataloader.prefetch_factor', 1),
        ('model.text_backbone.vocab_size', 49408),
        ('optim_wrapper.clip_grad', dict(max_norm=1e-3)),
    ],
)
def test_ends_of_ranges_are_free(key: str, value: Any) -> None:
    cfg = read(EMOJI)
    cfg.merge_from_dict({key: value})
    assert check_config(cfg, TRAINING) == []


def test_default_hooks_may_be_left_out() -> None:
    cfg = read(EMOJI)
    absent = ('step_checkpoint', 'auto_resume', 'timer')
    cli.apply_checked(cfg, dict.fromkeys(f'default_hooks.{name}' for name in absent))
    hooks = cfg.default_hooks
    # mmengine would put its timer back, and fail at None for a hook that it does not have.
    assert {'step_checkpoint', 'auto_resume'}.isdisjoint(hooks)
    assert hooks.timer is None


def test_settings_of_lora_have_no_type() -> None:
    cfg = read(EMOJI)
    cfg.model.lora = dict(backbone=dict(r=8), text_backbone=dict(r=8, lora_alpha=16))
    assert check_config(cfg) == []


def test_names_of_ones_own_are_free() -> None:
    model = dict(type='mmslip.LinearProjection', in_channels=2, out_channels=2)
    assert check_config(dict(model=model, base_lr=NAN, _custom_hook=1, train_pipeline='x')) == []
    assert 'image_size' in RUNNER_SETTINGS


def test_training_lists_all_and_stops(tmp_path: Path) -> None:
    config = tmp_path / 'config.py'
    config.write_text(f'_base_ = [{str(EMOJI)!r}]\ncustom_ooks = []\nmodel = dict(ssl_wight=2)\n')
    with pytest.raises(SystemExit) as stopped:
        train.main([str(config), '--work-dir', str(tmp_path / 'run')])
    assert stopped.value.code.splitlines()[1:] == [
        'model.ssl_wight: SLIP has no ssl_wight; is ssl_weight meant?',
        'custom_ooks: nothing reads this setting; is custom_hooks meant?',
    ]
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['train_cfg.max_epochs=3,', 'resume=True'], "'train_cfg.max_epochs=3,': put spaces"),
        (['train_cfg.max_epochs=3,resume=True'], 'put spaces, not commas, between settings'),
        (['train_cfg.max_epochs'], "'train_cfg.max_epochs' is no KEY=VALUE"),
    ],
)
def test_options_with_commas(options: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit):
        train.parse_args([str(EMOJI), '--cfg-options', *options])
    assert message in capsys.readouterr().err


def test_options_of_settings_that_do_not_exist() -> None:
    cfg = read(EMOJI)
    with pytest.raises(ValueError, match=r'optim_wraper.type: .* is optim_wrapper meant\?'):
        cli.apply_checked(cfg, {'optim_wraper.type': 'OptimWrapper'})
    cli.apply_checked(cfg, {'optim_wrapper.accumulative_counts': 2})
    assert cfg.optim_wrapper.accumulative_counts == 2
