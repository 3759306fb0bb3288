"""What a sweep found: every trial of every method, what it cost, and which settings won."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import altair as alt

from evaluation import plots
from evaluation.statistics import mean_and_error
from evaluation.sweeps.search_space import Range, SearchConfig, Settings
from plumbline.config import Config, to_yaml
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.stage import Stage, stage

CODE_BESIDE = "../templates"
TUNED = "tuned.yaml"
Cost = Literal["trials", "tokens", "seconds"]


class Trial(NamedTuple):
    """Settings of a method, trained and judged with every tuning seed."""

    number: int
    settings: Settings
    scores: list[float]
    """Of each tuning seed, by the judge, on the tuning prompts; empty where the trial failed."""
    kl: list[float]
    tokens: float
    """That passed through a model or were sampled, over all seeds."""
    seconds: float
    """Of process time, over all seeds."""
    failure: str = ""
    """Why it has no scores."""

    @property
    def score(self) -> float:
        """The mean over seeds; minus infinity where the trial failed."""
        return mean_and_error(self.scores).mean if self.scores else -math.inf

    @property
    def mean_kl(self) -> float:
        """The mean KL over seeds."""
        return mean_and_error(self.kl).mean if self.kl else math.inf

    def cost(self, kind: Cost) -> float:
        """Return what the trial takes of a budget."""
        return {"trials": 1.0, "tokens": self.tokens, "seconds": self.seconds}[kind]


def trial_of(
    number: int,
    settings: Settings,
    made: Sequence[tuple[Artifact, Artifact]],
    judge: str,
    failure: str = "",
) -> Trial:
    """Gather a trial from its policies and their evaluations, one pair a tuning seed."""
    policies = [policy for policy, _ in made]
    judged = [evaluation.metrics for _, evaluation in made]
    scores = [math.nan if (score := m[judge]) is None else score for m in judged]
    kl = [math.nan if (value := m["kl"]) is None else value for m in judged]
    if not failure and not all(math.isfinite(value) for value in (*scores, *kl)):
        failure = f"its score by {judge}, or its KL, is no finite number"
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


class Winner(NamedTuple):
    """The chosen trial, and whether it kept to the KL limit."""

    trial: Trial
    within_kl: bool


def choose(trials: Sequence[Trial], kl_limit: float | None) -> Winner | None:
    """Return the trial with the highest mean score among those whose mean KL is in the limit.

    Where none is, the nearest to its start is taken and said to be outside. The earlier of two
    equals wins. None where every trial failed.
    """
    whole = [trial for trial in trials if not trial.failure]
    if not whole:
        return None
    allowed = [t for t in whole if kl_limit is None or t.mean_kl <= kl_limit]
    if not allowed:
        return Winner(min(whole, key=lambda trial: trial.mean_kl), within_kl=False)
    return Winner(max(allowed, key=lambda trial: trial.score), within_kl=True)


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
    """Write what the sweep found, and the tuned settings as a config of ``recipe``.

    ``methods``: for each method its trials in order, as keyword arguments of `trial_of` without
    the judge. ``tuned``: the recipe's config with the winners' settings.
    """
    trials = {
        method: [trial_of(judge=judge, **trial) for trial in made]
        for method, made in methods.items()
    }
    winners = {method: choose(made, search.kl_limit) for method, made in trials.items()}
    summary: dict[str, Any] = {
        "judge": judge,
        "budget": search.budget.says(),
        "rule": search.rule(judge),
        "methods": {
            method: _summary(made, winners[method], search) for method, made in trials.items()
        },
    }
    write_json(stage.folder / "summary.json", summary)
    header = (
        f"# recipe: {recipe}\n#\n# Tuned by a sweep: {summary['budget']}. For each method won\n"
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
    plots.write_report(stage.folder, "sweep", content, _charts(summary["methods"], search.spaces))
    return {
        f"{method}_{judge}": None if winner is None else winner.trial.score
        for method, winner in winners.items()
    }


def _summary(
    trials: Sequence[Trial], winner: Winner | None, search: SearchConfig
) -> dict[str, Any]:
    """Return a method's trials and what they cost, as JSON."""
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
        for method, found in methods.items()
        for trial in found["trials"]
        if trial["score"] is not None
    ]
    charts = {"scores": _scores(rows, list(methods))}
    for method, space in spaces.items():
        if method in methods:
            charts[f"settings-{method}"] = _parallel(methods[method]["trials"], space)
    return charts


def _scores(rows: Sequence[dict[str, Any]], methods: list[str]) -> plots.Chart:
    """Draw each trial's score against its KL; winners are ringed."""
    scale = alt.Scale(domain=methods, range=plots.PALETTE[: len(methods)])
    base = alt.Chart(alt.Data(values=[row | {"kl": max(0.0, row["kl"])} for row in rows])).encode(
        x=alt.X("kl:Q", title="KL to the first policy, nats (root scale)",
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
    """Draw a method's trials as lines over its settings, each from its low end to its high one."""
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
            shown = trial["score"] if axis == "score" else trial["settings"][axis]
            if math.isfinite(places[axis]):
                rows.append(
                    {
                        "trial": trial["number"],
                        "axis": axis,
                        "place": places[axis],
                        "value": f"{shown:.4g}" if isinstance(shown, float) else str(shown),
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
