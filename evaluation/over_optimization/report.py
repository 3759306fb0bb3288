"""The report of over-optimization: gold and proxy against root KL, fits and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from evaluation import plots
from evaluation.over_optimization import curves
from evaluation.over_optimization.best_of_n import read_scores
from evaluation.over_optimization.curves import PoliciesByReward
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.stage import Stage, stage
from plumbline.statistics import best_of

CODE_BESIDE = "templates"
_AXIS = "root of the KL to the SFT policy, √nats"


@stage("over-optimisation")
def report_over_optimization(
    stage: Stage,
    *,
    title: str,
    policies: PoliciesByReward,
    proxies: Mapping[str, str],
    reward_models: Mapping[str, Artifact],
    gold: str = "gold",
    responses: Artifact | None = None,
    rankings: Mapping[str, Mapping[str, str]] | None = None,
) -> Mapping[str, float | None]:
    """Write the report: ``report.html``, ``report.md``, plots and ``summary.json``.

    ``policies``: by the reward that they were trained on and by seed. ``proxies``: the scorer of
    each reward. ``responses``: many responses to each prompt by the SFT policy, and ``rankings``
    the columns by which each reward ranks them.
    """
    summary = summarize_rewards(policies, proxies, gold)
    best_of_n = summarize_best_of_n(responses, rankings or {}, gold)
    write_json(
        stage.folder / "summary.json", {"judge": gold, "rewards": summary, "best_of_n": best_of_n}
    )
    content: dict[str, Any] = {
        "title": title,
        "rewards": summary,
        "best_of_n": best_of_n,
        "reward_models": {name: model.metrics for name, model in reward_models.items()},
        "seconds": sum(p.manifest.seconds for seeds in policies.values() for p in seeds.values()),
    }
    plots.write_report(
        stage.folder,
        "evaluation.over_optimization",
        "over_optimization",
        content,
        _charts(summary, best_of_n),
    )
    return {
        f"{name}_drop": reward["drop"]["from_peak"]["gold"]["mean"]
        for name, reward in summary.items()
    }


def summarize_rewards(
    policies: PoliciesByReward, proxies: Mapping[str, str], gold: str
) -> dict[str, Any]:
    """Return everything that is shown of each reward."""
    summary = {}
    for reward, by_seed in policies.items():
        by_policy = [curves.optimization_curve(p, gold, proxies[reward]) for p in by_seed.values()]
        drop = curves.drop_after_peak(by_policy)
        fits = {score: curves.fit_gain(by_policy, score) for score in ("gold", "proxy")}
        farthest = max(float(curve.kl.max()) for curve in by_policy)
        summary[reward] = {
            "proxy": proxies[reward],
            "verdict": curves.verdict(reward, drop),
            "drop": drop,
            "fit": fits,
            "band": curves.mean_curve(by_policy),
            "line": curves.fitted_curve(fits["gold"], farthest),
            "checkpoints": [
                {
                    "reward": reward,
                    "seed": seed,
                    "round": step,
                    "kl": float(curve.kl[number]),
                    "root_kl": float(max(curve.kl[number], 0.0) ** 0.5),
                    "gold": float(curve.gain("gold")[number]),
                    "proxy": float(curve.gain("proxy")[number]),
                    "words": float(curve.words[number]),
                }
                for seed, curve in zip(by_seed, by_policy, strict=True)
                for number, step in enumerate(curve.steps)
            ],
            "start": {
                "gold": float(by_policy[0].gold[0]),
                "prompts": by_policy[0].gold_by_prompt.shape[1],
            },
        }
    return summary


def summarize_best_of_n(
    responses: Artifact | None, rankings: Mapping[str, Mapping[str, str]], gold: str
) -> dict[str, Any]:
    """Return best of n for each reward that ranks; nothing where there are no responses."""
    if responses is None:
        return {}
    scores = read_scores(responses)
    count = scores[gold].shape[1]
    sizes = [size for size in (2**power for power in range(20)) if size <= count]
    return {
        reward: curves.best_of_n_summary(
            [best_of(scores[column], scores[gold], sizes) for column in columns.values()]
        )
        for reward, columns in rankings.items()
    }


def _charts(summary: Mapping[str, Any], best_of_n: Mapping[str, Any]) -> dict[str, plots.Chart]:
    names = list(summary)
    points = [point for reward in summary.values() for point in reward["checkpoints"]]
    band = [row | {"reward": name} for name, r in summary.items() for row in r["band"]]
    lines = [row | {"reward": name} for name, r in summary.items() for row in r["line"]]
    proxy_title = "gain in its own reward, standard deviations"
    charts = {
        "gold": _against_kl(points, band, names, "gold", "gain in gold utility, points", lines),
        "proxy": _against_kl(points, band, names, "proxy", proxy_title),
        "words": _line_per_seed(points, names, "words", "words per response"),
    }
    if best_of_n:
        rows = [p | {"reward": name} for name, r in best_of_n.items() for p in r["points"]]
        charts["best-of-n"] = _best_of_n(rows, list(best_of_n))
    return charts


def _against_kl(
    points: Sequence[dict[str, Any]],
    band: Sequence[dict[str, Any]],
    names: list[str],
    score: str,
    title: str,
    lines: Sequence[dict[str, Any]] = (),
) -> plots.Chart:
    y = alt.Y(f"{score}:Q", title=title)
    x = alt.X("root_kl:Q", title=_AXIS)
    intervals = (
        alt.Chart(alt.Data(values=[row for row in band if f"{score}_low" in row]))
        .mark_area(opacity=0.18)
        .encode(x=x, y=alt.Y(f"{score}_low:Q", title=title), y2=f"{score}_high:Q",
                color=_color(names))
    )  # fmt: skip
    means = (
        alt.Chart(alt.Data(values=[row for row in band if score in row]))
        .mark_line(strokeWidth=2)
        .encode(x=x, y=y, color=_color(names))
    )
    dots = (
        alt.Chart(alt.Data(values=list(points)))
        .mark_point(filled=True, size=30, opacity=0.6)
        .encode(
            x=x,
            y=y,
            color=_color(names),
            tooltip=[
                *(alt.Tooltip(f"{name}:N") for name in ("reward", "seed", "round")),
                *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("kl", "gold", "proxy")),
            ],
        )
    )
    layers = intervals + means + dots
    if lines:
        layers += (
            alt.Chart(alt.Data(values=list(lines)))
            .mark_line(strokeWidth=1.5, strokeDash=[5, 4])
            .encode(x=x, y=y, color=_color(names))
        )
    return layers.properties(width="container", height=300)


def _line_per_seed(
    points: Sequence[dict[str, Any]], names: list[str], measure: str, title: str
) -> plots.Chart:
    base = alt.Chart(alt.Data(values=list(points))).encode(
        x=alt.X("root_kl:Q", title=_AXIS),
        y=alt.Y(f"{measure}:Q", title=title, scale=alt.Scale(zero=False)),
        color=_color(names),
        detail=["reward:N", "seed:N"],
    )
    lines = base.mark_line(strokeWidth=1.5, opacity=0.7).encode(order="round:Q")
    return (lines + base.mark_point(filled=True, size=30)).properties(width="container", height=220)


def _best_of_n(rows: Sequence[dict[str, Any]], names: list[str]) -> plots.Chart:
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X("root_kl:Q", title=_AXIS), color=_color(names)
    )
    ranges = base.mark_area(opacity=0.15).encode(
        y=alt.Y("gold_low:Q", title="gain in gold utility, points"), y2="gold_high:Q"
    )
    means = base.mark_line(strokeWidth=2, point=True).encode(
        y=alt.Y("gold:Q", title="gain in gold utility, points"),
        tooltip=[
            alt.Tooltip("reward:N"), alt.Tooltip("n:Q"), alt.Tooltip("gold:Q", format=".3f"),
            alt.Tooltip("proxy:Q", format=".3f"),
        ],
    )  # fmt: skip
    return (ranges + means).properties(width="container", height=260)


def _color(names: list[str]) -> alt.Color:
    scale = alt.Scale(domain=names, range=plots.PALETTE[: len(names)])
    legend = alt.Legend(orient="bottom", columns=2, labelLimit=400)
    return alt.Color("reward:N", title=None, scale=scale, legend=legend)
