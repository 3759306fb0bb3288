"""Settings of what labellers see, and what they are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import model_validator

from annotation.questions.question import LabelingQuestion
from annotation.questions.settings import QuestionConfig
from annotation.questions.table import QUESTIONS
from plumbline.tables import code_of


class FormConfig(QuestionConfig):
    """What labellers see, and what they are asked in addition to which response is better."""

    own_questions: tuple[Annotated[str, QUESTIONS], ...] = ()
    """Your own questions, by the dotted path of a function that returns a `LabelingQuestion`."""

    markdown: bool = True
    """Show the texts as Markdown on Plumbline's labelling page: code, tables, lists and formulas.
    HTML in a text is shown as text, and images are never loaded."""
    argilla_markdown: bool = False
    """Render Markdown on Argilla's own page too. That page loads images from wherever a text says
    and so tells their server who reads it, and when."""
    guidelines: Path | None = None
    """A Markdown file with the guidelines page. Null: the page that comes with Plumbline."""
    show_votes: bool = True
    """Show the votes and their reasons to the senior labeller who adjudicates."""

    def identity(self) -> dict[str, Any]:
        """Return the values that determine the result, with the code of own questions."""
        values = super().identity()
        if self.own_questions:
            values["own_questions"] = [
                {"function": path, "code": code_of(path)} for path in self.own_questions
            ]
        return values

    def questions(self) -> list[LabelingQuestion]:
        """Return the questions that a campaign may ask: Plumbline's, then the user's own."""
        return [*QUESTIONS.values(), *(QUESTIONS[path] for path in self.own_questions)]

    @model_validator(mode="after")
    def _own_questions_are_functions(self) -> FormConfig:
        for path in self.own_questions:
            if "." not in path:
                raise ValueError(
                    f"own_questions names {path!r}, which is one of Plumbline's own questions. "
                    "Name your function by its dotted path, such as my_questions.confidence"
                )
        return self
