"""What a comparison's page shows, as plain data; the package `page` draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.comparison import provenance
from evaluation.comparison.analysis import Comparison
from evaluation.comparison.budget_matching import BudgetConfig
from evaluation.comparison.comparability import check
from evaluation.comparison.training_runs import (
    Look,
    Trained,
    baseline_of,
    numeric_columns,
    of_methods,
    of_partial,
    subset_of,
)
from evaluation.comparison.verdict import verdict
from evaluation.samples import points_over
from evaluation.statistics import mean_and_error, mean_interval
from plumbline import __version__
from plumbline.config import Config
from plumbline.config import settings as settings_of
from plumbline.errors import ArtifactError, DataError
from plumbline.runs.artifacts import Artifact, Store
from plumbline.runs.run import RUN_FILE, RunRecord

#: Answers that a page carries at most; beyond, those of checkpoints on the way are left out.
MAX_ANSWERS = 60_000
_RESAMPLES = 2000
#: The kind of artefact that a training makes.
POLICY = "policy"
_KNOWN_SCORERS = {
    "gold": ("gold utility", "points"),
    "reward": ("reward-model score", "deviations"),
    "ensemble": ("ensemble score", "deviations"),
}
_KNOWN_METHODS = {"baseline": "SFT", "sft": "SFT", "dpo": "DPO", "ppo": "PPO"}


def build(
    trained: Sequence[Trained],
    *,
    title: str,
    judge: str,
    baseline: Look | None = None,
    budget: BudgetConfig | None = None,
    confidence: float = 0.95,
    stages: Mapping[str, Artifact] | None = None,
    settings: Config | None = None,
    common_prompts: bool = False,
    allowed: Sequence[str] = (),
    status: str = "finished",
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the content of a comparison's page.

    Raises `DataError` where the trainings may not be compared.
    """
    checked = check(trained, judge, baseline, common_prompts=common_prompts, allowed=allowed)
    scorers = _scorers(checked.trained, judge)
    comparison = Comparison(checked, judge, scorers, budget or BudgetConfig(), baseline, confidence)
    contrasts = comparison.contrasts()
    titles = {name: _KNOWN_METHODS.get(name, name) for name in ("baseline", *comparison.everything)}
    stages = stages or {}
    matched = {id(place.nearest) for places in comparison.matched.values() for place in places}
    policies = _Policies(comparison, matched)
    rewards = stages.get("reward")
    return {
        "title": title,
        "version": __version__,
        "status": status,
        "judge": judge,
        "has_gold": "gold" in scorers,
        "verdict": verdict(comparison, contrasts, titles),
        "flags": [
            *(asdict(flag) for flag in checked.flags),
            *({"level": "warning", "text": note} for note in notes),
        ],
        "scorers": [
            dict(zip(("title", "unit"), _KNOWN_SCORERS.get(n, (n, "points")), strict=True), name=n)
            for n in scorers
        ],
        "methods": [{"name": name, "title": titles[name]} for name in comparison.everything],
        "baseline": {
            "title": titles["baseline"],
            "figures": {} if baseline is None else _figures(baseline, scorers),
        },
        "design": {
            "seeds": {name: len(group) for name, group in comparison.groups.items()},
            "prompts": len(checked.prompts),
            "prompts_at_looks": len(comparison.looked_at),
            "confidence": confidence,
            "budget": None if comparison.budget is None else comparison.budget._asdict(),
        },
        "policies": policies.rows(),
        "contrasts": contrasts,
        "ranking": comparison.ranking(),
        "frontier": comparison.frontier(),
        "training": provenance.training(stages),
        "subsets": comparison.subsets(),
        "parts": [
            row | {"policy": titles[row["policy"]]}
            for row in provenance.parts(
                comparison.groups, [] if baseline is None else baseline.rows, judge
            )
        ],
        "costs": [
            row | {"method": titles[row["method"]]} for row in provenance.costs(comparison.groups)
        ],
        "lineage": provenance.lineage(stages),
        "left_out": provenance.left_out(stages),
        "differences": provenance.differences(comparison.groups),
        "settings": []
        if settings is None
        else [
            {"key": k.key, "value": str(k.value), "documentation": k.documentation}
            for k in settings_of(settings)
        ],
        "reward_model": None
        if rewards is None
        else {
            "accuracy": rewards.metrics.get("accuracy"),
            "held_out_pairs": int(rewards.metrics.get("held_out_pairs") or 0),
            "best_possible": stages["preferences"].metrics.get("best_possible")
            if "preferences" in stages
            else None,
        },
        "samples": policies.samples(),
    }


def content_of_run(
    home: Path, run: str, budget: BudgetConfig | None = None, confidence: float = 0.95
) -> dict[str, Any]:
    """Return the content for a run of a recipe that compares, finished or going on."""
    record = record_of(home, run)
    trained, baseline = trainings_of(record)
    if not trained:
        return waiting(record)
    return build(
        trained,
        title=run,
        judge=judge_of(trained),
        baseline=baseline,
        budget=budget,
        confidence=confidence,
        stages=record.artifacts,
        status=record.status,
        common_prompts=record.status == "running",
    )


def record_of(home: Path, name: str) -> RunRecord:
    """Return a run by its name; raise `ArtifactError` that names those there are."""
    if not (home / name / RUN_FILE).exists():
        runs = sorted(path.parent.name for path in home.glob(f"*/{RUN_FILE}"))
        raise ArtifactError(
            f"There is no run {name!r} in {home}; there are {', '.join(runs) or 'none'}."
        )
    return RunRecord(home / name)


def judge_of(trained: Sequence[Trained]) -> str:
    """Return the scorer that decides: gold where it is known, else the first that all have."""
    shared = [name for name in trained[0].scorers if all(name in one.scorers for one in trained)]
    if not shared:
        raise DataError(
            "The policies have no score in common, so there is nothing to compare them by. "
            + "; ".join(f"{one.name}: {', '.join(one.scorers) or 'none'}" for one in trained)
        )
    return "gold" if "gold" in shared else shared[0]


def trainings_of(record: RunRecord) -> tuple[list[Trained], Look | None]:
    """Return the trainings of a run and its baseline; also those that go on, from their looks.

    A stage ``evaluation/METHOD/seed-N`` beside a stage ``METHOD/seed-N`` is a finished training.
    """
    made = record.artifacts
    methods: dict[str, dict[str, dict[str, Artifact]]] = {}
    going_on = []
    for name, artifact in made.items():
        method, _, seed = name.rpartition("/seed-")
        if not method or artifact.kind != POLICY:
            continue
        evaluation = made.get(f"evaluation/{name}")
        if evaluation is not None:
            places = methods.setdefault(method, {})
            places[seed] = {"policy": artifact, "evaluation": evaluation}
        elif (found := of_partial(method, seed, artifact.path)) is not None:
            going_on.append(found)
    current, making = record.state.get("stage") or "", record.state.get("making")
    method, _, seed = str(current).rpartition("/seed-")
    if str(making).startswith(f"{POLICY}-") and method:
        found = of_partial(method, seed, Store(record.store.root).partial(str(making)) / "out")
        if found is not None:
            going_on.append(found)
    baseline = made.get("evaluation/sft")
    return (
        [*of_methods(methods), *going_on],
        None if baseline is None else baseline_of(baseline),
    )


def waiting(record: RunRecord) -> dict[str, Any]:
    """Return the content for a run in which nothing has been judged yet."""
    stages = record.artifacts
    return {
        "title": record.folder.name,
        "version": __version__,
        "status": record.status,
        "judge": "gold",
        "has_gold": False,
        "verdict": [f"Nothing to compare yet; the run is at {record.state['stage'] or 'rest'}."],
        "design": {"seeds": {}, "prompts": 0, "prompts_at_looks": 0, "confidence": 0.95,
                   "budget": None},
        "baseline": {"title": "SFT", "figures": {}},
        "reward_model": None,
        "training": provenance.training(stages),
        "lineage": provenance.lineage(stages),
        "left_out": provenance.left_out(stages),
        "samples": {"policies": [], "prompts": [], "answers": {}},
    } | {
        name: []
        for name in ("flags", "scorers", "methods", "policies", "contrasts", "ranking", "frontier",
                     "subsets", "parts", "costs", "differences", "settings")
    }  # fmt: skip


def _scorers(trained: Sequence[Trained], judge: str) -> list[str]:
    """Return the scorers that every finished policy has, the deciding one first."""
    shared = [name for name in trained[0].scorers if all(name in one.scorers for one in trained)]
    return [judge, *(name for name in shared if name != judge)]


def _figures(look: Look, scorers: Sequence[str]) -> dict[str, float | None]:
    found: dict[str, float | None] = {"kl": look.kl, "kl_error": None}
    if found["kl"] is not None:
        gaps = [row["logprob"] - row["reference_logprob"] for row in look.rows]
        found["kl_error"] = mean_and_error(gaps).error
    for name in dict.fromkeys([*scorers, "words", "finished", *numeric_columns(look.rows)]):
        found[name] = look.mean(name)
    return found


class _Policies:
    """Every policy at every look, as rows of the table and as columns of the sample browser."""

    def __init__(self, comparison: Comparison, matched: set[int]) -> None:
        self._comparison = comparison
        self._matched = matched
        self._looks = [(one, look) for one in comparison.checked.trained for look in one.looks]
        self._baseline = comparison.baseline

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a policy and look, with its figures and what it had cost."""
        scorers = self._comparison.scorers
        found = []
        for one, look in self._looks:
            final = look is one.final
            found.append(
                {
                    "id": one.identity(look),
                    "method": one.method,
                    "seed": one.seed,
                    "checkpoint": look.checkpoint,
                    "progress": look.checkpoint / (one.final.checkpoint or 1),
                    "final": final and not one.unfinished,
                    "matched": id(look) in self._matched,
                    "figures": _figures(look, scorers) | self._wins(look, final=final),
                    "costs": dict(look.costs) | {"memory": one.memory},
                }
            )
        return found

    def samples(self) -> dict[str, Any]:
        """Return prompts and every policy's answers to them, aligned."""
        prompts = self._comparison.checked.prompts
        looks = self._looks
        if len(prompts) * len(looks) > MAX_ANSWERS:
            looks = [(one, look) for one, look in looks if look is one.final]
        columns = {one.identity(look): look for one, look in looks}
        if self._baseline is not None:
            columns = {"sft": self._baseline} | columns
        first = {
            row["prompt_id"]: row
            for one in self._comparison.checked.trained
            for row in one.final.rows
        }
        return {
            "policies": list(columns),
            "prompts": [
                {
                    "id": identity,
                    "messages": [dict(m) for m in first[identity]["prompt"]],
                    "subset": subset_of(first[identity]),
                }
                for identity in prompts
            ],
            "answers": {name: self._answers(look, prompts) for name, look in columns.items()},
        }

    def _answers(self, look: Look, prompts: Sequence[str]) -> list[dict[str, Any] | None]:
        rows = {row["prompt_id"]: row for row in look.rows}
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

    def _wins(self, look: Look, *, final: bool) -> dict[str, float | None]:
        """Return win rates over the baseline; for finished policies with intervals over prompts."""
        if self._baseline is None:
            return {}
        theirs = {row["prompt_id"]: row for row in self._baseline.rows}
        found: dict[str, float | None] = {}
        for scorer in self._comparison.scorers:
            if any(row.get(scorer) is None for row in self._baseline.rows):
                continue
            points = points_over(look.rows, theirs, scorer)
            found[f"{scorer}_win_rate"] = float(np.mean(points))
            if final and len(points) > 1:
                low, high = mean_interval(points, self._comparison.confidence, _RESAMPLES, 0)
                found |= {f"{scorer}_win_rate_low": low, f"{scorer}_win_rate_high": high}
        return found
