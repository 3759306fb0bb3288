"""The embedded world's checks of form and of answers."""

from __future__ import annotations

from collections.abc import Sequence

from plumbline.data.records import Message
from plumbline.world.gold import WEIGHTS, GoldUtility


class ShopFormat:
    """The embedded world's rules of form: those that its gold utility pays for."""

    def __init__(self, data_seed: int) -> None:
        self._utility = GoldUtility(data_seed)

    def problem(self, prompt: Sequence[Message], response: str) -> str | None:
        """Return the problem, or None where every rule of this kind of request holds."""
        share = self._utility.explain(list(prompt), response)["format"] / WEIGHTS["format"]
        return None if share > 1 - 1e-9 else f"{1 - share:.0%} of the rules of form do not hold"


class RightAnswer:
    """Whether a response states what was asked, and nothing false: 1 or 0, as a scorer."""

    name = "right"

    def __init__(self, data_seed: int) -> None:
        self._utility = GoldUtility(data_seed)

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return 1 for each response that is right in all, else 0."""
        return [
            float(self._utility.explain(list(p), r)["correct"] > WEIGHTS["correct"] - 1e-9)
            for p, r in zip(prompts, responses, strict=True)
        ]
