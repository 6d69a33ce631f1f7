"""Read the packages of emoji drawings and names, and find out which icon draws which emoji."""

import json
import re
import shutil
import subprocess
import tarfile
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from emoji_concepts import clean_name

NAMES_PACKAGE = 'emojibase-data'
# vendor -> npm package of its drawings, in the order in which they are written
VENDORS = {
    'noto': '@iconify-json/noto',
    'noto-v1': '@iconify-json/noto-v1',
    'twemoji': '@iconify-json/twemoji',
    'emojione': '@iconify-json/emojione',
    'fxemoji': '@iconify-json/fxemoji',
    'fluent': '@iconify-json/fluent-emoji-flat',
}
# Pinned: another release draws other pictures and renames some, and so changes the splits.
VERSIONS = {
    '@iconify-json/noto': '1.2.9',
    '@iconify-json/noto-v1': '1.2.5',
    '@iconify-json/twemoji': '1.2.5',
    '@iconify-json/emojione': '1.2.3',
    '@iconify-json/fxemoji': '1.2.2',
    '@iconify-json/fluent-emoji-flat': '1.2.6',
    NAMES_PACKAGE: '17.0.0',
}
# Names and keywords in all languages; those of the derived package are put together of others.
CLDR_VERSIONS = {'cldr-annotations-full': '48.2.0', 'cldr-annotations-derived-full': '48.2.0'}
# Icons of fxemoji whose name means another emoji than the one drawn (`wave` is one of water), or
# that came out as a black box.
FALSE_FRIENDS = {'bow', 'couple', 'down', 'keyboard', 'kiss', 'pout', 'pouting', 'sunglasses'}
FALSE_FRIENDS |= {'tramcar', 'umbrella', 'wave'}
SHORTCODES = ('emojibase', 'github', 'iamcal', 'joypixels')


@dataclass(frozen=True)
class Emoji:
    """Facts of Unicode about one emoji.

    Attributes:
        codepoint: Hexadecimal code points joined by hyphens, without variation selectors.
        name: CLDR short name, lower case, typographic quotes as ASCII ones.
        tags: CLDR keywords.
        group: Group of the Unicode emoji list, e.g. `animals-nature`.
        subgroup: Subgroup of that list, e.g. `animal-mammal`.
    """

    codepoint: str
    name: str
    tags: tuple[str, ...]
    group: str
    subgroup: str


def clean_codepoint(codepoint: str) -> str:
    """Drop the variation selector FE0F, which vendors set or leave out as they like."""
    return '-'.join(c for c in codepoint.lower().split('-') if c != 'fe0f')


def package_path(npm_dir: Path, package: str) -> Path:
    """Return where `npm pack` puts a package."""
    version = {**VERSIONS, **CLDR_VERSIONS}[package]
    return npm_dir / f'{package.lstrip("@").replace("/", "-")}-{version}.tgz'


def fetch_packages(npm_dir: Path, versions: dict[str, str]) -> None:
    """Fetch the packages that `npm_dir` lacks."""
    missing = [p for p in versions if not package_path(npm_dir, p).exists()]
    if not missing:
        return
    specs = [f'{p}@{versions[p]}' for p in missing]
    if shutil.which('npm') is None:
        raise SystemExit(
            f'{npm_dir} lacks {", ".join(package_path(npm_dir, p).name for p in missing)} and npm '
            f'is not installed: install Node.js, or run `npm pack {" ".join(specs)}` on another '
            'machine and copy the files there'
        )
    npm_dir.mkdir(parents=True, exist_ok=True)
    for spec in specs:
        if subprocess.run(['npm', 'pack', '--silent', spec], cwd=npm_dir).returncode:
            raise SystemExit(f'`npm pack {spec}` failed in {npm_dir}: see its message above')


def read_json(npm_dir: Path, package: str, name: str) -> dict | list:
    """Read one JSON file of a fetched package."""
    path = package_path(npm_dir, package)
    try:
        with tarfile.open(path) as archive:
            return json.load(archive.extractfile(f'package/{name}'))
    except (KeyError, ValueError, tarfile.TarError) as error:
        raise SystemExit(f'{path}: cannot read {name} ({error}): delete it and run again') from None


def load_emoji(npm_dir: Path) -> dict[str, Emoji]:
    """Read names, tags and groups of all emoji, skin tones and components left out."""
    meta = read_json(npm_dir, NAMES_PACKAGE, 'meta/groups.json')
    table = {}
    for entry in read_json(npm_dir, NAMES_PACKAGE, 'en/data.json'):
        # skin tones are nested under their base; regional indicators have no group at all
        group = meta['groups'].get(str(entry.get('group')), 'component')
        if group == 'component':
            continue
        codepoint = clean_codepoint(entry['hexcode'])
        table[codepoint] = Emoji(
            codepoint=codepoint,
            name=clean_name(entry['label']),
            tags=tuple(clean_name(t) for t in entry.get('tags', [])),
            group=group,
            subgroup=meta['subgroups'][str(entry['subgroup'])],
        )
    return table


def squash(name: str) -> str:
    """Reduce a name to letters and digits, the way the vendors' icon names agree best."""
    name = re.sub(r'^flag-for-(flag-)?', 'flag-', name.lower())
    name = unicodedata.normalize('NFKD', name).encode('ascii', 'ignore').decode()
    return re.sub(r'[^a-z0-9]', '', name)


def name_tables(npm_dir: Path, emoji: dict[str, Emoji]) -> list[dict[str, str]]:
    """Build the look-ups from squashed name to code point, the most trusted first.

    In turn: the CLDR names of today; the icon names and their aliases of the vendors that give
    code points (CLDR names of other years); the Unicode character names; the shortcodes of chats.
    """
    today = [(e.name, c) for c, e in emoji.items()]
    icon_names, aliases = [], []
    for package in VENDORS.values():
        chars = dict(read_json(npm_dir, package, 'chars.json'))
        icon_names += [(icon, c) for c, icon in chars.items()]
        codepoints = {icon: c for c, icon in chars.items()}
        for name, alias in read_json(npm_dir, package, 'icons.json').get('aliases', {}).items():
            aliases.append((name, codepoints.get(alias['parent'], '')))
    unicode_names = read_json(npm_dir, NAMES_PACKAGE, 'meta/unicode-names.json')
    shortcodes = []
    for source in SHORTCODES:
        codes = read_json(npm_dir, NAMES_PACKAGE, f'en/shortcodes/{source}.json')
        for c, names in codes.items():
            shortcodes += [(n, c) for n in ([names] if isinstance(names, str) else names)]
    tables = []
    for tier in (
        today,
        icon_names,
        aliases,
        [(n, c) for c, n in unicode_names.items()],
        shortcodes,
    ):
        found = defaultdict(set)
        for name, codepoint in tier:
            if clean_codepoint(codepoint) in emoji:
                found[squash(name)].add(clean_codepoint(codepoint))
        # a name of two emoji tells nothing
        tables.append({n: c.pop() for n, c in found.items() if len(c) == 1})
    return tables


def match_icons(
    npm_dir: Path, package: str, emoji: dict[str, Emoji], tables: list[dict[str, str]]
) -> tuple[dict[str, str], list[str]]:
    """Find the icon of each emoji in one package.

    Args:
        npm_dir: Folder of the fetched packages.
        package: Package of the drawings.
        emoji: All emoji by code point.
        tables: Look-ups by name, for the packages without code points.

    Returns:
        The icon name of each code point, and the icons that no emoji was found for (skin tones
        not counted).
    """
    chars = dict(read_json(npm_dir, package, 'chars.json'))
    if chars:
        chars = {clean_codepoint(c): icon for c, icon in sorted(chars.items())}
        rest = [i for c, i in chars.items() if c not in emoji and not re.search('1f3f[b-f]', c)]
        return {c: icon for c, icon in chars.items() if c in emoji}, rest
    icons = set(read_json(npm_dir, package, 'icons.json')['icons'])
    rest = sorted(icons - FALSE_FRIENDS if package == VENDORS['fxemoji'] else icons)
    matched = {}
    for table in tables:
        for icon in rest:
            codepoint = table.get(squash(icon))
            if codepoint:
                matched.setdefault(codepoint, icon)
        rest = [i for i in rest if squash(i) not in table]
    return matched, [i for i in rest if 'skin-tone' not in i]
