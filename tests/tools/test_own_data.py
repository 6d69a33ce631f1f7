"""`mmslip test --data`: data of one's own, without a config for it."""

import json
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmslip.cli import convert, test
from mmslip.cli.own_data import use_data
from mmslip.registry import DATASETS
from tests.tools.test_evaluate import COLOURS, MODEL, plant, prepared  # noqa: F401

ROOT = Path(__file__).parents[2]
OWN = """
_base_ = ['model.py']
default_scope = 'mmpretrain'
"""
WITHOUT_TEXT = """
_base_ = ['own.py']
model = dict(text_backbone=None, text_neck=None, neck=None, head=None)
"""


@pytest.fixture
def evaluate(prepared: Path, monkeypatch) -> Callable[..., dict]:  # noqa: F811
    """Run the command on the small model, which knows red, green and blue; returns the metrics."""
    plant(monkeypatch)
    monkeypatch.chdir(prepared)
    (prepared / 'own.py').write_text(OWN)

    def run(data: object, *options: object, config: str = 'own.py') -> dict:
        out = prepared / 'metrics.json'
        command = [config, prepared / 'weights.pth', '--data', data, '--out', out, *options]
        command += ['--num-workers', 0, '--batch-size', 4]
        command += ['--work-dir', prepared / 'out', '--cfg-options']
        test.main([*map(str, command), f'experiment_name={prepared.name}'])
        return json.loads(out.read_text())

    return run


def paint(path: Path, colour: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((40, 50, 3), colour, np.uint8))


def rename(folder: Path, *names: str) -> None:
    for old, new in zip(COLOURS, names, strict=True):
        (folder / old).rename(folder / new)


def pairs(folder: Path, name: str, rows: list[tuple[str, str]]) -> Path:
    path = folder / name
    lines = (json.dumps(dict(image=image, caption=caption)) for image, caption in rows)
    path.write_text('\n'.join(lines))
    return path


def test_a_folder_of_classes_and_their_names(evaluate, capsys):
    options = ['--labels', 'red, green|lime, blue', '--templates', 'a {} thing', '{}']
    found = evaluate('colours', *options)
    assert found['zero_shot/colours_top1'] == 100
    assert 'zero_shot/colours_top5' not in found  # of three classes
    printed = capsys.readouterr().out
    assert 'colours: a = red, b = green | lime, c = blue' in printed
    assert "prompts 'a {} thing', '{}'" in printed


def test_another_order_of_names_is_another_result(evaluate):
    found = evaluate('colours', '--labels', 'red', 'blue', 'green')
    assert found['zero_shot/colours_top1'] == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    'labels', [['red', 'green|lime', 'blue'], ['n.txt'], ['list.json'], ['object.json']]
)
def test_names_on_the_command_line_and_in_files(labels, prepared, monkeypatch):  # noqa: F811
    monkeypatch.chdir(prepared)
    Path('n.txt').write_text('red\n\ngreen | lime\nblue\n')
    Path('list.json').write_text('["red", ["green", "lime"], "blue"]')
    Path('object.json').write_text('{"c": "blue", "b": ["green", "lime"], "a": "red", "d": "no"}')
    cfg = configure(tiny(), Path('colours'), '--labels', *labels)
    task = cfg.test_dataloader.dataset.datasets.data.task
    assert task.classes == [['red'], ['green', 'lime'], ['blue']]
    assert task.labels == ['a', 'b', 'c']


def test_folders_name_their_classes(evaluate, prepared):  # noqa: F811
    rename(prepared / 'colours', 'red', 'a_green', 'blue')
    assert evaluate('colours')['zero_shot/colours_top1'] == 100


def test_reference_images_are_learned_from(evaluate, prepared):  # noqa: F811
    for folder, colour in COLOURS.items():
        paint(prepared / 'known' / folder / '0.png', tuple(value * 0.8 for value in colour))
        paint(prepared / 'known' / folder / '1.png', tuple(value * 0.9 for value in colour))
    metrics = ['knn/colours_top1', 'linear/colours_top1']
    found = evaluate('colours', '--reference', 'known')
    assert [found[name] for name in metrics] == [100, 100]
    assert found['zero_shot/colours_top1'] < 100  # a, b and c are no colours
    (prepared / 'images_only.py').write_text(WITHOUT_TEXT)
    found = evaluate('colours', '--reference', 'known', config='images_only.py')
    assert [found[name] for name in metrics] == [100, 100]
    assert not any('zero_shot' in name for name in found)
    with pytest.raises(SystemExit, match=r'no text tower, so it knows no words: .* --reference'):
        evaluate('colours', config='images_only.py')


def test_captions_are_judged_by_retrieval(evaluate, prepared):  # noqa: F811
    rows = [('a/0.png', 'red'), ('b/0.png', 'a green one'), ('c/0.png', 'it is blue')]
    table = pairs(prepared, 'pairs.jsonl', rows)
    found = evaluate(table, '--images', 'colours')
    assert found['retrieval/pairs_i2t_r1'] == found['retrieval/pairs_t2i_r1'] == 100
    wrong = pairs(
        prepared / 'colours', 'captions.jsonl', [*rows[:1], *zip('bc', 'no', strict=True)]
    )
    wrong.write_text(wrong.read_text().replace('"b"', '"b/0.png"').replace('"c"', '"c/0.png"'))
    found = evaluate(wrong)  # beside its images
    assert found['retrieval/colours_captions_i2t_r1'] == pytest.approx(100 / 3)
    with pytest.raises(SystemExit, match=r'--reference is for data with classes, but .* captions'):
        evaluate(table, '--images', 'colours', '--reference', 'colours')


def test_retrieval_joins_rows_and_says_what_it_leaves_out(tmp_path, monkeypatch):
    log = []
    monkeypatch.setattr('mmslip.datasets.evaluation.print_log', lambda *args: log.append(args[0]))
    for name in 'abc':
        paint(tmp_path / f'{name}.png', (9, 9, 9))
    rows = [('a.png', 'one'), ('b.png', 'two'), ('a.png', 'three'), ('c.png', ''), ('b.png', 'one')]
    table = DATASETS.build(
        dict(
            type='mmslip.RetrievalDataset',
            task='pairs',
            dataset=dict(
                type='mmslip.ImageTextDataset',
                ann_file=str(pairs(tmp_path, 'pairs.jsonl', rows)),
                data_prefix=dict(img_path=str(tmp_path)),
                captions='optional',
            ),
        )
    )
    assert [table[index]['text'] for index in range(len(table))] == [
        ['one', 'three'],
        ['two', 'one'],
    ]
    assert [table[index]['sample_idx'] for index in range(2)] == [0, 1]
    assert log == [
        "Task 'pairs': 1 images have no caption and are left out.",
        "Task 'pairs': 1 captions belong to several images, of which one counts as right.",
    ]


def tiny() -> Config:
    model = dict(type='mmslip.SLIP', backbone=dict(img_size=8), text_backbone=dict(type='Other'))
    text = dict(type='mmslip.TokenizeCaption', tokenizer=dict(type='Mine'))
    return Config(dict(model=model, image_size=8, train_dataloader=dict(dataset=text)))


def configure(config: Config, data: Path, *options: str) -> Config:
    args = test.parse_args(['model.py', 'weights.pth', '--data', str(data), *options])
    use_data(config, args)
    return config


def test_size_and_pipeline_are_those_of_the_config(prepared):  # noqa: F811
    cfg = Config.fromfile(ROOT / 'configs/slip/slip_tiny_emoji.py')
    steps = cfg.test_dataloader.dataset.datasets[0].pipeline
    configure(cfg, prepared / 'colours')
    assert cfg.test_dataloader.dataset.pipeline == steps
    assert cfg.test_dataloader.dataset.datasets.data.task.templates == ['{}']
    (hook,) = (hook for hook in cfg.custom_hooks if hook.type == 'mmslip.ZeroShotHook')
    assert hook.tokenizer.num_merges == 4000
    assert {'mmslip.PixelBaselineHook', 'mmslip.RetrievalPictureHook'}.isdisjoint(
        hook.type for hook in cfg.custom_hooks
    )
    # Without a test pipeline: the size of the training's views, whatever the tower is.
    views = dict(type='mmslip.SLIPViews', size=96)
    loader = dict(dataset=dict(type='mmslip.FolderDataset', pipeline=[views]))
    backbone = dict(type='mmpretrain.ResNet', depth=18)
    model = dict(type='mmslip.SLIP', backbone=backbone, text_backbone=dict(type='Other'))
    text = dict(type='mmslip.TokenizeCaption', tokenizer=dict(type='Mine'))
    loader['dataset']['pipeline'].append(text)
    cfg = configure(Config(dict(model=model, train_dataloader=loader)), prepared / 'colours')
    crop = cfg.test_dataloader.dataset.pipeline[1]
    assert (crop.type, crop.size) == ('mmslip.ResizeCenterCrop', 96)
    loader['dataset']['pipeline'] = [text]
    with pytest.raises(ValueError, match='states no size of images: write `image_size = N`'):
        configure(Config(dict(model=model, train_dataloader=loader)), prepared / 'colours')


@pytest.mark.parametrize(
    ('name', 'task'),
    [('pets', 'pets_own'), ('coco', 'coco_own'), ('x/val', 'x_val'), ('a b', 'a_b')],
)
def test_no_set_of_ones_own_has_the_name_of_a_published_one(name, task, tmp_path):
    for folder in 'ab':
        paint(tmp_path / name / folder / '0.png', (9, 9, 9))
    cfg = configure(tiny(), tmp_path / name)
    assert cfg.test_dataloader.dataset.datasets.data.task.name == task


@pytest.mark.parametrize(
    ('change', 'options', 'message'),
    [
        ('rm */*', [], 'colours holds no image'),
        ('rm a/*', [], "folders without an image, .* fill or remove 'a'"),
        ('mv */0.png . ; rm */*', [], 'its images lie in no folder'),
        ('rm -r b c', [], "has one folder, 'a': two classes are the least"),
        (
            'mkdir train val; mv a train; mv b c val',
            [],
            'train, val, which are parts of a data set',
        ),
        ('echo x > b/1.png', [], 'b/1.png, sample 4 .* is not an image'),
        ('', ['--labels', 'x', 'y'], r'3 class folders \(a, b, c\), but --labels has 2 names'),
        ('echo x > ../n.txt', ['--labels', 'n.txt'], 'but --labels has 1 names'),
        ('', ['--labels', 'n.txt'], 'There is no file of labels n.txt'),
        ('echo {} > ../n.json', ['--labels', 'n.json'], "no class of the folder 'a'.*3 of 3"),
        ('echo 5 > ../n.json', ['--labels', 'n.json'], 'n.json must be a list of labels'),
        ('', ['--labels', 'Red', 'red', ' red'], "have the same name, 'Red'"),
        ('', ['--reference', 'colours'], 'judged on what they learned'),
        ('', ['--reference', '.'], "only one of them has 'a', 'b', 'c'|two classes are the least"),
        ('', ['--images', '.'], '--images is for data with captions, but colours has classes'),
        ('rm -r ../colours', [], 'There is no table, folder, shard or Parquet file'),
    ],
)
def test_bad_input_is_told_in_one_line(change, options, message, evaluate, prepared):  # noqa: F811
    subprocess.run(
        change, shell=True, check=False, cwd=prepared / 'colours', stderr=subprocess.DEVNULL
    )
    with pytest.raises(SystemExit, match=message) as error:
        evaluate('colours', *options)
    assert len(str(error.value).splitlines()) <= 2


def test_options_of_data_need_data(capsys):
    for option, value in (('--labels', 'a'), ('--image-key', 'b'), ('--reference', 'c')):
        with pytest.raises(SystemExit):
            test.main(['model.py', 'weights.pth', option, value])
        assert f'{option} is said of --data PATH' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        test.main(['model.py'])
    assert 'CHECKPOINT is missing' in capsys.readouterr().err


def test_two_classes_of_one_name_count_as_one(evaluate, prepared, capsys):  # noqa: F811
    paint(prepared / 'colours' / 'd' / '0.png', COLOURS['a'])
    found = evaluate('colours', '--labels', 'red', 'green', 'blue', 'Red')
    assert found['zero_shot/colours_top1'] == 100
    assert "several classes have the name 'red'" in capsys.readouterr().out


def cifar(folder: Path, names: list[str] = ('airplane', 'ship')) -> None:
    """CIFAR-10 of two images in a file, as Python 2 wrote it: `cPickle.dump(dict, file, 2)`."""
    folder.mkdir()
    planes = np.zeros((2, 3, 32, 32), np.uint8)
    planes[0, 0], planes[1, 2] = 200, 100  # red, blue
    planes[:, 1, 0, 5] = 50  # row 0, column 5
    text = lambda value: b'U' + bytes([len(value)]) + value  # noqa: E731
    array = (
        b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR'
        b'(K\x01(K\x02M\x00\x0ctcnumpy\ndtype\n(U\x02u1K\x00K\x01tR'
        b'(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89'
        b'T' + (2 * 3072).to_bytes(4, 'little') + planes.tobytes() + b'tb'
    )
    batch = b'\x80\x02}(' + text(b'data') + array + text(b'labels') + b'](K\x00K\x08eu.'
    for name in ('test_batch', *(f'data_batch_{number}' for number in range(1, 6))):
        (folder / name).write_bytes(batch)
    every = 'airplane automobile bird cat deer dog frog horse ship truck'.split()
    listed = b''.join(text(name.encode()) for name in every)
    (folder / 'batches.meta').write_bytes(
        b'\x80\x02}' + text(b'label_names') + b'](' + listed + b'es.'
    )


def test_cifar_of_its_original_pickles(evaluate, prepared):  # noqa: F811
    cifar(prepared / 'cifar-10-batches-py')
    found = evaluate(prepared, '--reference', prepared)
    assert found['knn/cifar10_top1'] == found['linear/cifar10_top1'] == 100
    assert 'zero_shot/cifar10_top5' in found
    dataset = DATASETS.build(
        dict(type='mmslip.CIFAR', data_root=str(prepared / 'cifar-10-batches-py'), split='train')
    )
    assert len(dataset) == 10
    first, second = dataset.get_data_info(0), dataset.get_data_info(1)
    assert (first['gt_label'], second['gt_label']) == (0, 8)
    assert first['img'][3, 4].tolist() == [200, 0, 0]
    assert second['img'][0, 5].tolist() == [0, 50, 100]
    assert dataset.metainfo['classes'][8] == 'ship'


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), 'w')


@pytest.mark.parametrize('kind', ['code', 'short', 'labels', 'floats', 'nothing'])
def test_other_pickles_are_refused_and_not_executed(kind, tmp_path):
    folder, mark = tmp_path / 'cifar', tmp_path / 'mark'
    cifar(folder)
    path = folder / 'test_batch'
    data = np.zeros((2, 3072), np.uint8)
    content = dict(
        code=dict(data=Attack(mark), labels=[0, 1]),
        labels=dict(data=data, labels=[0, 10]),
        floats=dict(data=data.astype(float), labels=[0, 1]),
        nothing=[1],
    )
    path.write_bytes(
        path.read_bytes()[:5000] if kind == 'short' else pickle.dumps(content[kind], 2)
    )
    message = {'code': r'names (__builtin__|builtins|io|_io)\.open', 'labels': '2 labels below 10'}
    with pytest.raises(ValueError, match=message.get(kind, 'refused')) as error:
        DATASETS.build(dict(type='mmslip.CIFAR', data_root=str(folder)))
    assert str(path) in str(error.value)
    assert not mark.exists()


def test_weights_that_describe_themselves(prepared, monkeypatch, capsys):  # noqa: F811
    monkeypatch.chdir(prepared)
    convert.main(['weights.pth', 'folder', '--config', 'model.py'])
    test.main(['folder', '--data', 'colours', '--out', 'metrics.json', '--work-dir', 'out'])
    assert 'zero_shot/colours_top1' in json.loads(Path('metrics.json').read_text())
