"""All policies in one ranked table: win rate, length-controlled win rate, KL, length and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.comparison.analysis import Comparison
from evaluation.comparison.budget_matching import scores_of
from evaluation.comparison.training_runs import CheckpointEval
from plumbline import statistics


def leaderboard(comparison: Comparison, costs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per method, and one for the baseline (None), the best first.

    Win rates are over the baseline, with prompts and seeds random; without a baseline the rows are
    ranked by the mean score.
    """
    cost_by_method = {row["method"]: row for row in costs}
    judge = comparison.judge
    rows: list[dict[str, Any]] = []
    for method, group in comparison.groups.items():
        finals = [run.final for run in group]
        mean = statistics.mean_interval(comparison.final_scores(method), 0.0, comparison.confidence)
        row: dict[str, Any] = {
            "method": method,
            "seeds": len(group),
            "score": mean.difference,
            "score_low": mean.low,
            "score_high": mean.high,
            "kl": _mean([checkpoint.kl for checkpoint in finals]),
            "words": _mean([checkpoint.mean("words") for checkpoint in finals]),
        }
        row |= _win_rates(comparison, finals)
        cost = cost_by_method.get(method, {})
        row |= {name: cost.get(name) for name in ("seconds", "energy", "money", "responses")}
        rows.append(row)
    if comparison.baseline is not None:
        rows.append(
            {
                "method": None,
                "score": comparison.baseline.mean(judge),
                "kl": comparison.baseline.kl,
                "words": comparison.baseline.mean("words"),
                "win_rate": 0.5,
                "lc_win_rate": 0.5,
            }
        )
    keys = ("win_rate", "score") if comparison.baseline is not None else ("score",)
    rows.sort(key=lambda row: [-(row[key] or 0.0) for key in keys])
    return [row | {"rank": rank} for rank, row in enumerate(rows, 1)]


def _win_rates(comparison: Comparison, finals: Sequence[CheckpointEval]) -> dict[str, float | None]:
    """Return the win rate over the baseline and that at equal length, with intervals."""
    if comparison.baseline is None:
        return {}
    prompts, judge = comparison.comparable.prompts, comparison.judge
    scores = scores_of(finals, judge, prompts)
    baseline_scores = scores_of([comparison.baseline], judge, prompts)
    rate = statistics.win_rate(scores, baseline_scores, comparison.confidence)
    controlled = statistics.length_controlled(
        statistics.head_to_head(scores, baseline_scores),
        scores_of(finals, "words", prompts),
        scores_of([comparison.baseline], "words", prompts),
        confidence=comparison.confidence,
    )
    return {
        "win_rate": rate.difference,
        "win_rate_low": rate.low,
        "win_rate_high": rate.high,
        "lc_win_rate": controlled.win_rate,
        "lc_win_rate_low": controlled.low,
        "lc_win_rate_high": controlled.high,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) and known else None
