"""A document as text, with its headings and pages, and where each of them stands."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Heading(NamedTuple):
    """A heading: where its line stands in the text, as in ``text[start:end]``, and its level."""

    start: int
    end: int
    level: int
    """1 is the highest."""
    title: str


@dataclass(frozen=True)
class Document:
    """A document's text. Places are offsets of characters in it."""

    name: str
    text: str
    headings: tuple[Heading, ...] = ()
    pages: tuple[int, ...] = ()
    """Where each page begins; empty for a document without pages."""
    blocked: tuple[tuple[int, int], ...] = ()
    """Places that hold code and the like, of which no sentence is taken."""

    def page_of(self, place: int) -> int | None:
        """Return the page of a place, from 1; None for a document without pages."""
        return bisect_right(self.pages, place) if self.pages else None

    def path_of(self, place: int) -> tuple[str, ...]:
        """Return the titles of the headings above a place, the highest first."""
        path: list[Heading] = []
        for heading in self.headings:
            if heading.start > place:
                break
            path = [above for above in path if above.level < heading.level] + [heading]
        return tuple(heading.title for heading in path)


class TextBuilder:
    """Puts a document's text together, block by block, and notes where blocks stand."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self.headings: list[Heading] = []
        self.blocked: list[tuple[int, int]] = []

    @property
    def length(self) -> int:
        """How long the text is so far."""
        return self._length

    def add(self, text: str, *, heading: int | None = None, code: bool = False) -> None:
        """Add a block, a blank line behind it; ``heading`` is its level where it is one."""
        text = text.strip("\n") if code else text.strip()
        if not text:
            return
        start, end = self._length, self._length + len(text)
        if heading is not None:
            self.headings.append(Heading(start, end, heading, " ".join(text.split())))
        if code:
            self.blocked.append((start, end))
        self._append(text + "\n\n")

    def document(self, name: str) -> Document:
        """Return the document."""
        text = "".join(self._parts)
        return Document(name, text, tuple(self.headings), (), tuple(self.blocked))

    def _append(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)


_END = re.compile(
    # Behind a full stop comes a space and no small letter; Chinese ends need no space.
    r"[.!?][\"'”’)\]]*(?=\s+[^a-z\s]|\s*\Z)|[。！？][”’」』）]*|\n[ \t>]*\n"
)
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|cf|vs|Dr|Mr|Mrs|Ms|Fig|No|St)|\b[A-Z])\.$")
_CHINESE = re.compile(r"[\u3400-\u9fff]")


def sentences(text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield where each sentence of a part of a text stands, white space around it left out."""
    end = len(text) if end is None else end
    begin = start
    for match in _END.finditer(text, start, end):
        if _ABBREVIATION.search(text, max(begin, match.start() - 6), match.start() + 1):
            continue
        yield from _stripped(text, begin, match.end())
        begin = match.end()
    yield from _stripped(text, begin, end)


def _stripped(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end and text[start] in " \t\n\r>":
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        yield start, end


_WORD = re.compile(r"[A-Za-z0-9_]+(?:['’-][A-Za-z0-9]+)*|[\u3400-\u9fff]")
#: Words that say nothing of what a sentence is about.
_EMPTY = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "those",
        "it",
        "its",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "am",
        "do",
        "does",
        "did",
        "has",
        "have",
        "had",
        "of",
        "in",
        "on",
        "at",
        "to",
        "for",
        "from",
        "by",
        "with",
        "as",
        "and",
        "or",
        "but",
        "not",
        "no",
        "so",
        "if",
        "then",
        "than",
        "there",
        "here",
        "we",
        "you",
        "your",
        "our",
        "they",
        "their",
        "he",
        "she",
        "his",
        "her",
        "i",
        "me",
        "my",
        "us",
        "them",
        "will",
        "would",
        "can",
        "could",
        "may",
        "might",
        "should",
        "must",
        "about",
        "into",
        "over",
        "under",
        "between",
        "what",
        "which",
        "who",
        "whom",
        "whose",
        "when",
        "where",
        "why",
        "how",
        "also",
        "very",
        "的",
        "了",
        "是",
        "在",
        "和",
        "与",
        "也",
        "就",
        "都",
        "而",
        "及",
        "着",
        "吗",
        "呢",
        "吧",
        "这",
        "那",
        "有",
        "什",
        "么",
        "为",
        "哪",
        "怎",
        "样",
        "如",
        "何",
    ]
)


def content_words(text: str) -> list[str]:
    """Return the words of a text that carry its meaning, in lower case; Chinese by characters.

    Plural endings are cut, so that *values* and *value* are one word.
    """
    words = (match[0].casefold() for match in _WORD.finditer(text))
    return [_stem(word) for word in words if word not in _EMPTY]


def _stem(word: str) -> str:
    for ending in ("ies", "es", "s", "ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)] + ("y" if ending == "ies" else "")
    return word


def is_chinese(text: str) -> bool:
    """Return whether a text is mostly Chinese."""
    return len(_CHINESE.findall(text)) * 2 > len(content_words(text))


def overlaps(start: int, end: int, places: Iterable[tuple[int, int]]) -> bool:
    """Return whether a stretch has a character in common with one of these places."""
    return any(start < other_end and other_start < end for other_start, other_end in places)
