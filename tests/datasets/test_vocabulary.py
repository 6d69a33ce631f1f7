"""Vocabularies trained on captions, and words of many scripts."""

import gzip
import hashlib
from pathlib import Path

import pytest

from mmslip.datasets import CLIPTokenizer
from mmslip.datasets.text.vocabulary import OWN_HEADER, count_words, train_merges

# Ten times each, so that every pair of bytes is seen often enough.
CAPTIONS = {
    'de': ['ein Eichhörnchen am Straßenrand', 'Größe und Kürbis'],
    'hi': ['बिल्ली सोफे पर सो रही है', 'लाल साइकिल'],
    'th': ['แมวนอนหลับบนโซฟา', 'รถจักรยานสีแดง'],
    'ar': ['قطَّة تنام على العشب', 'درّاجة حمراء'],
    'zh': ['猫在桌子上睡觉', '一辆红色的自行车'],
}
ALL = [text for texts in CAPTIONS.values() for text in texts] * 10


@pytest.fixture(scope='module')
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('words') / 'own_merges.txt.gz'
    train_merges(ALL, path)
    return path


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('a cat, asleep', 3),
        ("it's well-known - yes", 3),
        ('größer, 12 Uhr', 3),
        ('कुत्ता सो रहा है', 4),
        ('猫在桌子上睡觉。', 3.5),
        ('ねこ と イヌイヌ', 2.5),
        ('แมวนอน', 1.5),  # six letters, and no mark
        ('ที่นี่', 0.5),  # two letters and four marks
        ('红 car', 1.5),
        (' - ! ', 0),
        ('', 0),
    ],
)
def test_count_words(text: str, words: float) -> None:
    assert count_words(text) == words


@pytest.mark.parametrize('language', CAPTIONS)
def test_words_of_the_captions_become_tokens(table: Path, language: str) -> None:
    own, clip = CLIPTokenizer(merges_file=table), CLIPTokenizer()
    for text in CAPTIONS[language]:
        ids = own.encode(text)
        assert own.decode(ids) == text.lower()
        assert len(ids) <= 2.5 * count_words(text) < len(clip.encode(text)) + 1
    words = [word for text in CAPTIONS[language] for word in text.split()]
    short = [word for word in words if len(word.encode()) <= 16]
    assert [len(own.encode(word)) for word in short] == [1] * len(short)


def test_same_captions_give_the_same_table(table: Path, tmp_path: Path) -> None:
    number = train_merges(reversed(ALL), tmp_path / 'again.gz')
    assert (tmp_path / 'again.gz').read_bytes() == table.read_bytes()
    lines = gzip.decompress(table.read_bytes()).decode().splitlines()
    assert (lines[0], len(lines)) == (OWN_HEADER, 1 + number)
    # As in any other process.
    assert hashlib.sha256('\n'.join(lines).encode()).hexdigest()[:16] == 'd267fe49a9f03a04'


def test_rare_pairs_and_long_words_stay_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / 'own.gz'
    assert train_merges(['owl'] * 4, path) == 0
    assert train_merges(['owl'] * 5, path) == 2  # o w, ow l</w>
    assert train_merges(['owl'] * 5, path, num_merges=1) == 1
    train_merges(['睡' * 40] * 5, path)
    pieces = CLIPTokenizer(merges_file=path).encode('睡' * 40)
    assert 5 <= len(pieces) < 40


def test_settings_of_an_own_table(table: Path, tmp_path: Path) -> None:
    whole = CLIPTokenizer(merges_file=table)
    merges = len(gzip.decompress(table.read_bytes()).splitlines()) - 1
    assert (whole.own, whole.num_merges, whole.vocab_size) == (True, merges, 514 + merges)
    assert CLIPTokenizer(merges_file=table, num_merges=9).vocab_size == 523
    assert (CLIPTokenizer().own, CLIPTokenizer().num_merges) == (False, 48894)
    plain = tmp_path / 'merges.txt'
    plain.write_bytes(gzip.decompress(table.read_bytes()))
    text = CAPTIONS['hi'][0]
    assert CLIPTokenizer(merges_file=plain)(text).equal(whole(text))
    controls = CLIPTokenizer(merges_file=table, parse_control_tokens=True)
    assert controls.encode(f'<|endoftext|>{text}') == [whole.end_id, *whole.encode(text)]


def test_table_of_the_package() -> None:
    ten = CLIPTokenizer(24, merges_file='mmslip::emoji/languages_merges.txt.gz')
    assert (ten.own, ten.vocab_size) == (True, 16514)
    for name in ('grinning face', 'Hund', 'chat', 'улыбка', 'кошка', '猫', 'แมว', 'बिल्ली'):
        assert len(ten.encode(name)) <= 2, name
    with pytest.raises(FileNotFoundError, match="at 'mmslip::none'"):
        CLIPTokenizer(merges_file='mmslip::none')
