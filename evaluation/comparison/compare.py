"""Comparing the methods that a recipe trained. This file only sequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.comparison import page
from evaluation.comparison.budget_matching import BudgetConfig
from evaluation.comparison.costs import PriceConfig
from evaluation.comparison.page_content import comparison_content
from evaluation.comparison.training_runs import Methods, baseline_of, training_runs_of
from plumbline.config import Config
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.stage import Stage, stage

CODE_BESIDE = "page/templates"
SUMMARY = "summary.json"


@stage("report", version=2)
def compare_methods(
    stage: Stage,
    *,
    title: str,
    judge: str,
    baseline: Artifact,
    methods: Methods,
    stages: Mapping[str, Artifact],
    budget: BudgetConfig,
    confidence: float,
    prices: PriceConfig,
    config: Config,
) -> Mapping[str, float | None]:
    """Write the report of a comparison: page, Markdown, plots, tables and ``summary.json``."""
    content = comparison_content(
        training_runs_of(methods),
        title=title,
        judge=judge,
        baseline=baseline_of(baseline),
        budget=budget,
        confidence=confidence,
        prices=prices,
        stages=stages,
        settings=config,
    )
    page.write(content, stage.folder)
    write_json(stage.folder / SUMMARY, summary(content, stages))
    return headline_metrics(content)


def headline_metrics(content: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the mean win rate of each method over its seeds; without a baseline the mean score."""
    headline: dict[str, float | None] = {}
    for method in content["methods"]:
        finals = [p for p in content["policies"] if p["final"] and p["method"] == method["name"]]
        for name in (f"{content['judge']}_win_rate", content["judge"]):
            values = [v for p in finals if (v := p["metrics"].get(name)) is not None]
            if values:
                label = "win_rate" if name.endswith("_win_rate") else name
                headline[f"{method['name']}_{label}"] = sum(values) / len(values)
                break
    return headline


def summary(content: Mapping[str, Any], stages: Mapping[str, Artifact]) -> dict[str, Any]:
    """Return ``summary.json``: the results for scripts."""
    methods: dict[str, dict[str, Any]] = {}
    for policy in content["policies"]:
        if not policy["final"]:
            continue
        metrics = policy["metrics"]
        results: dict[str, Any] = {"n_prompts": content["design"]["prompts"]}
        for scorer in content["scorers"]:
            name = scorer["name"]
            low, high = (metrics.get(f"{name}_win_rate_{end}") for end in ("low", "high"))
            results[f"{name}_mean"] = metrics.get(name)
            results[f"{name}_win_rate"] = metrics.get(f"{name}_win_rate")
            results[f"{name}_win_rate_ci"] = None if low is None else [low, high]
        results |= {name: metrics.get(name) for name in ("kl", "kl_se", "words", "finished")}
        methods.setdefault(policy["method"], {})[policy["seed"]] = results
    baseline = (content["baseline"] or {}).get("metrics", {})
    reward_model = content["reward_model"] or {}
    return {
        "judge": content["judge"],
        "headline": content["headline"],
        "leaderboard": content["leaderboard"],
        "verdict": content["verdict"],
        "flags": content["flags"],
        "design": content["design"],
        "methods": methods,
        "contrasts": content["contrasts"],
        "frontier": [
            {name: row[name] for name in row if name != "points"} for row in content["frontier"]
        ],
        "ranking": content["ranking"],
        "baseline": {
            "gold_mean": baseline.get("gold"),
            "reward_mean": baseline.get("reward"),
            "n_prompts": content["design"]["prompts"],
        },
        "reward_model_accuracy": reward_model.get("accuracy"),
        "reward_model_accuracy_best_possible": reward_model.get("best_possible"),
        "held_out_pairs": reward_model.get("held_out_pairs"),
        "seconds": {name: round(artifact.manifest.seconds, 1) for name, artifact in stages.items()},
    }
