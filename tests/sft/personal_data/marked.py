"""Texts in which personal data is marked ``⟦kind value⟧``, and how a masker does on them."""

from __future__ import annotations

import re
from pathlib import Path

MARK = re.compile(r"⟦([a-z_]+) (.+?)⟧")
BY_HAND = Path(__file__).with_name("written_by_hand.txt")


def read(line: str) -> tuple[str, set[tuple[int, int, str]]]:
    """The text without its marks, and where they were."""
    text, spans, at = "", set(), 0
    for match in MARK.finditer(line):
        text += line[at : match.start()]
        spans.add((len(text), len(text) + len(match[2]), match[1]))
        text += match[2]
        at = match.end()
    return text + line[at:], spans


def by_hand() -> list[tuple[str, set[tuple[int, int, str]]]]:
    return [read(line) for line in BY_HAND.read_text(encoding="utf-8").splitlines()]


def precision_and_recall(masker, lines):
    """Exact places and kinds count, nothing else; also what was missed and what was too much."""
    right = found = marked = 0
    wrong = []
    for text, spans in lines:
        places = {tuple(span) for span in masker.find(text)}
        right += len(places & spans)
        found += len(places)
        marked += len(spans)
        wrong += [("missed", text[s:e], kind, text) for s, e, kind in spans - places]
        wrong += [("too much", text[s:e], kind, text) for s, e, kind in places - spans]
    return right / found, right / marked, wrong
