"""Names of people from a list: there is no other way to find them without a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from plumbline.errors import ConfigError

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_HAN = re.compile(r"[\u3400-\u9fff]")


class NameList:
    """Names to be found in texts, in time that does not grow with the list.

    A name in letters is found as whole words, spelled as in the list; one in Chinese characters
    wherever it stands, since no spaces part words there. The longest name at a place counts.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._by_word: dict[str, set[tuple[str, ...]]] = {}
        self._with_stop: set[tuple[str, ...]] = set()
        self._han: dict[str, set[str]] = {}
        for name in names:
            if _HAN.match(name):
                self._han.setdefault(name[0], set()).add(name)
            elif words := tuple(_WORD.findall(name)):
                self._by_word.setdefault(words[0], set()).add(words)
                if name.endswith("."):  # as in Jr.
                    self._with_stop.add(words)

    @classmethod
    def read(cls, file: Path) -> NameList:
        """Read a file with one name a line; empty lines and those with # first do not count."""
        try:
            lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The names in {file} cannot be read: {error}.") from None
        names = [line for line in lines if line and not line.startswith("#")]
        short = [name for name in names if len(name) < 2]
        if not names or short:
            raise ConfigError(
                f"{file} has {len(names)} names, {len(short)} of them of a single character "
                f"({', '.join(short[:5])}). Give one name of two or more characters a line."
                if names
                else f"{file} has no names. Give one a line."
            )
        return cls(names)

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the places of names in a text."""
        if self._by_word:
            yield from self._find_words(text)
        if self._han:
            yield from self._find_characters(text)

    def _find_words(self, text: str) -> Iterator[tuple[int, int]]:
        words = [(match[0], *match.span()) for match in _WORD.finditer(text)]
        for number, (word, start, _) in enumerate(words):
            for name in sorted(self._by_word.get(word, ()), key=len, reverse=True):
                places = words[number : number + len(name)]
                if tuple(word for word, _, _ in places) == name and _joined(text, places):
                    end = places[-1][2]
                    yield start, end + (text[end : end + 1] == "." and name in self._with_stop)
                    break

    def _find_characters(self, text: str) -> Iterator[tuple[int, int]]:
        for place, character in enumerate(text):
            for name in sorted(self._han.get(character, ()), key=len, reverse=True):
                if text.startswith(name, place):
                    yield place, place + len(name)
                    break


def _joined(text: str, words: list[tuple[str, int, int]]) -> bool:
    """Return whether only spaces, or the full stop of an initial, part these words."""
    gaps = [text[end:start] for (_, _, end), (_, start, _) in pairwise(words)]
    return all(re.fullmatch(r"\.?[ \t]{1,2}|\n", gap) for gap in gaps)
