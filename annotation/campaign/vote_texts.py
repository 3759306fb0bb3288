"""What a senior labeller reads about the votes on a pair."""

from __future__ import annotations

from collections.abc import Sequence

from annotation.questions.choice import WORDS
from annotation.questions.question import Side, about_the_pair
from annotation.questions.strength import WORDS as STRENGTHS
from plumbline.data.labels import Choice, Label

_REASONS = {
    "disagreement": "the votes disagree",
    "low_confidence": "the outcome is uncertain",
    "gold_failure": "the outcome depends on people who fail their gold items",
}


def choice_text(choice: Choice, strength: int | None) -> str:
    """Return an answer in the words of its question: ``A is better (clearly)``."""
    return WORDS[choice] + (f" ({STRENGTHS[strength]})" if strength in STRENGTHS else "")


def votes_text(shown_first: Side, votes: Sequence[Label], reasons: Sequence[str]) -> str:
    """Return the votes on a pair in terms of the shown A and B, and why the pair is here.

    The pair's b may be shown as A: ``shown_first`` is the response that is.
    """
    lines = []
    if reasons:
        lines.append(f"You see this pair because {'; '.join(map(_reason, reasons))}.")
    for vote in votes:
        choice: Choice = about_the_pair(vote.choice, shown_first)  # type: ignore[assignment]
        flags = f" [{', '.join(vote.flags)}]" if vote.flags else ""
        # The reason may name "A" and "B" as that person saw them, which may be the other way.
        swapped = vote.shown_first != shown_first and vote.rationale
        note = " (saw A and B the other way round)" if swapped else ""
        # One line each: the labelling page shows each line as one vote.
        why = " ".join(vote.rationale.split())
        rationale = f": “{why}”{note}" if why else ""
        lines.append(f"- {vote.annotator}: {choice_text(choice, vote.strength)}{flags}{rationale}")
    return "\n".join(lines) or "Nobody has voted yet."


def _reason(reason: str) -> str:
    if reason.startswith("flag:"):
        return f"somebody reported {reason.removeprefix('flag:').replace('_', ' ')}"
    return _REASONS.get(reason, reason.replace("_", " "))
