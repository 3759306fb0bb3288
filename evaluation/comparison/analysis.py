"""What a comparison finds: differences, frontiers, ranking and subsets, each with its interval."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation import statistics
from evaluation.comparison.budget_matching import (
    Budget,
    BudgetConfig,
    Matched,
    match,
    matrix,
    prompts_of_all,
    settle,
)
from evaluation.comparison.comparability import Checked, Flag
from evaluation.comparison.training_runs import Look, Trained, subset_of

Scores = NDArray[np.float64]
#: Points at which a frontier is drawn.
_GRID = 24
#: KL in nats below which a policy before training is its reference.
_ROUNDING = 1e-3
#: Fewer different KLs than this cannot bear a fit of two coefficients.
_FIT_LOOKS = 5


@dataclass
class Comparison:
    """Methods, each with its trainings, on the same terms, by one deciding judge."""

    checked: Checked
    judge: str
    scorers: Sequence[str]
    budget_config: BudgetConfig = field(default_factory=BudgetConfig)
    baseline: Look | None = None
    confidence: float = 0.95

    @cached_property
    def groups(self) -> dict[str, list[Trained]]:
        """The finished trainings by method; all of them while none has finished."""
        trained = self.checked.trained
        done = [one for one in trained if not one.unfinished]
        return _by_method(done or trained)

    @cached_property
    def everything(self) -> dict[str, list[Trained]]:
        """The trainings by method, those that go on among them."""
        return _by_method(self.checked.trained)

    @cached_property
    def budget(self) -> Budget | None:
        """The budget by which trainings are matched, if any."""
        by = self.budget_config.by
        if by == "kl" and not self.checked.kl_compares:
            return None
        trained = [one for group in self.groups.values() for one in group]
        found = settle(trained, self.budget_config)
        if found is None and by != "none":
            text = (
                f"Budgets are not matched: {by} is not known of every training, or one spent none."
            )
            self.checked.flags.append(Flag("warning", text))
        return found

    @cached_property
    def looked_at(self) -> list[str]:
        """The prompts that every look has answered: those of the frontier and of matching."""
        return prompts_of_all(self.checked.trained, self.checked.prompts)

    @cached_property
    def matched(self) -> dict[str, list[Matched]]:
        """Where each method's trainings meet the budget; those that never do are flagged."""
        if self.budget is None:
            return {}
        found: dict[str, list[Matched]] = {}
        for method, group in self.groups.items():
            places = {one.name: match(one, self.budget) for one in group}
            for name, place in places.items():
                if place is None:
                    self.checked.flags.append(
                        Flag("warning", f"{name} never comes to {self.budget.text}.")
                    )
            if met := [place for place in places.values() if place is not None]:
                found[method] = met
        return found

    def contrasts(self) -> list[dict[str, Any]]:
        """Return one row a pair of methods, scorer and point of comparison.

        p values are corrected by Holm over all rows of the same scorer.
        """
        rows: list[dict[str, Any]] = []
        for scorer in self.scorers:
            family = [
                self._contrast(a, b, at, scorer)
                for at in ("matched", "final")
                for a, b in combinations(self.groups, 2)
                if at == "final" or (a in self.matched and b in self.matched)
            ]
            adjusted = statistics.holm([row["p"] for row in family])
            rows += [row | {"p_adjusted": p} for row, p in zip(family, adjusted, strict=True)]
        return rows

    def levels(self) -> dict[str, dict[str, Any]]:
        """Return each method's win rate over the baseline at the end, over seeds and prompts."""
        if self.baseline is None:
            return {}
        found = {}
        theirs = matrix([self.baseline], self.judge, self.checked.prompts)
        for method, group in self.groups.items():
            ours = matrix([one.final for one in group], self.judge, self.checked.prompts)
            rate = statistics.win_rate(ours, theirs, self.confidence)
            found[method] = {"win_rate": rate.difference, "low": rate.low, "high": rate.high}
        return found

    def ranking(self) -> list[dict[str, Any]]:
        """Return all methods, and the baseline, by strength (Bradley and Terry, 1952)."""
        prompts = self.checked.prompts
        scores = {
            method: matrix([one.final for one in group], self.judge, prompts)
            for method, group in self.groups.items()
        }
        if self.baseline is not None:
            scores["baseline"] = matrix([self.baseline], self.judge, prompts)
        if len(scores) < 2:
            return []
        return [ranked._asdict() for ranked in statistics.ranking(scores)]

    def frontier(self) -> list[dict[str, Any]]:
        """Return score against KL for each method and scorer: means over seeds with intervals."""
        if not self.checked.kl_compares:
            return []
        found = []
        for method, group in self.everything.items():
            lines = [
                [look.on(self.looked_at) for look in one.looks]
                for one in group
                if all(look.kl is not None for look in one.looks)
            ]
            for scorer in self.scorers if lines else ():
                found.append({"method": method, "scorer": scorer, **self._line(lines, scorer)})
        return found

    def subsets(self) -> list[dict[str, Any]]:
        """Return each method's mean score by subset of the prompts, by the deciding judge."""
        first = self.checked.trained[0].final
        of = {row["prompt_id"]: subset_of(row) for row in first.rows}
        names = sorted(set(of.values()))
        if len(names) < 2:
            return []
        rows = []
        for name in names:
            prompts = [p for p in self.checked.prompts if of[p] == name]
            if len(prompts) < 2:
                continue
            cells = {}
            for method, group in self.groups.items():
                scores = matrix([one.final for one in group], self.judge, prompts)
                level = statistics.level(scores, 0.0, self.confidence)
                cells[method] = {"mean": level.difference, "low": level.low, "high": level.high}
            rows.append({"subset": name, "prompts": len(prompts), "cells": cells})
        return rows

    def _contrast(self, a: str, b: str, at: str, scorer: str) -> dict[str, Any]:
        ours, theirs = (self._at(method, at, scorer) for method in (a, b))
        found = statistics.contrast(ours, theirs, self.confidence)
        rate = statistics.win_rate(
            self._nearest(a, at, scorer), self._nearest(b, at, scorer), self.confidence
        )
        row = {
            "a": a, "b": b, "at": at, "scorer": scorer,
            "difference": found.difference, "error": found.error, "df": found.df,
            "low": found.low, "high": found.high, "p": found.p_value,
            "detectable": statistics.detectable(found.error, found.df, alpha=1 - self.confidence),
            "win_rate": rate.difference, "win_rate_low": rate.low, "win_rate_high": rate.high,
            "seeds": [len(ours), len(theirs)], "prompts": ours.shape[1],
        }  # fmt: skip
        return row | {"lc_win_rate": self._length_controlled(a, b, at, scorer)}

    def _at(self, method: str, at: str, scorer: str) -> Scores:
        if at == "final":
            finals = [one.final for one in self.groups[method]]
            return matrix(finals, scorer, self.checked.prompts)
        return matrix(self.matched[method], scorer, self.looked_at)

    def _places(self, method: str, at: str) -> tuple[list[Look], list[str]]:
        """Return whole looks, for what cannot be interpolated, and the prompts they share."""
        if at == "final":
            return [one.final for one in self.groups[method]], self.checked.prompts
        return [place.nearest for place in self.matched[method]], self.looked_at

    def _nearest(self, method: str, at: str, scorer: str) -> Scores:
        looks, prompts = self._places(method, at)
        return matrix(looks, scorer, prompts)

    def _length_controlled(self, a: str, b: str, at: str, scorer: str) -> float:
        (ours, prompts), (theirs, _) = self._places(a, at), self._places(b, at)
        points = statistics.head_to_head(
            matrix(ours, scorer, prompts), matrix(theirs, scorer, prompts)
        )
        words_a, words_b = (matrix(looks, "words", prompts) for looks in (ours, theirs))
        return float(statistics.length_controlled(points, words_a, words_b).win_rate)

    def _line(self, lines: Sequence[Sequence[Look]], scorer: str) -> dict[str, Any]:
        """Return one frontier: a mean over seeds at each KL, its area and the fit."""
        kls = [[_from_start(look) for look in looks] for looks in lines]
        scores = [[float(look.mean(scorer) or 0.0) for look in looks] for looks in lines]
        far = max(max(kl) for kl in kls)
        common = min(max(kl) for kl in kls)
        points = []
        for root in np.linspace(0.0, far**0.5, _GRID):
            at = [
                value
                for kl, score in zip(kls, scores, strict=True)
                if (value := statistics.at_kl(kl, score, root**2)) is not None
            ]
            if at:
                band = statistics.band(at, self.confidence)
                points.append({"kl": float(root**2), "seeds": len(at), **band._asdict()})
        limit = self.budget.limit if self.budget and self.budget.by == "kl" else common
        found = [
            statistics.area_to(kl, score, limit) if limit > 0 else None
            for kl, score in zip(kls, scores, strict=True)
        ]
        areas = [area for area in found if area is not None]
        area = statistics.band(areas, self.confidence) if areas else None
        return {
            "points": points,
            "area": area and area.mean,
            "area_low": area and area.low,
            "area_high": area and area.high,
            "area_to": limit,
            "fit": _fit(kls, scores),
        }


def _by_method(trained: Sequence[Trained]) -> dict[str, list[Trained]]:
    found: dict[str, list[Trained]] = defaultdict(list)
    for one in trained:
        found[one.method].append(one)
    return dict(found)


def _from_start(look: Look) -> float:
    """Return a look's KL, exactly 0 before training: two passes differ in their last digits."""
    kl = max(0.0, look.kl or 0.0)
    return 0.0 if look.checkpoint == 0 and kl < _ROUNDING else kl


def _fit(
    kls: Sequence[Sequence[float]], scores: Sequence[Sequence[float]]
) -> dict[str, Any] | None:
    """Fit Gao et al. (2023) to all seeds at once, from each one's own start."""
    kl: list[float] = []
    gain: list[float] = []
    for one, score in zip(kls, scores, strict=True):
        kl += one[1:]
        gain += [value - score[0] for value in score[1:]]
    usable = [(k, g) for k, g in zip(kl, gain, strict=True) if k > 0]
    if len({k for k, _ in usable}) < _FIT_LOOKS:
        return None
    fit = statistics.gao_fit([k for k, _ in usable], [g for _, g in usable], "rl")
    # A peak beyond what was seen is a guess of the curve's form and not a finding.
    return fit._asdict() | {"seen_to": max(k for k, _ in usable)}
