"""Slices of a document: along its headings, with overlap, and with their place in the source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pydantic import Field, model_validator

from plumbline.config import Config
from sft.documents.document import Document, sentences


class SlicesConfig(Config):
    """How documents are cut."""

    max_characters: int = Field(1200, ge=100)
    """Longest slice, in characters of the document."""
    overlap: int = Field(150, ge=0)
    """Characters at the end of a slice that stand at the start of the next one under the same
    heading, too: whole sentences, as far as they fit."""
    min_characters: int = Field(100, ge=0)
    """Shorter slices are left out: they hold nothing to ask about."""

    @model_validator(mode="after")
    def _overlap_leaves_room(self) -> SlicesConfig:
        if 2 * self.overlap > self.max_characters:
            raise ValueError(
                f"overlap is {self.overlap}, more than half of max_characters "
                f"({self.max_characters}), so slices would hardly move on"
            )
        return self


class Slice(NamedTuple):
    """A part of a document: ``document.text[start:end]``."""

    start: int
    end: int
    headings: tuple[str, ...]
    """The titles above it, the highest first."""
    page: int | None
    """The page on which it begins, from 1."""


def slices_of(document: Document, config: SlicesConfig) -> list[Slice]:
    """Cut a document into slices; no slice holds text of two sections.

    Within a section, whole sentences are put together up to ``max_characters``; only a sentence
    that is longer by itself is cut.
    """
    slices: list[Slice] = []
    for start, end in _sections(document):
        pieces = list(_pieces(document.text, start, end, config.max_characters))
        for first, last in _packed(pieces, config):
            if last - first >= config.min_characters:
                path, page = document.path_of(first), document.page_of(first)
                slices.append(Slice(first, last, path, page))
    return slices


def _sections(document: Document) -> Iterator[tuple[int, int]]:
    """Yield what stands between headings, the headings' own lines left out."""
    begin = 0
    for heading in document.headings:
        yield begin, heading.start
        begin = heading.end
    yield begin, len(document.text)


def _pieces(text: str, start: int, end: int, longest: int) -> Iterator[tuple[int, int]]:
    for first, last in sentences(text, start, end):
        while last - first > longest:
            cut = text.rfind(" ", first + longest // 2, first + longest)
            cut = cut if cut > 0 else first + longest
            yield first, cut
            first = cut
        yield first, last


def _packed(pieces: Sequence[tuple[int, int]], config: SlicesConfig) -> Iterator[tuple[int, int]]:
    """Yield stretches of pieces, none longer than allowed, each new one with an overlap."""
    first = 0
    while first < len(pieces):
        last = first
        while (
            last + 1 < len(pieces)
            and pieces[last + 1][1] - pieces[first][0] <= config.max_characters
        ):
            last += 1
        yield pieces[first][0], pieces[last][1]
        if last + 1 == len(pieces):
            return
        again = last + 1
        while again - 1 > first and pieces[last][1] - pieces[again - 1][0] <= config.overlap:
            again -= 1
        # The overlap gives way where it leaves no room for the next piece.
        while again <= last and pieces[last + 1][1] - pieces[again][0] > config.max_characters:
            again += 1
        first = again
