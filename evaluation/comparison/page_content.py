"""The content of a comparison's page as plain data; the package `page` draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.comparison import provenance
from evaluation.comparison.analysis import Comparison
from evaluation.comparison.budget_matching import BudgetConfig
from evaluation.comparison.comparability import Comparable, Flag, check_comparability
from evaluation.comparison.costs import PriceConfig, mean_costs
from evaluation.comparison.equal_responses import EqualScores
from evaluation.comparison.headline import Headline, headline
from evaluation.comparison.leaderboard import leaderboard
from evaluation.comparison.recipe_runs import find_run, missing_in, training_runs_in
from evaluation.comparison.training_runs import (
    Baseline,
    CheckpointEval,
    TrainingRun,
    numeric_columns,
    subset_of,
)
from evaluation.comparison.verdict import verdict
from evaluation.measures.registry import MEASURES
from evaluation.sample_files import win_scores_over
from plumbline import __version__
from plumbline.config import Config
from plumbline.config import settings as settings_of
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact, read_json
from plumbline.runs.run import RunRecord
from plumbline.statistics import bootstrap_interval, mean_and_se
from plumbline.terminal import visible

#: The id of the baseline among policies, whose ids have slashes.
BASELINE_ID = "baseline"
#: A page carries at most so many responses; beyond that, those of earlier checkpoints are left out.
MAX_RESPONSES = 60_000
_RESAMPLES = 2000
_SCORER_TITLES = {
    "gold": ("gold utility", "points"),
    "reward": ("reward-model score", "standard deviations"),
    "ensemble": ("ensemble score", "standard deviations"),
}


def comparison_content(
    runs: Sequence[TrainingRun],
    *,
    title: str,
    judge: str,
    baseline: Baseline | None = None,
    budget: BudgetConfig | None = None,
    confidence: float = 0.95,
    stages: Mapping[str, Artifact] | None = None,
    settings: Config | None = None,
    common_prompts: bool = False,
    allowed: Sequence[str] = (),
    status: str = "finished",
    notes: Sequence[str] = (),
    missing: Sequence[str] = (),
    prices: PriceConfig | None = None,
    run_settings: Mapping[str, Mapping[str, str]] | None = None,
    of_models: bool = False,
) -> dict[str, Any]:
    """Return the content of a comparison's page.

    ``notes`` are shown below the warnings; ``missing`` says what the design still lacks, and makes
    the result one so far. ``run_settings``: run to key to value, for settings that differ.
    ``of_models``: single models are compared, and not methods of training.

    Raises `DataError` where the training runs cannot be compared.
    """
    start = None if baseline is None else baseline.evaluation
    comparable = check_comparability(
        runs, judge, start, common_prompts=common_prompts, allowed=allowed
    )
    scorers = _shared_scorers(comparable, judge)
    equal = EqualScores(scorers)
    if start is not None:
        start = equal.of_checkpoint(start.on_prompts(comparable.prompts))
    comparable = replace(comparable, runs=[equal.of_run(run) for run in comparable.runs])
    comparison = Comparison(
        comparable, judge, scorers, budget or BudgetConfig(), start, confidence, of_models
    )
    contrasts = comparison.contrasts()
    titles, baseline_title = display_titles(comparable.runs, baseline)
    policies = _Policies(comparison)
    costs = mean_costs(comparison.groups, prices)
    comparable.flags += [Flag("note", note) for note in notes]
    return {
        "title": title,
        "version": __version__,
        "status": status,
        "judge": judge,
        "has_gold": "gold" in scorers,
        "headline": headline(
            comparison, contrasts, titles, baseline_title, _scorer(judge)["title"], missing
        ),
        "leaderboard": leaderboard(comparison, costs),
        "verdict": verdict(comparison, contrasts, titles, baseline_title),
        "flags": [asdict(flag) for flag in comparable.flags],
        "scorers": [_scorer(name) for name in scorers],
        "methods": [{"name": name, "title": titles[name]} for name in comparison.all_groups],
        "baseline": _baseline(baseline, start, baseline_title, scorers),
        "design": _design(comparison),
        "policies": policies.rows(),
        "contrasts": contrasts,
        "ranking": comparison.ranking(),
        "frontier": comparison.frontier(),
        "subsets": comparison.subsets(),
        "parts": provenance.score_parts(
            comparison.groups, [] if start is None else start.rows, judge
        ),
        "costs": costs,
        "currency": None if prices is None else prices.currency,
        "differences": provenance.different_settings(comparison.groups),
        "run_settings": provenance.different_run_settings(run_settings or {}),
        "settings": [] if settings is None else _settings(settings),
        "samples": policies.samples(),
    } | _of_stages(stages or {})


def _baseline(
    baseline: Baseline | None, start: CheckpointEval | None, title: str, scorers: Sequence[str]
) -> dict[str, Any] | None:
    if baseline is None or start is None:
        return None
    return {"name": baseline.name, "title": title, "metrics": _metrics(start, scorers)}


def _design(comparison: Comparison) -> dict[str, Any]:
    return {
        "seeds": {name: len(group) for name, group in comparison.groups.items()},
        "prompts": len(comparison.comparable.prompts),
        "checkpoint_prompts": len(comparison.checkpoint_prompts),
        "confidence": comparison.confidence,
        "budget": None if comparison.budget is None else comparison.budget._asdict(),
        "of_models": comparison.of_models,
    }


def _of_stages(stages: Mapping[str, Artifact]) -> dict[str, Any]:
    """Return what the stages of a run say beside the policies."""
    return {
        "training": provenance.training_curves(stages),
        "lineage": provenance.lineage(stages),
        "dropped": provenance.dropped_rows(stages),
        "reward_model": _reward_model(stages),
    }


def run_content(
    home: Path, run: str, budget: BudgetConfig | None = None, confidence: float = 0.95
) -> dict[str, Any]:
    """Return the content for a run of a recipe that compares, finished or in progress."""
    record = find_run(home, run)
    runs, baseline = training_runs_in(record)
    if not runs:
        return waiting_content(record)
    return comparison_content(
        runs,
        title=run,
        judge=default_judge(runs),
        baseline=baseline,
        budget=budget,
        confidence=confidence,
        stages=record.artifacts,
        status=record.status,
        common_prompts=record.status == "running",
        missing=missing_in(record, runs),
    )


def default_judge(runs: Sequence[TrainingRun]) -> str:
    """Return the deciding scorer: gold where it is known, else the first that all runs share."""
    shared = [name for name in runs[0].scorers if all(name in run.scorers for run in runs)]
    if not shared:
        raise DataError(
            "The policies have no score in common, so there is nothing to compare them by. "
            + "; ".join(f"{run.name}: {', '.join(run.scorers) or 'none'}" for run in runs)
        )
    return "gold" if "gold" in shared else shared[0]


def waiting_content(record: RunRecord) -> dict[str, Any]:
    """Return the content for a run in which nothing has been evaluated yet."""
    at = " and ".join(record.making)
    doing = f"the run is at the stage {at}" if at else "no stage is running"
    runs, state = record.status == "running", f"No policy has been evaluated so far; {doing}."
    if not runs:
        state = f"The run is over ({record.status}), and no policy was evaluated in it."
    return {
        "title": record.folder.name,
        "version": __version__,
        "status": record.status,
        "judge": "gold",
        "has_gold": False,
        "headline": Headline(
            so_far=runs,
            title="Nothing to compare yet" if runs else "Nothing to compare",
            margin=[state],
            basis="",
            trust=[],
            missing=missing_in(record, []),
        ),
        "design": {"seeds": {}, "prompts": 0, "checkpoint_prompts": 0, "confidence": 0.95,
                   "budget": None},
        "baseline": None,
        "currency": None,
        "samples": {"policies": [], "prompts": [], "responses": {}},
    } | _of_stages(record.artifacts) | {
        name: []
        for name in ("verdict", "leaderboard", "flags", "scorers", "methods", "policies",
                     "contrasts", "ranking", "frontier", "subsets", "parts", "costs", "differences",
                     "run_settings", "settings")
    }  # fmt: skip


def display_titles(
    runs: Sequence[TrainingRun], baseline: Baseline | None
) -> tuple[dict[str, str], str]:
    """Return the title of each method and of the baseline; no two are equal.

    A title that two methods share gives way to their names.
    """
    titles = {run.method: visible(run.title or run.method) for run in runs}
    repeated = {title for title in titles.values() if list(titles.values()).count(title) > 1}
    titles = {name: visible(name) if title in repeated else title for name, title in titles.items()}
    baseline_title = "the baseline" if baseline is None else visible(baseline.title)
    while baseline_title in titles.values():
        baseline_title += " (baseline)"
    return titles, baseline_title


def _scorer(name: str) -> dict[str, str]:
    if name in MEASURES:
        measure = MEASURES[name].load()
        return {"name": name, "title": measure.title, "unit": measure.unit}
    title, unit = _SCORER_TITLES.get(name, (visible(name), "points"))
    return {"name": name, "title": title, "unit": unit}


def _settings(config: Config) -> list[dict[str, str]]:
    return [
        {"key": s.key, "value": str(s.value), "documentation": s.documentation}
        for s in settings_of(config)
    ]


def _reward_model(stages: Mapping[str, Artifact]) -> dict[str, Any] | None:
    if "reward" not in stages:
        return None
    metrics = stages["reward"].metrics
    preferences = stages.get("preferences")
    return {
        "accuracy": metrics.get("accuracy"),
        "held_out_pairs": int(metrics.get("held_out_pairs") or 0),
        "best_possible": None if preferences is None else preferences.metrics.get("best_possible"),
        "audit": _audit_verdict(stages),
    }


def _audit_verdict(stages: Mapping[str, Artifact]) -> dict[str, Any] | None:
    """Return the verdict of the reward model's audit, where the run made one."""
    audits = [artifact for artifact in stages.values() if artifact.kind == "reward-audit"]
    if not audits:
        return None
    verdict: dict[str, Any] = read_json(audits[-1].path / "audit.json")["verdict"]
    return verdict


def _shared_scorers(comparable: Comparable, judge: str) -> list[str]:
    """Return the scorers that score every response, the deciding one first; note the others."""
    runs = comparable.runs
    shared = [name for name in runs[0].scorers if all(name in run.scorers for run in runs)]
    rows = [row for run in runs for checkpoint in run.checkpoints for row in checkpoint.rows]
    partial = {
        name: missing
        for name in shared
        if name != judge and (missing := sum(row.get(name) is None for row in rows))
    }
    for name, missing in partial.items():
        text = f"{missing} of {len(rows)} responses have no {name}, so it is not compared."
        comparable.flags.append(Flag("note", text))
    return [judge, *(name for name in shared if name != judge and name not in partial)]


def _metrics(checkpoint: CheckpointEval, scorers: Sequence[str]) -> dict[str, float | None]:
    metrics: dict[str, float | None] = {"kl": checkpoint.kl, "kl_se": None}
    if metrics["kl"] is not None:
        metrics["kl_se"] = mean_and_se(checkpoint.log_ratios).se
    columns = [*scorers, "words", "finished", *numeric_columns(checkpoint.rows)]
    return metrics | {name: checkpoint.mean(name) for name in dict.fromkeys(columns)}


class _Policies:
    """Every policy at every checkpoint, as rows of tables and as columns of the sample browser."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self._matched = {
            id(place.nearest) for places in comparison.matched.values() for place in places
        }
        self._checkpoints = [
            (run, checkpoint)
            for run in comparison.comparable.runs
            for checkpoint in run.checkpoints
        ]
        self._baseline = comparison.baseline

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per policy and checkpoint, with its metrics and costs."""
        scorers = self._comparison.scorers
        rows = []
        for run, checkpoint in self._checkpoints:
            is_final = checkpoint is run.final
            rows.append(
                {
                    "id": run.policy_id(checkpoint),
                    "method": run.method,
                    "seed": run.seed,
                    "checkpoint": checkpoint.step,
                    "progress": checkpoint.step / (run.final.step or 1),
                    "final": is_final and run.is_finished,
                    "matched": id(checkpoint) in self._matched,
                    "metrics": _metrics(checkpoint, scorers)
                    | self._win_rates(checkpoint, with_interval=is_final),
                    "costs": dict(checkpoint.costs) | {"memory": run.peak_memory},
                }
            )
        return rows

    def samples(self) -> dict[str, Any]:
        """Return prompts and every policy's responses to them, aligned."""
        prompts = self._comparison.comparable.prompts
        checkpoints = self._checkpoints
        if len(prompts) * len(checkpoints) > MAX_RESPONSES:
            checkpoints = [(run, c) for run, c in checkpoints if c is run.final]
        columns = {run.policy_id(c): c for run, c in checkpoints}
        if self._baseline is not None:
            columns = {BASELINE_ID: self._baseline} | columns
        rows = {
            row["prompt_id"]: row
            for run in self._comparison.comparable.runs
            for row in run.final.rows
        }
        return {
            "policies": list(columns),
            "prompts": [
                {
                    "id": identity,
                    "messages": [dict(m) for m in rows[identity]["prompt"]],
                    "subset": subset_of(rows[identity]),
                }
                for identity in prompts
            ],
            "responses": {name: self._responses(c, prompts) for name, c in columns.items()},
        }

    def _responses(
        self, checkpoint: CheckpointEval, prompts: Sequence[str]
    ) -> list[dict[str, Any] | None]:
        rows = {row["prompt_id"]: row for row in checkpoint.rows}
        return [
            None
            if identity not in rows
            else {
                "text": rows[identity]["response"],
                "scores": {name: rows[identity].get(name) for name in self._comparison.scorers},
                "tokens": rows[identity].get("tokens"),
                "finished": rows[identity].get("finished"),
            }
            for identity in prompts
        ]

    def _win_rates(
        self, checkpoint: CheckpointEval, *, with_interval: bool
    ) -> dict[str, float | None]:
        """Return the win rates over the baseline, with intervals over prompts if wanted."""
        if self._baseline is None:
            return {}
        baseline = {row["prompt_id"]: row for row in self._baseline.rows}
        rates: dict[str, float | None] = {}
        for scorer in self._comparison.scorers:
            if any(row.get(scorer) is None for row in self._baseline.rows):
                continue
            win_scores = win_scores_over(checkpoint.rows, baseline, scorer)
            rates[f"{scorer}_win_rate"] = float(np.mean(win_scores))
            if with_interval and len(win_scores) > 1:
                low, high = bootstrap_interval(
                    win_scores, self._comparison.confidence, _RESAMPLES, 0
                )
                rates |= {f"{scorer}_win_rate_low": low, f"{scorer}_win_rate_high": high}
        return rates
