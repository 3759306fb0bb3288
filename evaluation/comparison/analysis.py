"""The results of a comparison: differences, frontiers, ranking and subsets, with intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.comparison.budget_matching import (
    Budget,
    BudgetConfig,
    Matched,
    match_budget,
    prompts_of_all_checkpoints,
    resolve_budget,
    scores_of,
)
from evaluation.comparison.comparability import Comparable, Flag
from evaluation.comparison.training_runs import (
    JUDGE_OF_WORLD,
    CheckpointEval,
    TrainingRun,
    subset_of,
)
from plumbline import statistics

Scores = NDArray[np.float64]
#: Points at which a frontier is drawn.
_GRID = 24
#: KL in nats below which a policy before training equals its reference.
_ROUNDING = 1e-3
#: A fit of two coefficients needs this many different KLs.
_MIN_FIT_POINTS = 5


@dataclass
class Comparison:
    """Methods with their training runs, compared by one deciding judge."""

    comparable: Comparable
    judge: str
    scorers: Sequence[str]
    budget_config: BudgetConfig = field(default_factory=BudgetConfig)
    baseline: CheckpointEval | None = None
    confidence: float = 0.95
    of_models: bool = False
    """Whether single models are compared, and not methods of training."""

    @property
    def has_path(self) -> bool:
        """Whether a policy was evaluated at several checkpoints of its training."""
        return any(len(run.checkpoints) > 1 for run in self.comparable.runs)

    @cached_property
    def groups(self) -> dict[str, list[TrainingRun]]:
        """The finished training runs by method; all of them while none has finished."""
        runs = self.comparable.runs
        finished = [run for run in runs if run.is_finished]
        return _by_method(finished or runs)

    @cached_property
    def all_groups(self) -> dict[str, list[TrainingRun]]:
        """The training runs by method, unfinished ones included."""
        return _by_method(self.comparable.runs)

    @cached_property
    def budget(self) -> Budget | None:
        """The budget by which training runs are matched, if any; a flag says why there is none."""
        config = self.budget_config
        if config.by == "none":
            return None
        if config.by == "kl" and not self.comparable.has_comparable_kl:
            return None  # a flag says so
        runs = [run for group in self.groups.values() for run in group]
        if all(len(run.checkpoints) == 1 for run in runs) and config.limit is None:
            text = (
                "Every policy was evaluated at one checkpoint, so policies are compared at the end "
                "of training and not at a matched budget."
            )
            self.comparable.flags.append(Flag("note", text))
            return None
        budget = resolve_budget(runs, config)
        if budget is None:
            text = (
                f"Policies are compared at the end of training only: a budget by {config.by} "
                "cannot be matched, since it is not known of every training run or one spent none."
            )
            self.comparable.flags.append(Flag("warning", text))
        return budget

    @property
    def judge_is_true(self) -> bool:
        """Whether the judge is the embedded world's own, and not a score of a file so named."""
        runs = (run for group in self.groups.values() for run in group)
        return self.judge == "gold" and any(JUDGE_OF_WORLD in run.terms for run in runs)

    @cached_property
    def checkpoint_prompts(self) -> list[str]:
        """The prompts that every checkpoint responded to: those of the frontier and of matching."""
        return prompts_of_all_checkpoints(self.comparable.runs, self.comparable.prompts)

    @cached_property
    def matched(self) -> dict[str, list[Matched]]:
        """Where the training runs of each method meet the budget; flags those that never do."""
        if self.budget is None:
            return {}
        matched: dict[str, list[Matched]] = {}
        for method, group in self.groups.items():
            places = {run.name: match_budget(run, self.budget) for run in group}
            for name, place in places.items():
                if place is None:
                    self.comparable.flags.append(
                        Flag("warning", f"{name} never reaches {self.budget.text}.")
                    )
            if reached := [place for place in places.values() if place is not None]:
                matched[method] = reached
        return matched

    def contrasts(self) -> list[dict[str, Any]]:
        """Return one row per pair of methods, scorer and point of comparison.

        p-values are corrected by Holm over all rows of the same scorer.
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

    def final_scores(self, method: str) -> Scores:
        """Return the deciding scores of a method at the end of training, [S, P]."""
        finals = [run.final for run in self.groups[method]]
        return scores_of(finals, self.judge, self.comparable.prompts)

    def baseline_win_rates(self) -> dict[str, dict[str, Any]]:
        """Return the final win rate of each method over the baseline, over seeds and prompts."""
        if self.baseline is None:
            return {}
        rates = {}
        baseline_scores = scores_of([self.baseline], self.judge, self.comparable.prompts)
        for method, group in self.groups.items():
            scores = scores_of([run.final for run in group], self.judge, self.comparable.prompts)
            rate = statistics.win_rate(scores, baseline_scores, self.confidence)
            rates[method] = {"win_rate": rate.difference, "low": rate.low, "high": rate.high}
        return rates

    def ranking(self) -> list[dict[str, Any]]:
        """Return all methods, and the baseline as None, by strength (Bradley and Terry, 1952)."""
        prompts = self.comparable.prompts
        names: list[str | None] = list(self.groups)
        scores = [
            scores_of([run.final for run in group], self.judge, prompts)
            for group in self.groups.values()
        ]
        if self.baseline is not None:
            names.append(None)
            scores.append(scores_of([self.baseline], self.judge, prompts))
        if len(scores) < 2:
            return []
        # Numbered, since a method may have any name.
        ranked = statistics.ranking({str(number): s for number, s in enumerate(scores)})
        return [row._asdict() | {"name": names[int(row.name)]} for row in ranked]

    def frontier(self) -> list[dict[str, Any]]:
        """Return score against KL for each method and scorer: means over seeds with intervals."""
        if not self.comparable.has_comparable_kl:
            return []
        rows = []
        for method, group in self.all_groups.items():
            curves = [
                [checkpoint.on_prompts(self.checkpoint_prompts) for checkpoint in run.checkpoints]
                for run in group
                if all(checkpoint.kl is not None for checkpoint in run.checkpoints)
            ]
            for scorer in self.scorers if curves else ():
                rows.append({"method": method, "scorer": scorer, **self._curve(curves, scorer)})
        return rows

    def subsets(self) -> list[dict[str, Any]]:
        """Return the mean score of each method by subset of the prompts, by the deciding judge."""
        final = self.comparable.runs[0].final
        subset_by_prompt = {row["prompt_id"]: subset_of(row) for row in final.rows}
        names = sorted(set(subset_by_prompt.values()))
        if len(names) < 2:
            return []
        rows = []
        for name in names:
            prompts = [p for p in self.comparable.prompts if subset_by_prompt[p] == name]
            if len(prompts) < 2:
                continue
            cells = {}
            for method, group in self.groups.items():
                scores = scores_of([run.final for run in group], self.judge, prompts)
                mean = statistics.mean_interval(scores, 0.0, self.confidence)
                cells[method] = {"mean": mean.difference, "low": mean.low, "high": mean.high}
            rows.append({"subset": name, "prompts": len(prompts), "cells": cells})
        return rows

    def _contrast(self, a: str, b: str, at: str, scorer: str) -> dict[str, Any]:
        scores_a, scores_b = (self._scores_at(method, at, scorer) for method in (a, b))
        contrast = statistics.contrast(scores_a, scores_b, self.confidence)
        rate = statistics.win_rate(
            self._nearest_scores(a, at, scorer),
            self._nearest_scores(b, at, scorer),
            self.confidence,
        )
        row = {
            "a": a, "b": b, "at": at, "scorer": scorer,
            "difference": contrast.difference, "se": contrast.se, "df": contrast.df,
            "low": contrast.low, "high": contrast.high, "p": contrast.p_value,
            "detectable": statistics.detectable(
                contrast.se, contrast.df, alpha=1 - self.confidence
            ),
            "win_rate": rate.difference, "win_rate_low": rate.low, "win_rate_high": rate.high,
            "seeds": [len(scores_a), len(scores_b)], "prompts": scores_a.shape[1],
        }  # fmt: skip
        return row | {"lc_win_rate": self._length_controlled(a, b, at, scorer)}

    def _scores_at(self, method: str, at: str, scorer: str) -> Scores:
        if at == "final":
            finals = [run.final for run in self.groups[method]]
            return scores_of(finals, scorer, self.comparable.prompts)
        return scores_of(self.matched[method], scorer, self.checkpoint_prompts)

    def _nearest(self, method: str, at: str) -> tuple[list[CheckpointEval], list[str]]:
        """Return whole checkpoints, for what cannot be interpolated, and the prompts they share."""
        if at == "final":
            return [run.final for run in self.groups[method]], self.comparable.prompts
        return [place.nearest for place in self.matched[method]], self.checkpoint_prompts

    def _nearest_scores(self, method: str, at: str, scorer: str) -> Scores:
        checkpoints, prompts = self._nearest(method, at)
        return scores_of(checkpoints, scorer, prompts)

    def _length_controlled(self, a: str, b: str, at: str, scorer: str) -> float:
        (checkpoints_a, prompts), (checkpoints_b, _) = self._nearest(a, at), self._nearest(b, at)
        win_scores = statistics.head_to_head(
            scores_of(checkpoints_a, scorer, prompts), scores_of(checkpoints_b, scorer, prompts)
        )
        words_a, words_b = (
            scores_of(checkpoints, "words", prompts)
            for checkpoints in (checkpoints_a, checkpoints_b)
        )
        return float(statistics.length_controlled(win_scores, words_a, words_b).win_rate)

    def _curve(self, curves: Sequence[Sequence[CheckpointEval]], scorer: str) -> dict[str, Any]:
        """Return one frontier: the mean over seeds at each KL, its area and the fit."""
        kls = [[_kl_from_start(checkpoint) for checkpoint in curve] for curve in curves]
        scores = [
            [float(checkpoint.mean(scorer) or 0.0) for checkpoint in curve] for curve in curves
        ]
        farthest = max(max(kl) for kl in kls)
        common = min(max(kl) for kl in kls)
        points = []
        for root in np.linspace(0.0, farthest**0.5, _GRID):
            at_root = [
                value
                for kl, score in zip(kls, scores, strict=True)
                if (value := statistics.at_kl(kl, score, root**2)) is not None
            ]
            if at_root:
                band = statistics.band(at_root, self.confidence)
                points.append({"kl": float(root**2), "seeds": len(at_root), **band._asdict()})
        limit = self.budget.limit if self.budget and self.budget.by == "kl" else common
        areas = [
            area
            for kl, score in zip(kls, scores, strict=True)
            if limit > 0 and (area := statistics.area_to(kl, score, limit)) is not None
        ]
        area_band = statistics.band(areas, self.confidence) if areas else None
        return {
            "points": points,
            "area": area_band and area_band.mean,
            "area_low": area_band and area_band.low,
            "area_high": area_band and area_band.high,
            "area_to": limit,
            "fit": _fit(kls, scores),
        }


def _by_method(runs: Sequence[TrainingRun]) -> dict[str, list[TrainingRun]]:
    groups: dict[str, list[TrainingRun]] = defaultdict(list)
    for run in runs:
        groups[run.method].append(run)
    return dict(groups)


def _kl_from_start(checkpoint: CheckpointEval) -> float:
    """Return the KL of a checkpoint, exactly 0 before training: two passes differ by rounding."""
    kl = max(0.0, checkpoint.kl or 0.0)
    return 0.0 if checkpoint.step == 0 and kl < _ROUNDING else kl


def _fit(
    kls: Sequence[Sequence[float]], scores: Sequence[Sequence[float]]
) -> dict[str, Any] | None:
    """Fit Gao et al. (2023) to all seeds together, each from its own start."""
    kl: list[float] = []
    gain: list[float] = []
    for seed_kls, seed_scores in zip(kls, scores, strict=True):
        kl += seed_kls[1:]
        gain += [value - seed_scores[0] for value in seed_scores[1:]]
    usable = [(k, g) for k, g in zip(kl, gain, strict=True) if k > 0]
    if len({k for k, _ in usable}) < _MIN_FIT_POINTS:
        return None
    fit = statistics.gao_fit([k for k, _ in usable], [g for _, g in usable], "rl")
    # A peak beyond the largest measured KL follows from the form of the curve, not from the data.
    return fit._asdict() | {"seen_to": max(k for k, _ in usable)}
