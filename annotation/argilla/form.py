"""The form of a dataset: what it shows, what it asks, and its guidelines page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Field:
    """One text, or one conversation, that a record shows."""

    name: str
    title: str
    kind: Literal["text", "chat"]
    required: bool = True
    markdown: bool = False
    """Whether Argilla's own page renders it as Markdown."""


@dataclass(frozen=True)
class Question:
    """One question of a form. ``options`` are the stored values, each with the words shown."""

    name: str
    title: str
    kind: Literal["one", "some", "rating", "text"]
    options: tuple[tuple[str, str], ...] = ()
    required: bool = False
    description: str | None = None
    only_after: tuple[str, tuple[str, ...]] | None = None
    """The question, and its answers, after which this one is asked. None: always.

    Plumbline's labelling page hides the question until then. Argilla's own page always shows it.
    """


@dataclass(frozen=True)
class Form:
    """Everything about a dataset except its records."""

    fields: tuple[Field, ...]
    questions: tuple[Question, ...]
    guidelines: str
