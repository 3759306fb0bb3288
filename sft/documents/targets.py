"""Which sentences of a document can be asked about, and how a question may begin."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from sft.documents.document import Document, content_words, is_chinese, overlaps, sentences
from sft.documents.slices import Slice


class Target(NamedTuple):
    """A sentence to ask about: ``document.text[start:end]``, within its slice."""

    document: int
    """The document's number."""
    slice: Slice
    start: int
    end: int
    sentence: str
    """Its words, without marks of Markdown and line breaks."""


#: Words with which a sentence leans on the one before it: nobody can ask about it alone.
_LEANING = re.compile(
    r"(?:This|That|These|Those|It|They|But|So|And|Or|Here|Let|Now|Then|We|Our|He|She|Its|Their|Also"
    r"|Instead|However|Therefore|For|In (?:this|that|our|both|other)|At this|With this|Because of"
    r"|You.ll|We.ll|Sometimes|By the same|Comparatively|There|Another|To do|As you)\b"
    r"|[-•*\d]|(?:这|那|它|他|她|但|而|所以|因此|此|其|同样|另外)",
)
_FACT = re.compile(
    r"\b(?:is|are|was|were|means?|because|called|when|if|must|can|cannot|allows?|so that|should"
    r"|has|have|returns?|stores?|requires?|ensures?|refers?|uses?|needs?)\b|是|指|因为|如果|必须|可以|应|会"
)
_ELSEWHERE = re.compile(
    r"Listing|Figure|Table \d|Chapter|the following|below|above|<|\||图\d|下文|上述"
)
_QUOTE = re.compile(r"\n[ \t]*>")
_LINK = re.compile(r"!?\[([^\]]*)\](?:\[[^\]]*\]|\([^)]*\))")
_EMPHASIS = re.compile(r"(?<![A-Za-z0-9_])(_{1,2}|\*{1,3})(?=\S)(.+?)(?<=\S)\1(?![A-Za-z0-9_])")


def plain_words(text: str) -> str:
    """Return a text on one line, without Markdown's marks of links, code, quotes and emphasis."""
    text = _LINK.sub(r"\1", _QUOTE.sub("\n", text)).replace("`", "")
    text = " ".join(text.split())
    return _EMPHASIS.sub(r"\2", _EMPHASIS.sub(r"\2", text))


def targets_of(
    number: int, document: Document, part: Slice, count: int, random: Random
) -> list[Target]:
    """Return up to so many sentences of a slice that can be asked about, drawn at random."""
    possible = []
    for start, end in sentences(document.text, part.start, part.end):
        written = plain_words(document.text[start:end])
        if not overlaps(start, end, document.blocked) and can_be_asked_about(written):
            possible.append(Target(number, part, start, end, written))
    drawn = random.sample(possible, min(count, len(possible)))
    return sorted(drawn, key=lambda target: target.start)


def can_be_asked_about(sentence: str) -> bool:
    """Return whether a sentence states something and can be understood alone."""
    words = content_words(sentence)
    low, high = (10, 80) if is_chinese(sentence) else (6, 28)
    return (
        low <= len(words) <= high
        and sentence[-1:] in ".!。！"
        and (sentence[0].isupper() or is_chinese(sentence))
        and _LEANING.match(sentence) is None
        and _ELSEWHERE.search(sentence) is None
        and _FACT.search(sentence) is not None
    )


_STARTS: Sequence[tuple[re.Pattern[str], str]] = (
    (re.compile(r"\b(?:because|so that|since|so you)\b"), "Why"),
    (re.compile(r"^When\b|\bwhen\b"), "What happens when"),
    (re.compile(r"^If\b|\bif\b"), "What happens if"),
    (re.compile(r"^(?:An? |The )?[\w' -]{2,40} is (?:an?|the|called) "), "What is"),
    (re.compile(r"^[\w' -]{2,40} are "), "What are"),
    (re.compile(r"\bmust\b|\bshould\b|\bneeds? to\b"), "What must"),
    (re.compile(r"\bcan\b|\bby \w+ing\b|\bin order to\b|\bto \w+"), "How"),
)
_CHINESE_STARTS: Sequence[tuple[re.Pattern[str], str]] = (
    (re.compile("因为|由于"), "为什么"),
    (re.compile("如果|当"), "如果"),
    (re.compile("是|指"), "什么是"),
)


def starts_of(sentence: str, count: int) -> list[str]:
    """Return ``count`` beginnings for questions that a sentence may answer, the fitting first."""
    chinese = is_chinese(sentence)
    table = _CHINESE_STARTS if chinese else _STARTS
    fitting = [start for pattern, start in table if pattern.search(sentence)]
    known = [*fitting[:3], *(("什么", "怎样") if chinese else ("What", "Why"))]
    known = list(dict.fromkeys(known))
    return [known[place % len(known)] for place in range(count)]
