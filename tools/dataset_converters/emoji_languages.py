"""Name the emoji of the data set in nine more languages, and train a vocabulary for all ten.

The names and keywords are those of Unicode CLDR, from its npm packages. Two files are written
beside the shards, which must be there (`emoji.py` makes them):

    python tools/dataset_converters/emoji_languages.py --npm-dir npm \
        --out mmslip/datasets/data/emoji

`languages.json.gz` has the names and keywords; `languages_merges.txt.gz` is a byte-pair vocabulary
of the captions that are trained on. Packages missing from `--npm-dir` are fetched with `npm pack`.
"""

import argparse
import gzip
import json
import tarfile
from pathlib import Path

from emoji_sources import CLDR_VERSIONS, clean_codepoint, fetch_packages, read_json

from mmslip.datasets import EmojiDataset
from mmslip.datasets.text.vocabulary import train_merges

# English captions are in the shards; its names are written, too, to find those of the others.
LANGUAGES = ('de', 'fr', 'es', 'ru', 'ar', 'hi', 'zh', 'ja', 'th')
MAX_KEYWORDS = 6  # as captions have
NUM_MERGES = 16_000


def english_names(folder: Path) -> dict[str, str]:
    """Names of all emoji of the shards, by code points."""
    names = {}
    for shard in sorted(folder.glob('*.tar.gz')):
        with tarfile.open(shard) as archive:
            for member in archive:
                if member.name.endswith('.json'):
                    sample = json.load(archive.extractfile(member))
                    names[sample['codepoint']] = sample['name']
    return dict(sorted(names.items()))


def read_annotations(npm_dir: Path, language: str) -> dict[str, dict]:
    """Name (`tts`) and keywords (`default`) of every emoji by its code points."""
    table = {}
    for package, kind in zip(CLDR_VERSIONS, ('annotations', 'annotationsDerived'), strict=True):
        content = read_json(npm_dir, package, f'{kind}/{language}/annotations.json')
        for emoji, entry in content[kind]['annotations'].items():
            table[clean_codepoint('-'.join(f'{ord(part):04x}' for part in emoji))] = entry
    return table


def describe(entry: dict) -> list[str]:
    """The name, and the first keywords that it does not hold already."""
    name = entry['tts'][0]
    keywords = [word for word in entry.get('default', []) if word.lower() not in name.lower()]
    return [name, *keywords[:MAX_KEYWORDS]]


def main() -> None:
    """Run the converter."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--npm-dir', type=Path, required=True, help='folder of the npm packages')
    parser.add_argument('--out', type=Path, required=True, help='folder of the shards')
    args = parser.parse_args()
    fetch_packages(args.npm_dir, CLDR_VERSIONS)
    english = english_names(args.out)
    names = {'en': {codepoint: [name] for codepoint, name in english.items()}}
    for language in LANGUAGES:
        table = read_annotations(args.npm_dir, language)
        names[language] = {}
        for codepoint, name in english.items():
            if codepoint not in table:
                print(f'{language}: no name for {name}, which stays English')
            names[language][codepoint] = describe(table.get(codepoint, {'tts': [name]}))
    text = json.dumps(names, ensure_ascii=False, indent=0)
    (args.out / 'languages.json.gz').write_bytes(gzip.compress(text.encode(), mtime=0))
    captions = []
    for language in names:
        train = EmojiDataset('train', languages=[language], pipeline=[])
        captions += [text for place in range(len(train)) for text in train[place]['text']]
    merges = train_merges(captions, args.out / 'languages_merges.txt.gz', NUM_MERGES)
    print(f'{len(english)} emoji in {len(names)} languages; {merges} merges')


if __name__ == '__main__':
    main()
