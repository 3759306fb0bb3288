"""A weighted sum of scorers, with each term known beside the sum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from plumbline.data.records import Message
from plumbline.errors import ConfigError, ModelError
from plumbline.hooks import Scorer, problem_with
from reward.ensemble import EnsembleScorer
from reward.scorer import RewardModelScorer


class Term(NamedTuple):
    """A scorer, its weight in the sum, and its name in logs."""

    name: str
    weight: float
    scorer: Scorer


class WeightedSum:
    """The sum of weight times score over several scorers.

    ``term_means`` has the mean of each term, weighted, over the last responses that were scored;
    PPO logs it as ``reward/NAME``.
    """

    name = "reward"

    def __init__(
        self, names: Sequence[str], weights: Sequence[float], scorers: Sequence[Scorer]
    ) -> None:
        if not len(names) == len(weights) == len(scorers) or not names:
            raise ConfigError(
                f"A weighted sum was given {len(names)} names, {len(weights)} weights and "
                f"{len(scorers)} scorers. Give as many of each, and one or more."
            )
        if len(set(names)) < len(names):
            raise ConfigError(
                f"Two terms of a weighted sum have one name ({', '.join(names)}), under which the "
                "log has one column. Give each a name of its own."
            )
        if not all(math.isfinite(weight) for weight in weights) or not any(weights):
            raise ConfigError(
                f"The weights of a sum are {list(weights)}. Each must be a finite number, and one "
                "of them not 0: else every response has the same score."
            )
        self.terms = [
            Term(name, float(weight), scorer)
            for name, weight, scorer in zip(names, weights, scorers, strict=True)
        ]
        self.term_means: dict[str, float] = {}

    def mount(self, model: Any) -> WeightedSum:
        """Return the sum with those reward models on a PEFT model's base that are of that base."""
        return WeightedSum(
            [term.name for term in self.terms],
            [term.weight for term in self.terms],
            [
                term.scorer.mount(model, f"reward-{term.name}")
                if isinstance(term.scorer, RewardModelScorer | EnsembleScorer)
                else term.scorer
                for term in self.terms
            ],
        )

    def problem_with(self, prompt: Sequence[Message]) -> str | None:
        """Return why no response to a prompt can be scored; None where each can be."""
        for term in self.terms:
            problem = problem_with(term.scorer, prompt)
            if problem is not None:
                return f"{problem} (term {term.name})"
        return None

    def term_scores(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> Mapping[str, list[float]]:
        """Return the score of each term for each response, weighted.

        Raises `ModelError` where a term has no finite score: the sum would hide which one it was.
        """
        scores = {}
        for term in self.terms:
            values = [term.weight * s for s in term.scorer.score(prompts, responses)]
            bad = [number for number, value in enumerate(values, 1) if not math.isfinite(value)]
            if bad:
                raise ModelError(
                    f"The term {term.name!r} gives no finite score to {len(bad)} of {len(values)} "
                    f"responses, the first of them number {bad[0]}. Leave the term out, or correct "
                    "its scorer."
                )
            scores[term.name] = values
        return scores

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return the weighted sum per response."""
        terms = self.term_scores(prompts, responses)
        if responses:
            self.term_means = {name: sum(v) / len(v) for name, v in terms.items()}
        return [sum(values) for values in zip(*terms.values(), strict=True)]
