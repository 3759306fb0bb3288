"""Flags: what there is to report about a pair."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from annotation.argilla.form import Question
from annotation.questions.question import Judgment, LabelingQuestion, Side
from annotation.questions.settings import QuestionConfig

FLAGS = "flags"


def _form(config: QuestionConfig) -> tuple[Question, ...]:
    if not config.flags:
        return ()
    options = tuple((flag, flag.replace("_", " ").capitalize()) for flag in config.flags)
    return (Question(FLAGS, "Is there anything to report?", "some", options),)


def _guideline(config: QuestionConfig) -> str:
    if not config.flags:
        return ""
    names = ", ".join(flag.replace("_", " ") for flag in config.flags)
    return (
        f"- **Anything to report?** ({names}) Tick what is true of either response or of the "
        "conversation. Choose a response as well."
    )


def _parse(
    values: Mapping[str, Any], shown_first: Side, config: QuestionConfig
) -> Mapping[str, Any]:
    return {"flags": tuple(values.get(FLAGS) or ())}


def _simulate(judgment: Judgment, config: QuestionConfig, random: Random) -> Mapping[str, Any]:
    return {}  # simulated labellers see nothing to report


REPORT = LabelingQuestion(
    name=FLAGS,
    form=_form,
    guideline=_guideline,
    parse=_parse,
    simulate=_simulate,
)
