"""The report: one HTML page that opens offline, `report.md` beside it, and `summary.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment

from evaluation import plots
from evaluation.comparison import Comparison, Methods
from plumbline import __version__, pages
from plumbline.artefacts import Artefact, write_json
from plumbline.config import Config, knobs
from plumbline.stages import Stage, stage

CODE_BESIDE = "templates"
SUMMARY = "summary.json"
_SAMPLES = 12


@stage("report")
def build_report(
    stage: Stage,
    *,
    title: str,
    judge: str,
    baseline: Artefact,
    methods: Methods,
    reward_model: Artefact,
    preferences: Artefact,
    stages: Mapping[str, Artefact],
    config: Config,
) -> Mapping[str, float | None]:
    """Write the report of a comparison."""
    found = Comparison(judge, baseline, methods, reward_model, preferences, stages)
    charts = {name: plots.specification(chart) for name, chart in _charts(found).items()}
    folder = stage.folder / "plots"
    folder.mkdir(exist_ok=True)
    for name, spec in charts.items():
        (folder / f"{name}.svg").write_text(plots.svg(spec), encoding="utf-8")
    summary = found.summary()
    write_json(stage.folder / SUMMARY, summary)
    content: dict[str, Any] = {
        "title": title,
        "version": __version__,
        "found": found,
        "summary": summary,
        "charts": charts,
        "captions": _captions(found),
        "samples": found.samples(_SAMPLES),
        "knobs": list(knobs(config)),
    }
    templates = _templates()
    markdown = templates.get_template("report.md.jinja").render(content)
    (stage.folder / "report.md").write_text(markdown, encoding="utf-8")
    page = templates.get_template("report.html.jinja").render(
        content, vega=plots.javascript(), specs=plots.for_script(charts)
    )
    (stage.folder / "report.html").write_text(page, encoding="utf-8")
    return {
        f"{method}_win_rate": estimate.mean for method, estimate in found.across_seeds().items()
    }


def _charts(found: Comparison) -> dict[str, plots.Chart]:
    looks, figures = found.curves(), found.training()
    aligned = [name for name in found.stages if name.startswith(("dpo/", "ppo/"))]
    charts = {"win-rates": plots.win_rates(found.results(), found.judge)}
    if looks and found.has_gold:
        charts["gold-against-kl"] = plots.frontier(looks, "gold", "gold utility")
    if looks:
        charts["reward-against-kl"] = plots.frontier(looks, "reward", "reward-model score")
        measure, name = ("gold", "gold utility") if found.has_gold else ("reward", "reward")
        charts["over-training"] = plots.over_training(looks, measure, name)
        charts["length-over-training"] = plots.over_training(looks, "words", "words an answer")
    if found.has_gold:
        charts["gold-parts"] = plots.parts(found.parts())
    for figure, stages in (
        ("loss", ["base", "sft"]),
        ("accuracy", ["reward"]),
        ("implied accuracy", aligned),
        ("reward-model score", aligned),
        ("KL", aligned),
    ):
        if any(row["figure"] == figure and row["stage"] in stages for row in figures):
            charts[f"training-{figure.replace(' ', '-')}"] = plots.training_figure(
                figures, figure, stages
            )
    return charts


def _captions(found: Comparison) -> dict[str, str]:
    confidence = "Points are policies; bars are 95 % intervals over prompts"
    return {
        "win-rates": f"{confidence}. Right of the line, the policy beats the SFT policy.",
        "gold-against-kl": "True quality against how far the policy has moved. Where this curve "
        "falls while the next one rises, the reward model is being over-optimised.",
        "reward-against-kl": "What the reward model thinks of the same answers, in deviations of "
        "its scores on held-out pairs.",
        "over-training": "The same looks, over the course of training.",
        "length-over-training": "Length is the commonest way of pleasing a reward model.",
        "gold-parts": "Where the gold utility comes from: its five parts, as means over all "
        "answers and seeds.",
        "training-loss": "Training loss of the base model and of supervised fine-tuning.",
        "training-accuracy": "The reward model's accuracy on its training batches.",
        "training-implied-accuracy": "DPO: share of each batch whose chosen answer has the higher "
        "implied reward.",
        "training-reward-model-score": "PPO: mean score of each round's answers.",
        "training-KL": "PPO: KL to the SFT policy in each round, nats a response.",
    }


def _templates() -> Environment:
    return pages.templates("evaluation", CODE_BESIDE)
