"""Labels that uniform selection needs to be as accurate as another strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

UNIFORM = "uniform"
_REPLICATES = 5000


def compare(points: Sequence[Mapping[str, Any]], strategy: str, accuracy: str) -> dict[str, Any]:
    """Return the labels that uniform needs to be as accurate as a strategy at its last budget.

    ``ratio`` is these over the strategy's own: above 1, the strategy saves labels. Where uniform
    is not as accurate even with all its labels, its largest number stands in, so the ratio is
    a lower bound; ``uniform_falls_short`` is the share of replicates in
    which that is so.
    """
    seeds = sorted({point["seed"] for point in points})

    def table(name: str) -> tuple[Any, Any]:
        mine = [point for point in points if point["strategy"] == name]
        budgets = sorted({point["labels"] for point in mine})
        accuracies = {(point["seed"], point["labels"]): point[accuracy] for point in mine}
        return np.array(budgets), np.array([[accuracies[s, b] for b in budgets] for s in seeds])

    (x, uniform), (own, active) = table(UNIFORM), table(strategy)
    budget = own[-1]
    paired = active - uniform[:, : len(own)]  # the same budgets, the same seeds
    random = np.random.default_rng(0)
    draws = random.integers(len(seeds), size=(_REPLICATES, len(seeds)))
    needed = np.array([labels_needed(x, uniform[d], active[d, -1].mean()) for d in draws])
    estimate = labels_needed(x, uniform, active[:, -1].mean())

    def interval(values: Any) -> list[float]:
        return [round(float(v), 4) for v in np.percentile(values, [2.5, 97.5])]

    return {
        "budget": int(budget),
        "accuracy_at_budget": round(float(active[:, -1].mean()), 4),
        "uniform_at_budget": round(float(uniform[:, len(own) - 1].mean()), 4),
        "gain_at_budget": round(float(paired[:, -1].mean()), 4),
        "gain_at_budget_interval": interval(paired[draws, -1].mean(axis=1)),
        "gain_over_rounds": round(float(paired[:, 1:].mean()), 4),
        "gain_over_rounds_interval": interval(paired[draws, 1:].mean(axis=(1, 2))),
        "uniform_labels_needed": round(float(estimate), 1),
        "ratio": round(float(estimate / budget), 3),
        "ratio_interval": interval(needed / budget),
        "uniform_falls_short": round(float(np.mean(needed >= x[-1])), 3),
    }


def labels_needed(budgets: Any, accuracies: Any, target: float) -> float:
    """Return where the mean curve, made monotone, reaches a target; the ends bound the answer."""
    from sklearn.isotonic import isotonic_regression

    smooth = isotonic_regression(accuracies.mean(axis=0))
    if target > smooth[-1]:
        return float(budgets[-1])
    place = int(np.argmax(smooth >= target - 1e-12))  # the first budget that is enough
    if place == 0:
        return float(budgets[0])
    share = (target - smooth[place - 1]) / (smooth[place] - smooth[place - 1])
    return float(budgets[place - 1] + share * (budgets[place] - budgets[place - 1]))
