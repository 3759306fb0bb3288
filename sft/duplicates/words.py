"""The words of a text in any script, which duplicates and contamination are counted by."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Scripts that put no space between words: Chinese, Japanese, Thai, Lao, Khmer, Burmese.
_UNSPACED = (
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+(?:['’][^\\W{_UNSPACED}]+)*")
_RUN = re.compile(f"[{_UNSPACED}]+|[^\\W{_UNSPACED}]+(?:['’][^\\W{_UNSPACED}]+)*")
_ASCII_WORD = re.compile(r"\w+(?:'\w+)*", re.ASCII)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
#: Characters of a shingle where words have no spaces between them.
_CHARACTERS = 3


def words_of(text: str) -> list[str]:
    """Return the words of a text, in lower case, without punctuation.

    A character of a script without spaces (Chinese, Japanese, Thai) is a word.

    >>> words_of("Don't panic, 你好!")
    ["don't", 'panic', '你', '好']
    """
    return (_ASCII_WORD if text.isascii() else _WORD).findall(text.casefold())


def shingles_of(text: str) -> list[str]:
    """Return what two texts are compared by: words, and runs of three characters without spaces.

    Chinese has no spaces, so its words are not known, and single characters are in every text.

    >>> shingles_of("Say 今天天气好")
    ['say', '今天天', '天天气', '天气好']
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.casefold())
    shingles: list[str] = []
    for run in _RUN.findall(text.casefold()):
        if len(run) > _CHARACTERS and _WORD.match(run)[0] != run:  # type: ignore[index]
            shingles += (run[n : n + _CHARACTERS] for n in range(len(run) - _CHARACTERS + 1))
        else:
            shingles.append(run)
    return shingles


def numbers_of(text: str) -> list[str]:
    """Return the numbers in a text, sorted."""
    return sorted(_NUMBER.findall(text))


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Return |A ∩ B| / |A ∪ B|; 1 for two empty sets."""
    union = len(first | second)
    return len(first & second) / union if union else 1.0


def order_similarity(first: Sequence[str], second: Sequence[str]) -> float:
    """Return how much of two sequences stands in the same order, from 0 to 1.

    Twice the length of the longest common subsequence over the sum of the lengths, so "thanks ok"
    and "ok thanks" are 0.5, though their sets are equal.
    """
    from rapidfuzz.distance import Indel

    return float(Indel.normalized_similarity(first, second))
