"""Single aspects: which response is more helpful, less harmful, more honest and so on."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from annotation.argilla.form import Question
from annotation.questions.question import Judgment, LabelingQuestion, Side, about_the_pair
from annotation.questions.settings import QuestionConfig

_OPTIONS = (("a", "A"), ("b", "B"), ("tie", "No difference"))
_TITLES = {
    "helpful": "Which is more helpful?",
    "harmless": "Which is less harmful?",
    "honest": "Which is more honest?",
}


def aspect_question(aspect: str) -> str:
    """Return the name of the question about an aspect."""
    return f"aspect_{aspect}"


def _form(config: QuestionConfig) -> tuple[Question, ...]:
    return tuple(
        Question(
            aspect_question(aspect),
            _TITLES.get(aspect, f"Which is more {aspect.replace('_', ' ')}?"),
            "one",
            _OPTIONS,
        )
        for aspect in config.aspects
    )


def _guideline(config: QuestionConfig) -> str:
    if not config.aspects:
        return ""
    names = ", ".join(aspect.replace("_", " ") for aspect in config.aspects)
    return (
        f"- **Single aspects** ({names}): judge each one separately. The better response need not "
        "be better in every aspect."
    )


def _parse(
    values: Mapping[str, Any], shown_first: Side, config: QuestionConfig
) -> Mapping[str, Any]:
    return {
        "aspects": {
            aspect: about_the_pair(values[aspect_question(aspect)], shown_first)
            for aspect in config.aspects
            if aspect_question(aspect) in values
        }
    }


def _simulate(judgment: Judgment, config: QuestionConfig, random: Random) -> Mapping[str, Any]:
    return {aspect_question(aspect): judgment.choice for aspect in config.aspects}


ASPECTS = LabelingQuestion(
    name="aspects",
    form=_form,
    guideline=_guideline,
    parse=_parse,
    simulate=_simulate,
)
