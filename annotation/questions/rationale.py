"""The reason for the choice, in the labeller's own words."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from annotation.argilla.form import Question
from annotation.questions.question import Judgment, LabelingQuestion, Side
from annotation.questions.settings import QuestionConfig

RATIONALE = "rationale"
_GUIDELINE = (
    "- **Why?** One sentence that names what decided it. “B gives the wrong date” helps more than "
    "“A is better written”."
)


def _form(config: QuestionConfig) -> tuple[Question, ...]:
    if not config.rationale:
        return ()
    return (Question(RATIONALE, "Why?", "text", description="One sentence is enough."),)


def _parse(
    values: Mapping[str, Any], shown_first: Side, config: QuestionConfig
) -> Mapping[str, Any]:
    return {"rationale": values.get(RATIONALE) or ""}


def _simulate(judgment: Judgment, config: QuestionConfig, random: Random) -> Mapping[str, Any]:
    return {RATIONALE: judgment.reason} if config.rationale else {}


WHY = LabelingQuestion(
    name=RATIONALE,
    form=_form,
    guideline=lambda config: _GUIDELINE if config.rationale else "",
    parse=_parse,
    simulate=_simulate,
)
