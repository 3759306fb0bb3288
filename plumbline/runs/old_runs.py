"""Runs and manifests that older versions wrote, read in today's words.

Version 1 (commit 5b3c0e6 and before) said "artefact" where version 2 says "artifact", and named
functions by the modules in which they stood then. A function that moves gets a line in `MOVED`,
which is also looked at for a function of version 2 that is not where its manifest says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Modules and functions by an older name, each with the present one.
MOVED = {
    "annotation.adjudication": "annotation.aggregation.adjudication",
    "annotation.aggregate": "annotation.aggregation.aggregate",
    "annotation.agreement_page": "annotation.agreement.page",
    "annotation.campaign.collect.ask_people": "annotation.campaign.collect.collect_labels",
    "annotation.campaign.senior.ask_senior": "annotation.campaign.adjudicate.collect_decisions",
    "annotation.imported": "annotation.sources.label_files",
    "annotation.judge": "annotation.llm_judge.judge",
    "annotation.known": "annotation.sources.gold_items",
    "annotation.mixture": "annotation.sources.merge",
    "annotation.select_pairs": "annotation.selection.select_pairs",
    "annotation.simulated": "annotation.sources.simulated_labels",
    "evaluation.best_of_n": "evaluation.over_optimization.best_of_n",
    "evaluation.best_of_n.answer_often": (
        "evaluation.over_optimization.best_of_n.sample_many_responses"
    ),
    "evaluation.commands.models": "recipes._models",
    "evaluation.commands.models.refer_to_model": ("recipes._models.link_model"),
    "evaluation.compare": "evaluation.comparison.compare",
    "evaluation.judges.pairs.pair_answers": "evaluation.judges.pairs.pair_responses",
    "evaluation.judges.verdicts.read_verdicts": "evaluation.judges.pair_votes.count_votes",
    "evaluation.learning_curves": "evaluation.comparison.learning_curves",
    "evaluation.measures.behaviour.format_errors": (
        "evaluation.measures.format_errors.format_errors"
    ),
    "evaluation.measures.behaviour.refusal": "evaluation.measures.refusals.refusal",
    "evaluation.measures.likelihood": "evaluation.measures.perplexity",
    "evaluation.measures.safety": "evaluation.measures.moderation",
    "evaluation.overoptimisation_report": "evaluation.over_optimization.report",
    "evaluation.overoptimisation_report.report_overoptimisation": (
        "evaluation.over_optimization.report.report_over_optimization"
    ),
    "evaluation.sweep": "evaluation.sweeps.results",
    "evaluation.tasks.checkers": "plumbline.data.checkers",
    "evaluation.tasks.checkers.ShopFormat": "plumbline.world.checks.ShopFormat",
    "evaluation.tasks.sources.world_task": "plumbline.world.tasks.world_task",
    "evaluation.tasks.texts": "evaluation.tasks.text_perplexity",
    "plumbline.base": "plumbline.training.base_model",
    "plumbline.data.records.dataset_prompts": "plumbline.training.prompt_rounds.dataset_prompts",
    "plumbline.records": "plumbline.data.records",
    "plumbline.records.dataset_prompts": "plumbline.training.prompt_rounds.dataset_prompts",
    "plumbline.texts": "plumbline.data.texts",
    "rl.environments.HelpDeskCustomer": "plumbline.world.customer.HelpDeskCustomer",
    "recipes.sweep.those_after": "recipes._shared.those_after",
}


def current_name(name: str) -> str:
    """Return the present name of a function: ``annotation.judge.judge_pairs``, say, moved."""
    if name in MOVED:
        return MOVED[name]
    module, _, function = name.rpartition(".")
    return f"{MOVED.get(module, module)}.{function}"


def current_description(value: Any) -> Any:
    """Return the description of a call (see `calls.describe`) in today's words."""
    if isinstance(value, list):
        return [current_description(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"artefact"}:
        return {"artifact": value["artefact"]}
    described = {key: current_description(item) for key, item in value.items()}
    if {"function", "arguments"} <= set(value):
        described["function"] = current_name(str(value["function"]))
    return described


def current_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest of version 1 as one of version 2."""
    return {
        **manifest,
        "manifest_version": 2,
        "stage": current_name(str(manifest["stage"])),
        "arguments": current_description(manifest["arguments"]),
    }


def current_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a ``run.json`` holds in today's words."""
    stages = {
        name: {"artifact" if key == "artefact" else key: value for key, value in entry.items()}
        for name, entry in state["stages"].items()
    }
    return {**state, "stages": stages}
