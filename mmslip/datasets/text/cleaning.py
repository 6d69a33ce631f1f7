"""Cleaning of captions, as CLIP does it before byte-pair encoding."""

import html

import ftfy
import regex

__all__ = ['clean', 'is_blank']

# Longer texts are cut first: some hundred tokens are read, and cleaning 8 MB takes seconds.
_MAX_CHARS = 2**14
# Python refuses to convert numbers of more than 4,300 digits; these are no character anyway.
_LONG_REFERENCE = regex.compile('&#[0-9]{20,};?')
# Unicode's control, format and ignorable characters show nothing, as spaces do.
_VISIBLE = regex.compile(r'[^\s\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}]')


def clean(text: str) -> str:
    """Repair encoding errors, unescape HTML twice, collapse white space, lower-case.

    Half surrogate pairs become U+FFFD. Of a text beyond 16,384 characters the rest is left out.
    """
    text = text[:_MAX_CHARS]
    # On printable ASCII without "&" the repair and the unescaping change nothing and would
    # take most of the time of a caption.
    if not (text.isascii() and text.isprintable() and '&' not in text):
        text = _unescape(_unescape(ftfy.fix_text(text)))
    return ' '.join(text.split()).lower()


def _unescape(text: str) -> str:
    return html.unescape(_LONG_REFERENCE.sub('\ufffd', text))


def is_blank(text: str) -> bool:
    """Whether nothing visible is left of a text when it is clean."""
    return not _VISIBLE.search(clean(text))
