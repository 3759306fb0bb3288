"""The language of a text, roughly: by its script, and for the Latin one by its commonest words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

_COMMON = {
    "English": "the and is of to that you for with this are not what have",
    "German": "der die und das ist nicht ein eine mit für auf ich sie zu",
    "French": "le la les et est une des que pour dans pas vous qui sur",
    "Spanish": "el los las y es una que para con por como del se no",
    "Portuguese": "o os as e é uma que para com não do da em você",
    "Italian": "il gli le e è una che per con non di della sono come",
    "Dutch": "de het een en is niet van dat voor met zijn ik je op",
}
_WORDS = {language: frozenset(words.split()) for language, words in _COMMON.items()}
_SCRIPTS = {
    "CJK": "Chinese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean",
    "CYRILLIC": "Cyrillic script", "ARABIC": "Arabic script", "DEVANAGARI": "Devanagari script",
    "GREEK": "Greek", "HEBREW": "Hebrew", "THAI": "Thai",
}  # fmt: skip
UNKNOWN = "unknown"
_LOOKED_AT = 400


def language_of(text: str) -> str:
    """Return the language of a text by name, or `UNKNOWN`. A heuristic, for tables of accuracy."""
    letters = [letter for letter in text[:_LOOKED_AT] if letter.isalpha()]
    if not letters:
        return UNKNOWN
    scripts = Counter(unicodedata.name(letter, "").split()[0] for letter in letters if letter)
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.1 * len(letters):
        return "Japanese"
    script, count = scripts.most_common(1)[0]
    if script in _SCRIPTS and count > 0.3 * len(letters):
        return _SCRIPTS[script]
    words = Counter(re.findall(r"\w+", text[: 4 * _LOOKED_AT].casefold()))
    counts = {language: sum(words[w] for w in common) for language, common in _WORDS.items()}
    best = max(counts, key=lambda language: counts[language])
    return best if counts[best] > 0 else UNKNOWN
