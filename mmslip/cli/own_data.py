"""Evaluation of a model on data of one's own, without a config for it."""

import argparse
import os
import re
from dataclasses import asdict
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmslip.apis.base import stated_templates, test_pipeline_of
from mmslip.cli.inference import read_labels
from mmslip.cli.parser import at_least
from mmslip.datasets import CIFAR
from mmslip.datasets.io.folder import class_of, is_hidden, list_images
from mmslip.datasets.recognise import recognise
from mmslip.datasets.tasks import first_of_name, list_tasks, load_task
from mmslip.evaluation import default_tokenizer, stated_tokenizer
from mmslip.registry import MODELS
from mmslip.utils.parts import find_all

__all__ = ['add_data_arguments', 'check_data_arguments', 'use_data']

# Folders of the parts of a data set, which nobody means as classes.
_SPLITS = {'train', 'training', 'val', 'valid', 'validation', 'test', 'testing', 'dev'}
_CIFAR_FOLDERS = ('cifar-10-batches-py', 'cifar-100-python')
# Names that published figures stand beside in a report.
_PUBLISHED = (*list_tasks(), 'coco', 'flickr30k')
# Options of captioned data, and of labelled.
_OF_CAPTIONS = ('images', 'image_key', 'caption_keys')
_OF_CLASSES = ('reference', 'labels', 'templates')
# Hooks that belong to the evaluation sets of a config.
_OF_ITS_SETS = ('ZeroShotHook', 'PixelBaselineHook', 'RetrievalPictureHook')


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Data of one's own, and what is said of it."""
    own = parser.add_argument_group(
        'data of your own',
        'in the place of the sets of CONFIG, whose test pipeline prepares the images',
    )
    own.add_argument(
        '--data',
        type=Path,
        metavar='PATH',
        help='a folder with a folder of images for each class, or cifar-10-batches-py: zero-shot '
        'accuracy; or images with captions, all that `mmslip init` takes: retrieval',
    )
    own.add_argument(
        '--images',
        type=Path,
        metavar='FOLDER',
        help='what the paths in a table are relative to (default: a usual folder beside it)',
    )
    own.add_argument('--image-key', metavar='COLUMN', help='column of the images in a table')
    own.add_argument(
        '--caption-keys', nargs='+', metavar='COLUMN', help='columns of the captions in a table'
    )
    own.add_argument(
        '--reference',
        type=Path,
        metavar='PATH',
        help='labelled images, in folders of the same names, that kNN and a linear probe learn '
        'from: their accuracy on --data, too',
    )
    own.add_argument(
        '--labels',
        nargs='+',
        metavar='NAME',
        help='names of the classes in the sorted order of the folders, or a file of them: a line '
        'each, or JSON, a list or {"folder": "name"} (default: the names of the folders)',
    )
    own.add_argument(
        '--templates',
        nargs='+',
        metavar='TEXT',
        help="prompts with {} for the name (default: those of CONFIG, or 'a photo of a {}.')",
    )
    own.add_argument(
        '--batch-size',
        type=at_least(1),
        help='images of one pass (default: as CONFIG evaluates, or 64)',
    )
    own.add_argument(
        '--num-workers',
        type=at_least(0),
        help='processes that read images (default: as CONFIG evaluates, or up to 4)',
    )


def check_data_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options of ``--data`` without it."""
    options = (*_OF_CAPTIONS, *_OF_CLASSES, 'batch_size', 'num_workers')
    given = [name for name in options if vars(args)[name] is not None]
    if given and not args.data:
        parser.error(f'{_option(given[0])} is said of --data PATH, which is missing.')


def use_data(cfg: Config, args: argparse.Namespace) -> None:
    """Let a config evaluate its model on ``args.data`` instead of its own sets.

    Raises:
        FileNotFoundError: Data or a folder is missing.
        ValueError: They cannot be evaluated; the message names file or folder and the remedy.
    """
    data = _inner_folder(args.data)
    captioned = _find_captions(data, args)
    with_text = bool(cfg.model.get('text_backbone'))
    if not with_text and (captioned or not args.reference):
        remedy = 'give labelled images that kNN and a linear probe learn from, --reference PATH'
        remedy = 'name a SLIP or CLIP model' if captioned else remedy
        raise ValueError(f'The model has no text tower, so it knows no words: {remedy}.')
    wrong = [name for name in (_OF_CLASSES if captioned else _OF_CAPTIONS) if vars(args)[name]]
    if wrong:
        other, own = ('classes', 'captions') if captioned else ('captions', 'classes')
        raise ValueError(f'{_option(wrong[0])} is for data with {other}, but {data} has {own}.')
    tokenizer = _tokenizer_of(cfg) if with_text else None
    pipeline = test_pipeline_of(cfg)
    evaluators = []
    if not captioned:
        sets = _labelled_sets(data, args, stated_templates(cfg))
        # Of five classes, five guesses are never wrong.
        topk = [1, 5] if len(sets['data']['task']['classes']) > 5 else [1]
        evaluators += [dict(type='mmslip.ZeroShotAccuracy', topk=topk)] if with_text else []
        if args.reference:
            evaluators += [dict(type='mmslip.KNNAccuracy'), dict(type='mmslip.LinearProbe')]
    else:
        retrieval = dict(type='mmslip.RetrievalDataset', task=_name_of(data), dataset=captioned)
        sets = dict(data=retrieval)
        pipeline.insert(-1, dict(type='mmslip.TokenizeCaptions', tokenizer=tokenizer))
        evaluators += [dict(type='mmslip.RetrievalRecall')]
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    size, workers = args.batch_size, args.num_workers
    if workers is None:
        workers = loader.get('num_workers', min(4, os.cpu_count() or 1))
    cfg.test_dataloader = dict(
        batch_size=size or loader.get('batch_size', 64),
        num_workers=workers,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        dataset=dict(type='mmslip.EvaluationSuite', datasets=sets, pipeline=pipeline),
    )
    cfg.test_evaluator, cfg.test_cfg = evaluators, dict()
    hooks = cfg.get('custom_hooks') or []
    of_sets = [hook for kind in _OF_ITS_SETS for hook in find_all(hooks, kind)]
    hooks = [hook for hook in hooks if hook not in of_sets]
    hooks.append(dict(type='mmslip.ZeroShotHook', tokenizer=tokenizer))
    if not any(find_all(hooks, 'EvaluationRecordHook')):
        hooks.append(dict(type='mmslip.EvaluationRecordHook'))
    cfg.custom_hooks = hooks


def _inner_folder(path: Path) -> Path:
    """The folder of CIFAR's files, where it is all that a folder is for."""
    return next((path / name for name in _CIFAR_FOLDERS if (path / name).is_dir()), path)


def _find_captions(data: Path, args: argparse.Namespace) -> dict | None:
    """Config of the set, if it has captions; None for a folder of classes."""
    if data.is_dir() and (CIFAR.kind_of(data) or any(vars(args)[name] for name in _OF_CLASSES)):
        return None
    config = recognise(data, args.images, args.image_key, args.caption_keys)
    bare = config.get('captions') == 'ignored'
    if config['type'] == 'mmslip.FolderDataset' and (bare or all(map(class_of, list_images(data)))):
        return None
    if bare:
        raise ValueError(f'{data} has no captions, by which retrieval is judged.')
    # Those that hold the images themselves say what has no caption when it is read.
    holds_images = config['type'] in ('mmslip.ShardDataset', 'mmslip.ParquetDataset')
    return dict(config, captions='required' if holds_images else 'optional')


def _option(name: str) -> str:
    return f'--{name.replace("_", "-")}'


def _tokenizer_of(cfg: Config) -> dict:
    """The tokeniser that the config states, or that of CLIP's text tower."""
    stated = stated_tokenizer(cfg)
    if stated is not None:
        return stated
    scope = DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain'))
    with scope, torch.device('meta'):
        return default_tokenizer(MODELS.build(cfg.model.text_backbone))


def _labelled_sets(data: Path, args: argparse.Namespace, templates: list[str]) -> dict[str, dict]:
    """Sets of the images that are judged and, with ``--reference``, of those to learn from."""
    if kind := CIFAR.kind_of(data):
        if args.labels or args.templates:
            raise ValueError(
                f'{data} has the names and prompts of CIFAR-{kind}: leave out --labels and '
                '--templates.'
            )
        task = asdict(load_task(f'cifar{kind}'))
    else:
        folders = _class_folders(data)
        names = _name_classes(args.labels, folders, data)
        if len({*first_of_name(names)}) < 2:
            raise ValueError(f'All classes of {data} have the same name, {names[0][0]!r}.')
        task = dict(name=_name_of(data), labels=folders, classes=names)
        task['templates'] = list(args.templates or templates)
        _print_classes(data, folders, names, task['templates'])
        if args.reference:
            _compare(data, folders, args.reference)
    judged = dict(type='mmslip.EvaluationDataset', task=task)
    sets = dict(data=dict(judged, dataset=_labelled(data, 'test')))
    if args.reference:
        dataset = _labelled(args.reference, 'train')
        sets['reference'] = dict(judged, role='reference', dataset=dataset)
    return sets


def _labelled(folder: Path, split: str) -> dict:
    """The data set of labelled images; ``split`` is a part of CIFAR."""
    folder = _inner_folder(folder)
    if CIFAR.kind_of(folder):
        return dict(type='mmslip.CIFAR', data_root=str(folder), split=split)
    return dict(type='mmslip.FolderDataset', data_root=str(folder), with_label=True)


def _class_folders(folder: Path) -> list[str]:
    """Folders of the classes, sorted, each with an image.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: One has no image, there is none, or they are no classes.
    """
    full = {class_of(name) for name in list_images(folder)}
    folders = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)
    )
    if not full - {''}:
        loose = 'its images lie in no folder' if full else 'it holds no image'
        raise ValueError(f'{folder} needs a folder of images for each class, but {loose}.')
    if {name.lower() for name in folders} <= _SPLITS:
        raise ValueError(
            f'{folder} holds {", ".join(folders)}, which are parts of a data set and no classes: '
            f'name one of them, such as --data {folder / folders[-1]}.'
        )
    empty = [name for name in folders if name not in full]
    if empty:
        raise ValueError(
            f'{folder} has folders without an image, but each is a class: fill or remove '
            f'{", ".join(map(repr, empty[:5]))}{f" and {len(empty) - 5} more" * (len(empty) > 5)}.'
        )
    if len(folders) < 2:
        raise ValueError(f'{folder} has one folder, {folders[0]!r}: two classes are the least.')
    return folders


def _compare(data: Path, folders: list[str], reference: Path) -> None:
    """Refuse a reference of other classes, or that is what it shall be judged on."""
    if reference.resolve() == data.resolve():
        raise ValueError(
            '--reference is --data: kNN and linear probe would be judged on what they learned.'
        )
    others = _class_folders(reference)
    odd = sorted(set(folders) ^ set(others))
    if odd:
        raise ValueError(
            f'{data} has {len(folders)} class folders, {reference} has {len(others)}, and only one '
            f'of them has {", ".join(map(repr, odd[:5]))}: both need the same.'
        )


def _name_classes(labels: list[str] | None, folders: list[str], data: Path) -> list[list[str]]:
    """The names of each folder's class: as stated, or of the folder."""
    if not labels:
        return [[folder.replace('_', ' ')] for folder in folders]
    names = read_labels(labels)
    if isinstance(names, dict):
        missing = [folder for folder in folders if folder not in names]
        if missing:
            raise ValueError(
                f'{labels[0]} names no class of the folder {missing[0]!r} of {data} '
                f'({len(missing)} of {len(folders)} folders are missing).'
            )
        return [names[folder] for folder in folders]
    if len(names) != len(folders):
        raise ValueError(
            f'{data} has {len(folders)} class folders ({", ".join(folders[:10])}'
            f'{", ..." if len(folders) > 10 else ""}), but --labels has {len(names)} names: one '
            'for each folder, in their sorted order.'
        )
    return names


def _print_classes(
    data: Path, folders: list[str], names: list[list[str]], templates: list[str]
) -> None:
    """The names and prompts, so that a wrong order is seen."""
    shown = [
        folder if [folder] == name else f'{folder} = {" | ".join(name)}'
        for folder, name in zip(folders[:10], names, strict=False)
    ]
    more = [f'... ({len(folders)} classes)'] if len(folders) > 10 else []
    print(f'{data}: {", ".join([*shown, *more])}; prompts {", ".join(map(repr, templates[:3]))}')


def _name_of(data: Path) -> str:
    """A name for results: of the folder or file, with that of the folder above if it says little.

    Figures of a published set stand beside those of the same name only, so no set of one's own may
    have it.
    """
    path = data.resolve()
    name = path.name if path.is_dir() else path.stem
    if name.lower() in {*_SPLITS, 'captions', 'images'} and path.parent.name:
        name = f'{path.parent.name}_{name}'
    name = re.sub(r'[^\w.-]+', '_', name).strip('_') or 'data'
    return f'{name}_own' if name in _PUBLISHED else name
