"""Class names, prompts and metrics of the shipped tasks, and tasks of one's own."""

import json
import re
from pathlib import Path

import mmpretrain.datasets
import pytest

from mmslip.datasets import tasks as module
from mmslip.datasets.tasks import Task, list_tasks, load_task

# Classes, prompts, and synonyms beyond the first names.
SIZES = dict(
    food101=(101, 1), cifar10=(10, 18), cifar100=(100, 18), cub200=(200, 1), sun397=(397, 2),
    cars=(196, 8), aircraft=(100, 2), dtd=(47, 8), pets=(37, 1), caltech101=(102, 34),
    flowers=(102, 1), mnist=(10, 1), fer2013=(7, 6), stl10=(10, 2), eurosat=(10, 3),
    resisc45=(45, 18), gtsrb=(43, 3), kitti_distance=(4, 1), country211=(211, 5),
    patch_camelyon=(2, 1), ucf101_frames=(101, 48), kinetics700_frames=(700, 28),
    clevr_counts=(8, 1), hateful_memes=(2, 1), rendered_sst2=(2, 1), imagenet=(1000, 7),
)  # fmt: skip
METRICS = dict(
    aircraft='mean_per_class',
    pets='mean_per_class',
    caltech101='mean_per_class',
    flowers='mean_per_class',
    kinetics700_frames='top1_top5_mean',
    hateful_memes='roc_auc',
)
READERS = dict(
    food101='Food101',
    cifar10='CIFAR10',
    cifar100='CIFAR100',
    cub200='CUB',
    sun397='SUN397',
    cars='StanfordCars',
    aircraft='FGVCAircraft',
    dtd='DTD',
    pets='OxfordIIITPet',
    caltech101='Caltech101',
    mnist='MNIST',
    imagenet='ImageNet',
)
# What the data sets call a class otherwise than by the words of its official name.
OTHER_NAMES = {
    'caltech101': {
        'BACKGROUND_Google': 'background',
        'Faces': 'off-center face',
        'Faces_easy': 'centered face',
        'Leopards': 'leopard',
        'Motorbikes': 'motorbike',
        'airplanes': 'airplane',
        'car_side': 'side of a car',
        'cougar_body': 'body of a cougar cat',
        'cougar_face': 'face of a cougar cat',
        'crocodile_head': 'head of a  crocodile',
        'flamingo_head': 'head of a flamingo',
        'snoopy': 'snoopy (cartoon beagle)',
        'yin_yang': 'yin and yang symbol',
    },
    'mnist': {
        f'{number} - {word}': str(number)
        for number, word in enumerate('zero one two three four five six seven eight nine'.split())
    },
    'fer2013': dict(disgust='disgusted', fear='fearful', surprise='surprised'),
    'eurosat': dict(
        AnnualCrop='annual crop land',
        HerbaceousVegetation='brushland or shrubland',
        Highway='highway or road',
        Industrial='industrial buildings or commercial buildings',
        Pasture='pasture land',
        PermanentCrop='permanent crop land',
        Residential='residential buildings or homes or apartments',
        SeaLake='lake or sea',
    ),
    'kitti_distance': {
        'up to 8 m': 'a photo i took of a car on my left or right side.',
        '8 m to 20 m': 'a photo i took with a car nearby.',
        'beyond 20 m': 'a photo i took with a car in the distance.',
        'no vehicle': 'a photo i took with no car.',
    },
    'patch_camelyon': {
        '0': 'lymph node',
        '1': 'lymph node containing metastatic tumor tissue',
    },
}


def words(name: str) -> str:
    return re.sub(r'[^a-z0-9]', '', name.lower())


def test_the_26_tasks_are_those_of_the_paper() -> None:
    assert list(SIZES) == list(list_tasks())
    for name, (classes, templates) in SIZES.items():
        task = load_task(name)
        assert (len(task.classes), len(task.templates)) == (classes, templates), name
        assert task.name == name
        assert task.metric == METRICS.get(name, 'top1')
    assert {path.stem for path in module._FOLDER.glob('*.json')} == set(SIZES)
    assert load_task('fer2013').classes[3:6] == (
        ('happy', 'smiling'),
        ('neutral', 'bored'),
        ('sad', 'depressed'),
    )


def test_names_and_prompts_are_the_official_ones(shared_dir: Path) -> None:
    names = json.loads((shared_dir / 'eval' / 'labels.json').read_text(encoding='utf-8'))
    prompts = json.loads((shared_dir / 'eval' / 'templates.json').read_text(encoding='utf-8'))
    for name in list_tasks():
        task = load_task(name)
        official = [tuple([entry] if isinstance(entry, str) else entry) for entry in names[name]]
        assert list(task.classes) == official, name
        assert list(task.templates) == prompts[name], name


@pytest.mark.parametrize('name', list_tasks())
def test_labels_of_the_data_set_mean_the_class(name: str) -> None:
    task = load_task(name)
    others = OTHER_NAMES.get(name, {})
    if name in READERS:
        own = getattr(mmpretrain.datasets, READERS[name]).METAINFO['classes']
        assert sorted(own) == sorted(task.labels)
    assert others.keys() <= set(task.labels)
    if name in ('country211', 'gtsrb'):  # codes and numbers
        assert list(task.labels) == sorted(task.labels)
        return
    if name == 'imagenet':
        return
    for label, names in zip(task.labels, task.classes, strict=True):
        assert words(others.get(label, label)) == words(names[0])


def test_codes_of_countries() -> None:
    task = load_task('country211')
    known = dict(
        AD='Andorra', AE='United Arab Emirates', CD='DR Congo', CH='Switzerland', DE='Germany',
        DZ='Algeria', GB='United Kingdom', HR='Croatia', KP='North Korea', KR='South Korea',
        MK='Macedonia', SJ='Svalbard and Jan Mayen Islands', SZ='Eswatini', UA='Ukraine',
        VI='United States Virgin Islands', WS='Samoa', XK='Kosovo', ZA='South Africa',
        ZW='Zimbabwe',
    )  # fmt: skip
    names = dict(zip(task.labels, task.classes, strict=True))
    assert {code: names[code][0] for code in known} == known
    # The codes are sorted, so a wrong one would shift others and show in the initials.
    other_initial = {code for code, name in names.items() if code[0] != name[0][0]}
    assert other_initial == set(
        'AE CD CH DE DZ ES GB GF GS HR KH KN KP KR KY LC LK MF PF RS SV SZ VG VI WS XK ZA'.split()
    )


def test_imagenet_names_mean_the_synset_of_the_same_number() -> None:
    task = load_task('imagenet')
    pairs = list(zip(task.labels, task.classes, strict=True))

    def share(shift: int) -> float:
        """Of the pairs with a word in common."""
        words = [set(re.findall('[a-z]{3,}', label.lower())) for label, _ in pairs]
        other = [set(re.findall('[a-z]{3,}', name.lower())) for _, (name,) in pairs]
        return sum(bool(words[i] & other[(i + shift) % 1000]) for i in range(1000)) / 1000

    assert share(0) > 0.95
    assert max(share(1), share(-1)) < 0.3
    for number, words_of in {0: 'tench', 134: 'crane', 517: 'crane', 639: 'maillot'}.items():
        assert words_of in pairs[number][0]
    assert (pairs[134][1], pairs[517][1]) == (('crane bird',), ('construction crane',))


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / 'fruit.json'
    path.write_text('{"classes": ["apple", ["pear", "williams"]], "labels": ["a", "b"]}')
    assert load_task(str(path)) == Task(
        name='fruit',
        title='fruit',
        metric='top1',
        classes=(('apple',), ('pear', 'williams')),
        templates=('a photo of a {}.',),
        labels=('a', 'b'),
    )
    own = load_task(dict(name='x', classes=['0', ['1', 'I']]))
    assert own.labels == ('0', '1')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(metric='f1'), "metric must be one of top1, .*, not 'f1'"),
        (dict(classes=['one']), 'two classes or more'),
        (dict(classes=['one', '']), 'each with a name'),
        (dict(classes=['one', []]), 'each with a name'),
        (dict(classes=['one', 2]), 'must be a list, not 2'),
        (dict(classes='one'), "`classes` must be a list, not 'one'"),
        (dict(templates=['a photo']), 'one {} for the class name'),
        (dict(templates='{}'), '`templates` must be a list'),
        (dict(templates=[]), 'one {} for the class name'),
        (dict(labels=['a']), '2 classes, but 1 labels'),
        (dict(metric='roc_auc', classes=['a', 'b', 'c']), 'exactly two classes'),
        (dict(prompts=['{}']), 'unknown keys: prompts'),
        (dict(classes=[]), 'needs a `name` and `classes`'),
    ],
)
def test_unusable_tasks(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_task({**dict(name='mine', classes=['one', 'two']), **change})


def test_unusable_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'no task foo101: give the path .* food101'):
        load_task('foo101')
    path = tmp_path / 'mine.json'
    path.write_text('{"classes": ')
    with pytest.raises(ValueError, match=r'mine\.json is not valid JSON'):
        load_task(path)
    path.write_text('["one", "two"]')
    with pytest.raises(ValueError, match=r'mine\.json must hold an object'):
        load_task(path)
