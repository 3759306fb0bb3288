"""The results of a sweep: every trial of every method, its cost, and the settings that won."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import altair as alt

from evaluation import plots
from evaluation.sweeps.search_space import Range, SearchConfig, Settings
from plumbline.config import Config, to_yaml
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.stage import Stage, stage
from plumbline.statistics import mean_and_se

CODE_BESIDE = "templates"
TUNED = "tuned.yaml"
Cost = Literal["trials", "tokens", "seconds"]


class Trial(NamedTuple):
    """Settings of a method, trained and evaluated with every tuning seed."""

    number: int
    settings: Settings
    scores: list[float]
    """One per tuning seed, by the judge, on the tuning prompts; empty where the trial failed."""
    kl: list[float]
    tokens: float
    """Tokens trained on or sampled, over all seeds."""
    seconds: float
    """Process time over all seeds."""
    failure: str = ""
    """Why it has no scores."""

    @property
    def score(self) -> float:
        """The mean over seeds; minus infinity where the trial failed."""
        return mean_and_se(self.scores).mean if self.scores else -math.inf

    @property
    def mean_kl(self) -> float:
        """The mean KL over seeds."""
        return mean_and_se(self.kl).mean if self.kl else math.inf

    def cost(self, kind: Cost) -> float:
        """Return the cost of the trial in the unit of a budget."""
        return {"trials": 1.0, "tokens": self.tokens, "seconds": self.seconds}[kind]


def load_trial(
    number: int,
    settings: Settings,
    artifacts: Sequence[tuple[Artifact, Artifact]],
    judge: str,
    failure: str = "",
) -> Trial:
    """Return a trial from its policies and their evaluations, one pair per tuning seed."""
    policies = [policy for policy, _ in artifacts]
    evaluations = [evaluation.metrics for _, evaluation in artifacts]
    scores = [math.nan if (score := m[judge]) is None else score for m in evaluations]
    kl = [math.nan if (value := m["kl"]) is None else value for m in evaluations]
    if not failure and not all(math.isfinite(value) for value in (*scores, *kl)):
        failure = f"its score by {judge}, or its KL, is not finite"
    return Trial(
        number,
        settings,
        [] if failure else scores,
        [] if failure else kl,
        sum(tokens_of(policy) for policy in policies),
        sum(policy.manifest.seconds for policy in policies),
        failure,
    )


def tokens_of(policy: Artifact) -> float:
    """Return the tokens that a policy's training sampled and trained on."""
    metrics = policy.metrics
    return float(metrics.get("tokens_seen") or 0) + float(metrics.get("tokens_sampled") or 0)


class BestTrial(NamedTuple):
    """The selected trial, and whether it is within the KL limit."""

    trial: Trial
    within_kl: bool


def best_trial(trials: Sequence[Trial], kl_limit: float | None) -> BestTrial | None:
    """Return the trial with the highest mean score among those within the KL limit.

    Where none is within it, the one with the smallest KL is returned and marked as outside. Of two
    equal trials the earlier wins. None where every trial failed.
    """
    succeeded = [trial for trial in trials if not trial.failure]
    if not succeeded:
        return None
    allowed = [t for t in succeeded if kl_limit is None or t.mean_kl <= kl_limit]
    if not allowed:
        return BestTrial(min(succeeded, key=lambda trial: trial.mean_kl), within_kl=False)
    return BestTrial(max(allowed, key=lambda trial: trial.score), within_kl=True)


@stage("sweep")
def report_sweep(
    stage: Stage,
    *,
    title: str,
    recipe: str,
    judge: str,
    search: SearchConfig,
    methods: Mapping[str, Sequence[Mapping[str, Any]]],
    tuned: Config,
) -> Mapping[str, float | None]:
    """Write the results of a sweep, and the tuned settings as a config of ``recipe``.

    ``methods``: for each method its trials in order, as keyword arguments of `load_trial` without
    the judge. ``tuned``: the config of the recipe with the settings of the winners.
    """
    trials = {
        method: [load_trial(judge=judge, **trial) for trial in method_trials]
        for method, method_trials in methods.items()
    }
    winners = {
        method: best_trial(method_trials, search.kl_limit)
        for method, method_trials in trials.items()
    }
    summary: dict[str, Any] = {
        "judge": judge,
        "budget": search.budget.text(),
        "rule": search.rule(judge),
        "methods": {
            method: _summary(method_trials, winners[method], search)
            for method, method_trials in trials.items()
        },
    }
    write_json(stage.folder / "summary.json", summary)
    header = (
        f"# recipe: {recipe}\n#\n# Tuned by a sweep: {summary['budget']}. Winners have\n"
        f"# {summary['rule']}.\n"
    )
    (stage.folder / TUNED).write_text(header + to_yaml(tuned), encoding="utf-8")
    content: dict[str, Any] = {
        "title": title,
        "summary": summary,
        "search": search,
        "tuned_file": TUNED,
        "recipe": recipe,
    }
    charts = _charts(summary["methods"], search.spaces)
    plots.write_report(stage.folder, "evaluation.sweeps", "sweep", content, charts)
    return {
        f"{method}_{judge}": None if winner is None else winner.trial.score
        for method, winner in winners.items()
    }


def _summary(
    trials: Sequence[Trial], winner: BestTrial | None, search: SearchConfig
) -> dict[str, Any]:
    """Return the trials of a method and their costs, as JSON."""
    return {
        "trials": [
            {
                "number": trial.number,
                "settings": trial.settings,
                "scores": trial.scores,
                "score": trial.score if trial.scores else None,
                "kl": trial.mean_kl if trial.kl else None,
                "tokens": trial.tokens,
                "seconds": trial.seconds,
                "note": trial.failure
                or ("beyond the KL limit" if _beyond(trial, search.kl_limit) else ""),
                "won": winner is not None and trial is winner.trial,
            }
            for trial in trials
        ],
        "spent": {
            kind: sum(trial.cost(kind) for trial in trials)
            for kind in ("trials", "tokens", "seconds")
        },
        "winner": None if winner is None else winner.trial.number,
        "within_kl": winner is not None and winner.within_kl,
    }


def _beyond(trial: Trial, kl_limit: float | None) -> bool:
    return kl_limit is not None and trial.mean_kl > kl_limit


def _charts(
    methods: Mapping[str, Any], spaces: Mapping[str, Mapping[str, Range]]
) -> dict[str, plots.Chart]:
    rows = [
        {"method": method, **{name: trial[name] for name in ("number", "score", "kl", "won")}}
        for method, results in methods.items()
        for trial in results["trials"]
        if trial["score"] is not None
    ]
    charts = {"scores": _scores(rows, list(methods))}
    for method, space in spaces.items():
        if method in methods:
            charts[f"settings-{method}"] = _parallel(methods[method]["trials"], space)
    return charts


def _scores(rows: Sequence[dict[str, Any]], methods: list[str]) -> plots.Chart:
    """Draw the score of each trial against its KL; winners have a ring."""
    scale = alt.Scale(domain=methods, range=plots.PALETTE[: len(methods)])
    base = alt.Chart(alt.Data(values=[row | {"kl": max(0.0, row["kl"])} for row in rows])).encode(
        x=alt.X("kl:Q", title="KL to the SFT policy, nats (root scale)",
                scale=alt.Scale(type="sqrt")),
        y=alt.Y("score:Q", title="mean score on the tuning prompts", scale=alt.Scale(zero=False)),
        tooltip=["method:N", "number:Q", alt.Tooltip("kl:Q", format=".3f"),
                 alt.Tooltip("score:Q", format=".3f")],
    )  # fmt: skip
    dots = base.mark_point(filled=True, size=60).encode(
        color=alt.Color("method:N", title=None, scale=scale, legend=alt.Legend(orient="bottom"))
    )
    rings = base.transform_filter("datum.won").mark_point(size=240, strokeWidth=2, color="#555")
    return (rings + dots).properties(width="container", height=280)


def _parallel(trials: Sequence[Mapping[str, Any]], space: Mapping[str, Range]) -> plots.Chart:
    """Draw each trial of a method as a line over its settings, from their low to high ends."""
    scores = [trial["score"] for trial in trials if trial["score"] is not None]
    low, high = (min(scores), max(scores)) if scores else (0.0, 1.0)
    axes = [*sorted(space), "score"]
    rows = []
    for trial in trials:
        if trial["score"] is None:
            continue
        places = {key: space[key].place(trial["settings"][key]) for key in sorted(space)}
        places["score"] = (trial["score"] - low) / (high - low) if high > low else 0.5
        for axis in axes:
            value = trial["score"] if axis == "score" else trial["settings"][axis]
            if math.isfinite(places[axis]):
                rows.append(
                    {
                        "trial": trial["number"],
                        "axis": axis,
                        "place": places[axis],
                        "value": f"{value:.4g}" if isinstance(value, float) else str(value),
                        "score": trial["score"],
                        "width": 3.5 if trial["won"] else 1.5,
                    }
                )
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point=True)
        .encode(
            x=alt.X("axis:N", title=None, sort=axes, axis=alt.Axis(labelAngle=0, labelLimit=160)),
            y=alt.Y("place:Q", title="from low to high", axis=alt.Axis(labels=False, ticks=False)),
            color=alt.Color("score:Q", title="score", scale=alt.Scale(scheme="viridis")),
            detail="trial:N",
            strokeWidth=alt.StrokeWidth("width:Q", scale=None, legend=None),
            tooltip=["trial:N", "axis:N", "value:N", alt.Tooltip("score:Q", format=".3f")],
        )
        .properties(width="container", height=240)
    )
