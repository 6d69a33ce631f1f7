"""Group the names of emoji into concepts, so that no variant of a held-out one is trained on."""

import re

# Names that are variants of one thing although their words differ.
FAMILIES = (
    (re.compile(r"o'clock|-thirty$"), 'clock face'),
    (re.compile(r'\bmoon( face)?$'), 'moon'),
    (re.compile(r'^globe\b'), 'globe'),
    (re.compile(r'\bmonkey\b'), 'monkey'),
    (re.compile(r'\bcat\b'), 'cat'),
    (re.compile(r'^heart\b|^(?!.*\bwith ).*\bhearts?$'), 'heart'),
    (re.compile(r'^(?!.*\b(with|bow)\b).*\barrows?\b'), 'arrow'),
)
PEOPLE = 'man men woman women person people boy boys girl girls child children adult lady'
# Words that tell variants of a thing apart, not things: who, which colour, size, way and number.
VARIANT_WORDS = frozenset(
    f"""{PEOPLE} old older santa mrs mx face head and of the in on for with
    red orange yellow green blue purple brown black white pink grey gray blond
    large medium small low high volume bright dim open closed done not raised lowered oncoming
    left right leftwards rightwards up down upwards downwards upper lower facing front back
    pointing hump inverted zero one two three four five six seven eight nine ten eleven twelve
    1st 2nd 3rd""".split()
)
SYNONYMS = {
    'princess': 'prince',
    'mermaid': 'merman',
    'merperson': 'merman',
    'unlocked': 'locked',
}


def stem(word: str) -> str:
    """Strip the common English endings, so that `smile` and `smiling` meet."""
    if word.endswith('s') and not word.endswith(('ss', 'us', 'is')) and len(word) > 3:
        word = word[:-1]
    for suffix in ('ing', 'ed'):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)]
            if word[-1] == word[-2] and word[-1] not in 'lsz':  # `grinn` of grinning, not `kiss`
                word = word[:-1]
            break
    return word[:-1] if word.endswith('e') and len(word) > 3 else word


def concept_key(name: str) -> str:
    """Name the concept of an emoji: equal for all variants of one thing.

    Gender, colour, size, direction and number words are dropped as is an addition after `with`
    (`cat with wry smile` is a cat); the stems of what remains, sorted, are the key. Flags of
    countries are a concept each.

    Args:
        name: Name of an emoji, or any other word or phrase.

    Returns:
        The key; never empty for a name that has a letter or a digit.
    """
    name = clean_name(name)
    if name.startswith('flag: '):
        return name
    for pattern, key in FAMILIES:
        if pattern.search(name):
            return key
    for phrase in (name.split(' with ')[0], name):
        words = re.findall(r'\w+', phrase.replace("'s", ''))
        words = [SYNONYMS.get(w, w) for w in words if w not in VARIANT_WORDS and not w.isdigit()]
        if words:
            return ' '.join(sorted({stem(w) for w in words}))
    words = re.findall(r'\w+', name)
    return 'person' if set(words) & set(PEOPLE.split()) else ' '.join(sorted(set(words)))


def clean_name(name: str) -> str:
    """Lower the case and turn typographic quotes into ASCII ones, as people type them."""
    return name.lower().translate(str.maketrans('\u2018\u2019\u201c\u201d', '\'\'""'))
