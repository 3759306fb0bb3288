"""What labellers see, and what they are asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import model_validator

from annotation.questions.table import QUESTIONS
from plumbline.config import Config
from plumbline.tables import code_of

_WORD = re.compile(r"[a-z][a-z0-9_]{0,39}")


class FormConfig(Config):
    """What labellers see, and what they are asked in addition to which response is better."""

    strength: bool = True
    """Ask by how much the better response is better: slightly, clearly or much."""
    rationale: bool = True
    """Ask for the reason, in words."""
    aspects: tuple[str, ...] = ()
    """Single aspects to compare the responses in, such as helpful, harmless and honest."""
    flags: tuple[str, ...] = ("unsafe", "personal_data")
    """What labellers can report about a pair. Name none, or at least two to choose from."""
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

    @model_validator(mode="after")
    def _questions_can_be_asked(self) -> FormConfig:
        if len(self.flags) == 1:
            raise ValueError(
                f"flags names only {self.flags[0]!r}, but the page needs two or more to choose "
                "from. Add another flag, or set flags to []"
            )
        for kind, words in (("aspects", self.aspects), ("flags", self.flags)):
            for word in words:
                if not _WORD.fullmatch(word):
                    raise ValueError(
                        f"{kind} has {word!r}; use 1 to 40 lower-case letters, digits and _, "
                        "starting with a letter"
                    )
            if len(set(words)) < len(words):
                raise ValueError(f"{kind} names something twice: {', '.join(words)}")
        for path in self.own_questions:
            if "." not in path:
                raise ValueError(
                    f"own_questions names {path!r}, which is one of Plumbline's own questions. "
                    "Name your function by its dotted path, such as my_questions.confidence"
                )
        return self
