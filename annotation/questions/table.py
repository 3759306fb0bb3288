"""The table of labelling questions; a user's own question is one more row.

To add a question, write a function that returns a `LabelingQuestion` and name it by its dotted
path in the campaign's setting ``own_questions``. See ``docs/extending/labelling-question.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from random import Random
from typing import TYPE_CHECKING, Any

from annotation.questions.aspects import ASPECTS
from annotation.questions.choice import BETTER
from annotation.questions.flags import REPORT
from annotation.questions.question import Judgment, LabelingQuestion, Side
from annotation.questions.rationale import WHY
from annotation.questions.strength import HOW_MUCH
from plumbline.data.labels import Label
from plumbline.errors import ConfigError
from plumbline.tables import Table

if TYPE_CHECKING:
    from annotation.questions.settings import FormConfig

_LABEL_FIELDS = {"choice", "rationale", "strength", "aspects", "flags"}


def _own(path: str, function: Callable[..., Any]) -> LabelingQuestion:
    question = function()
    if not isinstance(question, LabelingQuestion):
        raise KeyError(
            f"{path!r} returns {type(question).__name__}, not a LabelingQuestion: see "
            "annotation.questions.question"
        )
    if question.name in QUESTIONS:
        raise KeyError(
            f"{path!r} is a question called {question.name!r}, and so is one of Plumbline's. Give "
            "it another name"
        )
    return question


QUESTIONS: Table[LabelingQuestion] = Table(
    "labelling question", [BETTER, HOW_MUCH, ASPECTS, REPORT, WHY], from_function=_own
)
"""In the order in which they are asked."""


def questions_of(config: FormConfig) -> list[LabelingQuestion]:
    """Return the questions that a campaign may ask: Plumbline's, then the user's own."""
    return [*QUESTIONS.values(), *(QUESTIONS[path] for path in config.own_questions)]


def parse_answer(
    values: Mapping[str, Any], shown_first: Side, config: FormConfig
) -> dict[str, Any]:
    """Return the fields of a `Label` that an answer sets; without ``choice``, it makes no label.

    Raises `ConfigError` where a question sets a field that it must not set.
    """
    parsed: dict[str, Any] = {"aspects": {}, "flags": ()}
    for question in questions_of(config):
        part = question.parse(values, shown_first, config)
        unknown = sorted(set(part) - _LABEL_FIELDS)
        if unknown:
            names = [field.name for field in fields(Label) if field.name in _LABEL_FIELDS]
            raise ConfigError(
                f"The labelling question {question.name!r} sets {', '.join(unknown)}, but a "
                f"question may set only these fields of a label: {', '.join(names)}."
            )
        for name, value in part.items():
            if name == "aspects":
                parsed["aspects"] |= value
            elif name == "flags":
                parsed["flags"] += tuple(value)
            else:
                parsed[name] = value
    return parsed


def simulate_answer(judgment: Judgment, config: FormConfig, random: Random) -> dict[str, Any]:
    """Return the values with which a simulated labeller answers a record, by question."""
    values: dict[str, Any] = {}
    for question in questions_of(config):
        values |= question.simulate(judgment, config, random)
    return values
