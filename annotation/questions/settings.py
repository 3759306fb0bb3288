"""Settings of Plumbline's own labelling questions."""

from __future__ import annotations

import re

from pydantic import model_validator

from plumbline.config import Config

_WORD = re.compile(r"[a-z][a-z0-9_]{0,39}")


class QuestionConfig(Config):
    """What labellers are asked in addition to which response is better."""

    strength: bool = True
    """Ask by how much the better response is better: slightly, clearly or much."""
    rationale: bool = True
    """Ask for the reason, in words."""
    aspects: tuple[str, ...] = ()
    """Single aspects to compare the responses in, such as helpful, harmless and honest."""
    flags: tuple[str, ...] = ("unsafe", "personal_data")
    """What labellers can report about a pair. Name none, or at least two to choose from."""

    @model_validator(mode="after")
    def _questions_can_be_asked(self) -> QuestionConfig:
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
        return self
