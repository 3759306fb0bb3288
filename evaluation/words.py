"""Words of a text in any script.

Words are split at white space. Scripts that are written without spaces (Chinese, Japanese kana,
Thai, Lao, Khmer, Burmese and others) have no such words: there each character counts as one word,
with its combining marks, as is usual for ROUGE and F1 in these languages. A text in a script with
spaces gives exactly ``text.split()``.
"""

from __future__ import annotations

import re

#: Code points of scripts that are written without spaces between words.
_UNSPACED_RANGES = (
    ("\u0e00", "\u0eff"),  # Thai, Lao
    ("\u0f00", "\u0fff"),  # Tibetan
    ("\u1000", "\u109f"),  # Burmese
    ("\u1780", "\u17ff"),  # Khmer
    ("\u19e0", "\u19ff"),  # Khmer symbols
    ("\u1a20", "\u1aaf"),  # Tai Tham
    ("\u2e80", "\u2fdf"),  # Han radicals
    ("\u3001", "\u303f"),  # CJK punctuation, iteration marks and numerals
    ("\u3041", "\u30ff"),  # Hiragana, Katakana
    ("\u3105", "\u312f"),  # Bopomofo
    ("\u31a0", "\u31ff"),  # Bopomofo and Katakana extensions
    ("\u3400", "\u4dbf"),  # Han
    ("\u4e00", "\u9fff"),  # Han
    ("\ua000", "\ua4cf"),  # Yi
    ("\uaa60", "\uaa7f"),  # Burmese extension
    ("\uf900", "\ufaff"),  # Han compatibility
    ("\uff01", "\uff0f"),  # full-width punctuation
    ("\uff1a", "\uff20"),
    ("\uff3b", "\uff40"),
    ("\uff5b", "\uff9d"),  # and half-width Katakana
    ("\U00020000", "\U0003ffff"),  # Han extensions
)
_UNSPACED = "".join(f"{first}-{last}" for first, last in _UNSPACED_RANGES)
#: Marks of these scripts that are written on the character before them.
_MARKS = (
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e"  # Thai
    "\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece"  # Lao
    "\u0f71-\u0f84\u0f86\u0f87\u0f8d-\u0fbc"  # Tibetan
    "\u102b-\u103e\u1056-\u1059\u105e-\u1060\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108d"
    "\u17b4-\u17d3\u17dd"  # Khmer
    "\u1a55-\u1a7f"  # Tai Tham
    "\u3099\u309a\u0300-\u036f\ufe00-\ufe0f"  # kana voicing, combining marks, variation selectors
)
_ANY_UNSPACED = re.compile(f"[{_UNSPACED}]")
_PARTS = re.compile(f"[{_UNSPACED}][{_MARKS}]*|[^{_UNSPACED}]+")


def has_unspaced_script(text: str) -> bool:
    """Return whether a text holds characters of a script that is written without spaces."""
    return _ANY_UNSPACED.search(text) is not None


def words_of(text: str) -> list[str]:
    """Return the words of a text in order; a character is a word in scripts without spaces."""
    words = text.split()
    if not has_unspaced_script(text):
        return words
    return [part for word in words for part in _PARTS.findall(word)]
