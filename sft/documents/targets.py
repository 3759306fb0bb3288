"""Which sentences of a document can be asked about, and in which forms."""

from __future__ import annotations

import re
from random import Random
from typing import NamedTuple

from sft.documents.document import Document, content_words, is_chinese, overlaps, sentences
from sft.documents.question_forms import Fit, fits_of
from sft.documents.slices import Slice


class Target(NamedTuple):
    """What to ask: a sentence, ``document.text[start:end]``, within its slice, and a form."""

    document: int
    """The document's number."""
    slice: Slice
    start: int
    end: int
    sentence: str
    """Its words, without marks of Markdown and line breaks."""
    fit: Fit
    """The form of the question, and the parts of the sentence that it is about."""


#: Words with which a sentence leans on the one before it: nobody can ask about it alone.
_LEANING = re.compile(
    r"(?:This|That|These|Those|It|They|And|Or|Here|Let|Now|Then|We|Our|He|She|Its|Their|For"
    r"|In (?:this|that|our|both|other)|At (?:this|that)|With this|Because (?:of|it|they|this)"
    r"|You.ll|We.ll|There|Another|To do|As you|If (?:we|you) (?:do|did) (?:this|that|it)"
    r"|(?:But|So|Also|However|Therefore|Instead|Sometimes|Earlier|Next|First),? "
    r"(?:this|that|these|those|it|they|we|you.ll))\b"
    r"|[-•*\d]|(?:这|那|它|他|她|但|而|所以|因此|此|其|同样|另外)",
)
_ELSEWHERE = re.compile(
    r"Listing|Figure|Table \d|Chapter|the following|below|above|on page|<|/>|[●○]|\||图\d|下文|上述"
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
    """Return what to ask about up to so many sentences of a slice, drawn at random."""
    possible = []
    for start, end in sentences(document.text, part.start, part.end):
        written = plain_words(document.text[start:end])
        if not overlaps(start, end, document.blocked) and can_be_asked_about(written):
            fits = fits_of(written)
            if fits:
                possible.append([Target(number, part, start, end, written, fit) for fit in fits])
    drawn = random.sample(possible, min(count, len(possible)))
    return sorted(
        (target for targets in drawn for target in targets), key=lambda target: target.start
    )


def can_be_asked_about(sentence: str) -> bool:
    """Return whether a sentence can be understood alone."""
    words = content_words(sentence)
    low, high = (8, 80) if is_chinese(sentence) else (4, 28)
    return (
        low <= len(words) <= high
        and sentence[-1:] in ".!。！"
        and (sentence[0].isupper() or is_chinese(sentence))
        and _LEANING.match(sentence) is None
        and _ELSEWHERE.search(sentence) is None
    )
