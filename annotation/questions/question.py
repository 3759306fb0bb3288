"""A labelling question: its form, its guideline, the meaning of its answer, and a simulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, NamedTuple

from annotation.argilla.form import Question
from annotation.questions.settings import QuestionConfig

Side = Literal["a", "b"]


class Judgment(NamedTuple):
    """What a simulated labeller thinks of two responses, named as they are shown."""

    choice: Literal["a", "b"]
    confidence: float
    """The probability with which this labeller chooses that response, in [0, 1]."""
    reason: str


@dataclass(frozen=True)
class LabelingQuestion:
    """One row of the table of questions.

    A function of each kind gets the campaign's settings, and decides by them what it asks. A
    question that the settings turn off has an empty form.
    """

    name: str
    form: Callable[[QuestionConfig], tuple[Question, ...]]
    """What the labeller sees: one question of the dataset, several, or none."""
    guideline: Callable[[QuestionConfig], str]
    """A line of the guidelines page, in Markdown; empty where the page says it elsewhere."""
    parse: Callable[[Mapping[str, Any], Side, QuestionConfig], Mapping[str, Any]]
    """Return the fields of a `Label` that an answer sets.

    It gets the values that a record was answered with, by question, and which of the pair's
    responses was shown as A. The fields ``aspects`` and ``flags`` are merged over all questions.
    """
    simulate: Callable[[Judgment, QuestionConfig, Random], Mapping[str, Any]]
    """Return the values that a simulated labeller gives, by question."""


def about_the_pair(choice: str, shown_first: Side) -> str:
    """Return an answer about the shown A and B as one about the pair's own a and b.

    The function is its own inverse: it also turns an answer about the pair into one about what is
    shown. Answers other than ``a`` and ``b`` stay as they are.
    """
    if shown_first == "b" and choice in ("a", "b"):
        return "b" if choice == "a" else "a"
    return choice
