"""By how much the better response is better, asked only after a preference."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from annotation.argilla.form import Question
from annotation.questions.choice import CHOICE
from annotation.questions.question import Judgment, LabelingQuestion, Side
from annotation.questions.settings import QuestionConfig

STRENGTH = "strength"
WORDS = {1: "slightly", 2: "clearly", 3: "much"}
_GUIDELINE = (
    "- **By how much?** *Slightly*: I had to weigh them up. *Clearly*: the difference is plain. "
    "*Much*: nobody would choose the other one."
)


def strength_of(confidence: float) -> int:
    """Return how much better a simulated labeller finds the response that it chose.

    ``confidence`` is the probability with which it chooses that response.
    """
    return 3 if confidence > 0.95 else 2 if confidence > 0.75 else 1


def _form(config: QuestionConfig) -> tuple[Question, ...]:
    if not config.strength:
        return ()
    return (
        Question(
            STRENGTH,
            "By how much?",
            "one",
            tuple((str(number), f"{word} better") for number, word in WORDS.items()),
            description="Only where one response is better.",
            only_after=(CHOICE, ("a", "b")),
        ),
    )


def _parse(
    values: Mapping[str, Any], shown_first: Side, config: QuestionConfig
) -> Mapping[str, Any]:
    strength = values.get(STRENGTH)
    if strength is None or values.get(CHOICE) not in ("a", "b"):
        return {}
    # Older campaigns asked for a rating, which is a number; newer ones for one of three words.
    return {"strength": int(strength)}


def _simulate(judgment: Judgment, config: QuestionConfig, random: Random) -> Mapping[str, Any]:
    return {STRENGTH: str(strength_of(judgment.confidence))} if config.strength else {}


HOW_MUCH = LabelingQuestion(
    name=STRENGTH,
    form=_form,
    guideline=lambda config: _GUIDELINE if config.strength else "",
    parse=_parse,
    simulate=_simulate,
)
