"""Comparing methods that a recipe trained. This file only sequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.comparison import page
from evaluation.comparison.budget_matching import BudgetConfig
from evaluation.comparison.page_content import build
from evaluation.comparison.training_runs import Methods, baseline_of, of_methods
from plumbline.config import Config
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.stage import Stage, stage

CODE_BESIDE = "../templates"
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
    config: Config,
) -> Mapping[str, float | None]:
    """Write the report of a comparison: page, Markdown, plots, figures and ``summary.json``."""
    content = build(
        of_methods(methods),
        title=title,
        judge=judge,
        baseline=baseline_of(baseline),
        budget=budget,
        confidence=confidence,
        stages=stages,
        settings=config,
    )
    page.write(content, stage.folder)
    write_json(stage.folder / SUMMARY, summary(content, stages))
    return headline(content)


def headline(content: Mapping[str, Any]) -> dict[str, float | None]:
    """Return each method's mean win rate over its seeds, or its mean score without a baseline."""
    found: dict[str, float | None] = {}
    for method in content["methods"]:
        finals = [p for p in content["policies"] if p["final"] and p["method"] == method["name"]]
        for name in (f"{content['judge']}_win_rate", content["judge"]):
            values = [v for p in finals if (v := p["figures"].get(name)) is not None]
            if values:
                label = "win_rate" if name.endswith("_win_rate") else name
                found[f"{method['name']}_{label}"] = sum(values) / len(values)
                break
    return found


def summary(content: Mapping[str, Any], stages: Mapping[str, Artifact]) -> dict[str, Any]:
    """Return ``summary.json``: what a script would want to read."""
    methods: dict[str, dict[str, Any]] = {}
    for policy in content["policies"]:
        if not policy["final"]:
            continue
        figures = policy["figures"]
        found: dict[str, Any] = {"n_prompts": content["design"]["prompts"]}
        for scorer in content["scorers"]:
            name = scorer["name"]
            low, high = (figures.get(f"{name}_win_rate_{end}") for end in ("low", "high"))
            found[f"{name}_mean"] = figures.get(name)
            found[f"{name}_win_rate"] = figures.get(f"{name}_win_rate")
            found[f"{name}_win_rate_ci"] = None if low is None else [low, high]
        found |= {name: figures.get(name) for name in ("kl", "kl_error", "words", "finished")}
        methods.setdefault(policy["method"], {})[policy["seed"]] = found
    baseline = content["baseline"]["figures"]
    rewards = content["reward_model"] or {}
    return {
        "judge": content["judge"],
        "verdict": content["verdict"],
        "flags": content["flags"],
        "design": content["design"],
        "methods": methods,
        "contrasts": content["contrasts"],
        "frontier": [
            {name: line[name] for name in line if name != "points"} for line in content["frontier"]
        ],
        "ranking": content["ranking"],
        "baseline": {
            "gold_mean": baseline.get("gold"),
            "reward_mean": baseline.get("reward"),
            "n_prompts": content["design"]["prompts"],
        },
        "reward_model_accuracy": rewards.get("accuracy"),
        "reward_model_accuracy_best_possible": rewards.get("best_possible"),
        "held_out_pairs": rewards.get("held_out_pairs"),
        "seconds": {name: round(made.manifest.seconds, 1) for name, made in stages.items()},
    }
