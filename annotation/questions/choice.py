"""The question that every label answers: which response is better."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from annotation.argilla.form import Question
from annotation.questions.question import Judgment, LabelingQuestion, Side, about_the_pair
from annotation.questions.settings import QuestionConfig
from plumbline.data.labels import Choice

CHOICE = "choice"
WORDS: Mapping[Choice, str] = {
    "a": "A is better",
    "b": "B is better",
    "tie": "About the same",
    "both_bad": "Both are bad",
}
_GUIDELINE = """\
| Choose | when |
|---|---|
| **A is better** or **B is better** | you would rather get that one, even if only by a little |
| **About the same** | you compared them fairly and cannot say which one you would rather get |
| **Both are bad** | neither does what the user asked for, or both do harm |

Chance decides for every pair which response is called A. The letter means nothing.
"""


def _form(config: QuestionConfig) -> tuple[Question, ...]:
    return (
        Question(CHOICE, "Which response is better?", "one", tuple(WORDS.items()), required=True),
    )


def _parse(
    values: Mapping[str, Any], shown_first: Side, config: QuestionConfig
) -> Mapping[str, Any]:
    if CHOICE not in values:
        return {}
    return {"choice": about_the_pair(values[CHOICE], shown_first)}


def _simulate(judgment: Judgment, config: QuestionConfig, random: Random) -> Mapping[str, Any]:
    return {CHOICE: judgment.choice}


BETTER = LabelingQuestion(
    name=CHOICE,
    form=_form,
    guideline=lambda config: _GUIDELINE,
    parse=_parse,
    simulate=_simulate,
)
