"""The shipped emoji shards: complete, decodable, and without a leak between the splits."""

import hashlib
import importlib.util
import json
import pickle
import tarfile
from collections import Counter
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

import mmslip
from mmslip.datasets import EmojiDataset, ShardDataset
from mmslip.datasets.emoji import read_names
from mmslip.datasets.transforms import LoadImage

DATA = Path(mmslip.__file__).parent / 'datasets/data/emoji'
CONVERTERS = Path(__file__).parents[2] / 'tools/dataset_converters'
SPLITS = ('train', 'val', 'concepts')


def load_concepts_module() -> ModuleType:
    """Import the grouping of names from the tools, which are not a package."""
    spec = importlib.util.spec_from_file_location('concepts', CONVERTERS / 'emoji_concepts.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


concept_key = load_concepts_module().concept_key


@pytest.fixture(scope='module')
def metadata():
    return json.loads((DATA / 'metadata.json').read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def members(metadata):
    """Members of all shards: split -> name -> bytes."""
    content = {}
    for split in SPLITS:
        content[split] = {}
        for shard in metadata['splits'][split]['shards']:
            with tarfile.open(DATA / shard) as archive:
                for member in archive:
                    assert member.name not in content[split]
                    content[split][member.name] = archive.extractfile(member).read()
    return content


@pytest.fixture(scope='module')
def samples(members):
    """JSON of all samples: split -> list."""
    return {
        split: [json.loads(data) for name, data in files.items() if name.endswith('.json')]
        for split, files in members.items()
    }


@pytest.fixture(scope='module')
def pictures(members):
    """Digest of the decoded pixels of all samples: split -> key -> digest."""
    digests = {}
    for split, files in members.items():
        digests[split] = {}
        for name, data in files.items():
            if name.endswith('.webp'):
                image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
                assert image.shape == (64, 64, 3), name
                assert image.std() > 1, name
                key = name.removesuffix('.webp')
                digests[split][key] = hashlib.sha256(image.tobytes()).digest()
    return digests


@pytest.mark.parametrize('split', SPLITS)
def test_counts_equal_metadata(split, samples, metadata):
    described = metadata['splits'][split]
    assert len(samples[split]) == described['samples']
    assert len({s['name'] for s in samples[split]}) == described['names']
    assert Counter(s['vendor'] for s in samples[split]) == described['vendors']


@pytest.mark.parametrize('split', SPLITS)
def test_each_sample_is_one_image_and_one_json(split, members, pictures):
    texts = {n.removesuffix('.json') for n in members[split] if n.endswith('.json')}
    assert texts == set(pictures[split])
    assert len(members[split]) == 2 * len(texts)
    assert not any('.' in key for key in texts)


@pytest.mark.parametrize('split', SPLITS)
def test_texts_are_complete(split, samples):
    for sample in samples[split]:
        name, *others = sample['captions']
        assert name == sample['name']
        assert len(others) <= 2
        assert all(caption.startswith(name) for caption in others)
        assert sample['label'] == sample['name'] == sample['name'].lower().strip()
        assert all(sample[key] for key in ('group', 'subgroup', 'codepoint'))


@pytest.mark.parametrize('split', SPLITS)
def test_a_vendor_draws_a_name_once(split, samples):
    drawn = Counter((s['vendor'], s['name']) for s in samples[split])
    assert max(drawn.values()) == 1


def test_skin_tones_are_left_out(samples):
    tones = {'1f3fb', '1f3fc', '1f3fd', '1f3fe', '1f3ff'}
    for split in SPLITS:
        assert not any(tones & set(s['codepoint'].split('-')) for s in samples[split])


def test_fluent_is_unseen_in_training_and_alone_in_val(samples):
    assert 'fluent' not in {s['vendor'] for s in samples['train']}
    assert {s['vendor'] for s in samples['val']} == {'fluent'}


def test_held_out_concepts_are_unseen_in_training(samples, metadata):
    held_out = {concept_key(s['name']) for s in samples['concepts']}
    assert len(held_out) == metadata['held_out_concepts']
    for split in ('train', 'val'):
        assert not held_out & {concept_key(s['name']) for s in samples[split]}
        assert not {s['name'] for s in samples['concepts']} & {s['name'] for s in samples[split]}


def test_val_concepts_are_seen_in_training(samples):
    seen = {concept_key(s['name']) for s in samples['train']}
    assert {concept_key(s['name']) for s in samples['val']} <= seen


def test_no_tested_picture_is_trained_on(pictures):
    trained = set(pictures['train'].values())
    assert not trained & set(pictures['val'].values())
    assert not trained & set(pictures['concepts'].values())


def test_a_val_picture_has_one_name(pictures):
    assert len(set(pictures['val'].values())) == len(pictures['val'])


def test_classes_are_the_names_of_the_split(samples):
    classes = json.loads((DATA / 'classes.json').read_text(encoding='utf-8'))
    assert set(classes) == {*SPLITS, 'subgroup'}
    for split in SPLITS:
        assert classes[split] == sorted({s['name'] for s in samples[split]})
    assert classes['subgroup'] == sorted({s['subgroup'] for part in samples.values() for s in part})


def test_a_vendor_is_held_out(samples):
    rest = EmojiDataset(split='train', vendors=['noto', 'noto-v1', 'twemoji', 'fxemoji'])
    unseen = EmojiDataset(split='train', vendors=['emojione'], task='unseen', test_mode=True)
    assert (len(rest), len(unseen)) == (4949, 1261)
    names = {info['img_name'] for info in map(unseen.get_data_info, range(len(unseen)))}
    assert all(':emojione_' in name for name in names)
    assert not names & {info['img_name'] for info in map(rest.get_data_info, range(len(rest)))}
    assert 'gt_label' not in rest.get_data_info(0)
    assert unseen.metainfo['task'] == 'unseen'


@pytest.mark.parametrize('label', ['name', 'subgroup'])
def test_labels_are_what_the_drawing_says(label, samples):
    dataset = EmojiDataset(split='val', label=label, task='kinds', role='reference')
    assert len(dataset.metainfo['classes']) == {'name': 1436, 'subgroup': 98}[label]
    said = {(s['vendor'], s['codepoint']): s[label] for s in samples['val']}
    for index in range(0, len(dataset), 50):
        info = dataset.get_data_info(index)
        vendor, codepoint = info['img_name'].rpartition(':')[2].split('_')
        assert dataset.metainfo['classes'][info['gt_label']] == said[vendor, codepoint]
        assert (info['task'], info['role']) == ('kinds', 'reference')


@pytest.mark.parametrize(
    ('wrong', 'says'),
    [
        (dict(split='test'), 'split must be'),
        (dict(split='val', label='colour'), 'label must be'),
        (dict(split='val', vendors=['noto']), 'no drawings of noto.*vendors are fluent'),
        (dict(split='val', vendors=[]), 'no drawings of no vendor'),
        (dict(split='train', languages=['en', 'xx']), r"en, de, .*, not \['en', 'xx'\]"),
        (dict(split='train', languages=[]), 'must be a list of some of en, de'),
        (dict(split='train', languages='de'), "not 'de'"),
        (dict(split='val', languages=['en', 'de']), 'takes one language'),
        (dict(split='train', task='t', languages=['en', 'de']), 'takes one language'),
        (dict(split='val', label='subgroup', languages=['de']), "and label='name'"),
    ],
)
def test_unknown_choices_are_named(wrong, says):
    with pytest.raises(ValueError, match=says):
        EmojiDataset(**wrong)


def test_every_emoji_has_a_name_of_its_own_in_every_language(samples):
    names = read_names()
    assert list(names) == ['en', 'de', 'fr', 'es', 'ru', 'ar', 'hi', 'zh', 'ja', 'th']
    emoji = {s['codepoint']: s['name'] for part in samples.values() for s in part}
    assert names['en'] == {codepoint: [name] for codepoint, name in sorted(emoji.items())}
    for language, texts in names.items():
        assert texts.keys() == emoji.keys(), language
        assert len({name for name, *_ in texts.values()}) == len(emoji), language
        assert all(len(row) <= 7 and all(row) for row in texts.values()), language
    cat = [names[language]['1f431'][0] for language in names]
    assert cat[:3] == ['cat face', 'Katzengesicht', 'tête de chat']
    assert (cat[7], cat[9]) == ('猫脸', 'หน้าแมว')


def test_a_visit_draws_a_language():
    names = read_names()
    dataset = EmojiDataset('train', languages=['en', 'zh', 'th'])
    english = EmojiDataset('train').get_data_info(7)
    codepoint = english['img_name'].rpartition('_')[2]
    seen = {tuple(dataset.get_data_info(7)['text']) for _ in range(60)}
    assert {len(captions) for captions in seen} == {3}
    drawn = {names[code][codepoint][0] for code in ('en', 'zh', 'th')}
    assert {captions[0] for captions in seen} == drawn
    (own,) = (captions for captions in seen if captions[0] == english['text'][0])
    assert set(own) == set(english['text'])
    (thai,) = (captions for captions in seen if captions[0] == names['th'][codepoint][0])
    keywords = names['th'][codepoint][1:]
    assert thai[1] == f'{thai[0]}: {", ".join(keywords[:3])}'
    ignored = EmojiDataset('train', languages=['zh'], captions='ignored')
    assert 'text' not in ignored.get_data_info(7)


def test_classes_in_a_language():
    names = read_names()
    dataset, english = EmojiDataset('val', languages=['de']), EmojiDataset('val')
    assert (dataset.metainfo['task'], len(dataset.metainfo['classes'])) == ('val_de', 1436)
    for index in range(0, len(dataset), 100):
        info = dataset.get_data_info(index)
        codepoint = info['img_name'].rpartition('_')[2]
        assert dataset.metainfo['classes'][info['gt_label']] == names['de'][codepoint][0]
        assert info['gt_label'] == english.get_data_info(index)['gt_label']
    seen = EmojiDataset('train', vendors=['emojione'], task='seen', languages=['de'])
    assert seen.metainfo['task'] == 'seen'
    assert 'grinsendes Gesicht' in seen.metainfo['classes']


def test_licences_are_shipped():
    readme = (DATA / 'README.md').read_text(encoding='utf-8')
    for path in (DATA / 'LICENSES').iterdir():
        assert f'LICENSES/{path.name}' in readme
        assert path.stat().st_size > 500


@pytest.mark.parametrize(
    'names',
    [
        ('astronaut', 'man astronaut', 'woman astronaut'),
        ('man', 'woman', 'person', 'boy', 'girl', 'old man', 'older person'),
        ('prince', 'princess'),
        ('crown', 'person with crown'),
        ('merman', 'mermaid', 'merperson'),
        ('people wrestling', 'men wrestling', 'women wrestling'),
        ("one o'clock", 'two o\u2019clock', 'twelve-thirty'),
        ('keycap: 1', 'keycap: 10', 'keycap: #'),
        ('up arrow', 'down-left arrow', 'right arrow curving left', 'BACK arrow'),
        ('new moon', 'full moon face', 'waxing crescent moon'),
        ('red heart', 'blue heart', 'two hearts', 'heart with arrow'),
        ('cat', 'cat face', 'cat with wry smile', 'weary cat'),
        ('dragon', 'dragon face'),
        ('monkey', 'see-no-evil monkey'),
        ('smiling face', 'smiling face with halo'),
        ('red apple', 'green apple'),
        ('locked', 'unlocked', 'locked with key'),
        ('thumbs up', 'thumbs down'),
        ('bus', 'oncoming bus'),
    ],
)
def test_variants_share_a_concept(names):
    assert len({concept_key(name) for name in names}) == 1


@pytest.mark.parametrize(
    ('one', 'other'),
    [
        ('dragon', 'dragon boat'),
        ('heart with arrow', 'bow and arrow'),
        ('crescent moon', 'moon cake'),
        ('man astronaut', 'man cook'),
        ('flag: Peru', 'flag: Chad'),
        ('apple', 'pineapple'),
        ('boy', 'baby'),
    ],
)
def test_different_things_do_not_share_a_concept(one, other):
    assert concept_key(one) != concept_key(other)


def test_a_drawing_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = EmojiDataset('val')
    first = dataset.get_data_info(3)
    assert first['img'].shape == (64, 64, 3)
    monkeypatch.setattr(dataset, 'read_member', None)
    first['img'][:] = 0  # a transform may write into its picture
    second = dataset.get_data_info(3)
    assert second['img'].any()
    del first['img'], second['img']
    assert second == first
    assert len(pickle.dumps(dataset)) < 2 * len(pickle.dumps(EmojiDataset('val')))


def test_a_part_of_a_set_keeps_its_drawings() -> None:
    dataset = EmojiDataset('val')
    second, third = dataset.get_data_info(2), dataset.get_data_info(3)
    part = dataset.get_subset([3, 2])
    for index, whole in enumerate([third, second]):
        info = part.get_data_info(index)
        np.testing.assert_array_equal(info['img'], whole['img'])
        assert (info['text'], info['gt_label']) == (whole['text'], whole['gt_label'])
        assert info['sample_idx'] == index


def test_a_decoded_drawing_is_that_of_the_file() -> None:
    dataset = EmojiDataset('val')
    encoded = ShardDataset.get_data_info(dataset, 5)
    for _ in range(2):
        np.testing.assert_array_equal(dataset.get_data_info(5)['img'], LoadImage()(encoded)['img'])
        encoded = ShardDataset.get_data_info(dataset, 5)
