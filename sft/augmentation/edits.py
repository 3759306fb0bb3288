"""Edits of a text's surface that leave its meaning (EDA: Wei and Zou, 2019, arXiv 1901.11196).

Each takes the words and the spaces between them, how many edits to make, and a random generator.
Chinese is edited by characters where it is by words elsewhere, since no spaces part words there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import TypeVar

from plumbline.errors import ConfigError
from plumbline.tables import Table

_Place = TypeVar("_Place")
SYNONYMS = Path(__file__).with_name("synonyms.txt")
_TOKEN = re.compile(r"[A-Za-z]+(?:['’-][A-Za-z]+)*|[\u3400-\u9fff]|\s+|.", re.DOTALL)
#: What no edit touches: code, addresses, numbers, masks and formulas lose their meaning.
_FIXED = re.compile(
    r"```.*?(?:```|\Z)|`[^`]*`|https?://\S+|\S+@\S+|\[[A-Z][A-Z0-9_]*_\d+\]|\$[^$]+\$|\S*\d\S*",
    re.DOTALL,
)
#: Words that turn a sentence round: none of them is deleted or replaced.
_KEPT = frozenset(
    [
        "not",
        "no",
        "never",
        "none",
        "without",
        "except",
        "only",
        "unless",
        "n't",
        "isn't",
        "don't",
        "doesn't",
        "can't",
        "cannot",
        "won't",
        "didn't",
        "wasn't",
        "aren't",
        "nor",
        "neither",
        "if",
        "all",
        "any",
        "不",
        "没",
        "无",
        "非",
        "未",
        "别",
        "勿",
        "否",
    ]
)
_NEIGHBORS = {
    "a": "qs", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj",
    "i": "uo", "j": "hk", "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o",
    "q": "wa", "r": "et", "s": "ad", "t": "ry", "u": "yi", "v": "cb", "w": "qe", "x": "zc",
    "y": "tu", "z": "x",
}  # fmt: skip


@dataclass(frozen=True)
class Draft:
    """A text that is being edited, and what edits may draw on."""

    tokens: list[str]
    """Words, signs and spaces; together they are the text."""
    places: list[int]
    """Which tokens may be edited."""
    count: int
    """How many edits to make."""
    random: Random
    synonyms: Mapping[str, Sequence[str]]

    def some(self, places: list[_Place]) -> list[_Place]:
        """Return as many of these as there are edits to make, drawn at random."""
        return self.random.sample(places, min(self.count, len(places)))

    def words_with_synonyms(self) -> list[int]:
        """Return the places of words that the list of synonyms has."""
        return [p for p in self.places if self.tokens[p].casefold() in self.synonyms]

    def synonym_of(self, place: int) -> str:
        """Return a synonym of a word, as the list writes it."""
        return self.random.choice(self.synonyms[self.tokens[place].casefold()])


@dataclass(frozen=True)
class Edit:
    """One kind of edit."""

    name: str
    apply: Callable[[Draft], None]
    """Edits the tokens of a draft in place, at some of its places."""
    about: str


def edited(
    text: str, edit: Edit, share: float, random: Random, synonyms: Mapping[str, Sequence[str]]
) -> str:
    """Return a text with a share of its words edited, one at least; the text where none can be."""
    tokens, places = _tokens(text)
    if len(places) < 3:
        return text
    count = max(1, round(share * len(places)))
    edit.apply(Draft(tokens, places, count, random, synonyms))
    return "".join(tokens)


def read_synonyms(file: Path) -> dict[str, tuple[str, ...]]:
    """Read a list of synonyms: words that can stand for each other on a line, with spaces between.

    Raises `ConfigError` where a word stands on two lines: it would have two meanings.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The synonyms in {file} cannot be read: {error}.") from None
    table: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, 1):
        words = [] if line.startswith("#") else line.casefold().split()
        for word in words:
            if word in table:
                raise ConfigError(
                    f"{file}, line {number}: {word!r} stands on an earlier line, too."
                )
            table[word] = tuple(other for other in words if other != word)
    if not table:
        raise ConfigError(f"{file} has no synonyms. Give words that mean the same on one line.")
    return table


@cache
def shipped_synonyms() -> dict[str, tuple[str, ...]]:
    """Return the small list that comes with Plumbline."""
    return read_synonyms(SYNONYMS)


def _tokens(text: str) -> tuple[list[str], list[int]]:
    """Return a text's words, signs and spaces, and which of them may be edited."""
    tokens: list[str] = []
    places: list[int] = []
    at = 0
    for fixed in [*(match.span() for match in _FIXED.finditer(text)), (len(text), len(text))]:
        for token in _TOKEN.findall(text[at : fixed[0]]):
            if token[0].isalpha() and token.casefold() not in _KEPT:
                places.append(len(tokens))
            tokens.append(token)
        if fixed[0] < fixed[1]:
            tokens.append(text[slice(*fixed)])
        at = fixed[1]
    return tokens, places


def _as_written(word: str, like: str) -> str:
    return word.capitalize() if like[:1].isupper() else word


def _synonym(draft: Draft) -> None:
    tokens, synonyms = draft.tokens, draft.synonyms
    words = draft.words_with_synonyms()
    # A Chinese word is two characters here.
    pairs = [
        p
        for p in draft.places[:-1]
        if len(tokens[p]) == 1 and tokens[p] + tokens[p + 1] in synonyms
    ]
    for place in draft.some(words):
        other = draft.synonym_of(place)
        tokens[place] = _as_written(other, tokens[place])
    for place in draft.some(pairs):
        if tokens[place] + tokens[place + 1] in synonyms:
            tokens[place] = draft.random.choice(synonyms[tokens[place] + tokens[place + 1]])
            tokens[place + 1] = ""


def _swap(draft: Draft) -> None:
    # Neighbours only: words far apart say something else when they change places.
    near = [(a, b) for a, b in pairwise(draft.places) if b - a <= 2]
    for a, b in draft.some(near):
        draft.tokens[a], draft.tokens[b] = draft.tokens[b], draft.tokens[a]


def _insertion(draft: Draft) -> None:
    for place in draft.some(draft.words_with_synonyms()):
        draft.tokens[place] = f"{draft.tokens[place]} {draft.synonym_of(place)}"


def _deletion(draft: Draft) -> None:
    tokens, places = draft.tokens, draft.places
    for place in draft.random.sample(places, min(draft.count, len(places) - 2)):
        tokens[place] = ""
        if place + 1 < len(tokens) and tokens[place + 1].isspace():
            tokens[place + 1] = ""


def _spacing(draft: Draft) -> None:
    tokens = draft.tokens
    for place in draft.some(draft.places):
        if draft.random.random() < 0.5 and place + 1 < len(tokens) and tokens[place + 1] == " ":
            tokens[place + 1] = ""
        else:
            tokens[place] += " "


def _case(draft: Draft) -> None:
    for place in draft.some(draft.places):
        word = draft.tokens[place]
        draft.tokens[place] = (
            word.lower()
            if word != word.lower()
            else draft.random.choice((word.upper(), word.capitalize()))
        )


def _typing(draft: Draft) -> None:
    tokens, random = draft.tokens, draft.random
    words = [p for p in draft.places if len(tokens[p]) > 3 and tokens[p].isascii()]
    for place in draft.some(words):
        word = tokens[place]
        at = random.randrange(1, len(word) - 1)
        near = _NEIGHBORS.get(word[at].lower(), word[at])
        tokens[place] = random.choice(
            (
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],  # two letters change places
                word[:at] + word[at + 1 :],  # one is missing
                word[:at] + word[at] + word[at:],  # one comes twice
                word[:at] + random.choice(near) + word[at + 1 :],  # the key beside it
            )
        )


EDITS: Table[Edit] = Table(
    "edit",
    [
        Edit("synonym", _synonym, "words become synonyms from a list"),
        Edit("swap", _swap, "neighboring words change places"),
        Edit("insertion", _insertion, "a synonym is put behind its word"),
        Edit("deletion", _deletion, "words are left out, but none that turns a sentence round"),
        Edit("spacing", _spacing, "spaces are left out or come twice"),
        Edit("case", _case, "words in small or capital letters"),
        Edit("typing", _typing, "errors of typing: changed, missing, doubled and wrong letters"),
    ],
)
