"""A judge of pairs as a scorer: each response against a known one, shown in both orders."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Protocol

from plumbline.data.records import Message
from plumbline.errors import ModelError
from plumbline.runs.calls import SourceFile
from reward.scorers.answers import KnownAnswers

Verdict = Literal["first", "second", "tie"]


class PairJudge(Protocol):
    """Says which of two responses to a prompt is better; None where it gives no verdict."""

    concurrency: int
    """How many questions may be asked at once."""

    def compare(self, prompt: Sequence[Message], first: str, second: str) -> Verdict | None:
        """Return the verdict on two responses, in the order in which they are shown."""
        ...


class BothOrdersScorer:
    """The share of a win over the prompt's reference response: 1, 0.5 or 0 per order, averaged.

    Judges prefer the first or the second place (Zheng et al., 2023), so each pair is shown in both
    orders: a response that wins only in one place scores 0.5.
    """

    name = "judge"

    def __init__(self, judge: PairJudge, references: SourceFile | Path) -> None:
        self._judge, self._references = judge, KnownAnswers(references)
        self.without_verdict = 0
        """How many questions had no readable verdict so far."""

    def problem_with(self, prompt: Sequence[Message]) -> str | None:
        """Return why no response to a prompt can be scored; None where each can be."""
        return self._references.problem_with(prompt)

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return the share of a win per response, 0 to 1; several pairs are judged at once.

        An order without a verdict counts as a tie, and in ``without_verdict``. Raises `ModelError`
        where no pair has a verdict.
        """
        with ThreadPoolExecutor(self._judge.concurrency, thread_name_prefix="judge") as pool:
            points = list(pool.map(self._points, prompts, responses))
        missing = sum(point is None for orders in points for point in orders)
        self.without_verdict += missing
        if missing and missing == 2 * len(points):
            raise ModelError(
                f"The judge gave no verdict on any of {len(points)} pairs: its replies could not "
                "be read. Use another model, or allow it longer replies."
            )
        return [sum(0.5 if p is None else p for p in orders) / len(orders) for orders in points]

    def _points(self, prompt: Sequence[Message], response: str) -> list[float | None]:
        reference = self._references.to(prompt)[0]
        if response == reference:
            return [0.5, 0.5]
        first = self._judge.compare(prompt, response, reference)
        second = self._judge.compare(prompt, reference, response)
        return [_point(first, "first"), _point(second, "second")]


def _point(verdict: Verdict | None, place: Verdict) -> float | None:
    if verdict is None:
        return None
    return 0.5 if verdict == "tie" else float(verdict == place)
