"""The table of labelling questions; a user's own question is one more row.

To add a question, write a function that returns a `LabelingQuestion` and name it by its dotted
path in the campaign's setting ``own_questions``. See ``docs/extending/labelling-question.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from annotation.questions.aspects import ASPECTS
from annotation.questions.choice import BETTER
from annotation.questions.flags import REPORT
from annotation.questions.question import LabelingQuestion
from annotation.questions.rationale import WHY
from annotation.questions.strength import HOW_MUCH
from plumbline.tables import Table


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
