"""Over-optimisation on one page: gold and proxy against root KL, fits, and what they bear out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from evaluation import plots
from evaluation.over_optimization import analysis as found_by
from evaluation.over_optimization.analysis import Ways
from evaluation.over_optimization.best_of_n import best_of, read_answers
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.stage import Stage, stage

CODE_BESIDE = "../templates"
_AXIS = "root of the KL to the first policy, √nats"


@stage("over-optimisation")
def report_over_optimization(
    stage: Stage,
    *,
    title: str,
    ways: Ways,
    proxies: Mapping[str, str],
    reward_models: Mapping[str, Artifact],
    gold: str = "gold",
    answers: Artifact | None = None,
    rankings: Mapping[str, Mapping[str, str]] | None = None,
) -> Mapping[str, float | None]:
    """Write the report: ``report.html``, ``report.md``, plots, and all figures as JSON.

    ``ways``: policies by way of rewarding and seed. ``proxies``: the scorer that each way trained
    on. ``answers``: many answers to each prompt by the first policy, and ``rankings`` the columns
    that each way ranks them by.
    """
    summary = gathered(ways, proxies, gold)
    chosen = of_answers(answers, rankings or {}, gold)
    write_json(stage.folder / "summary.json", {"judge": gold, "ways": summary, "best_of_n": chosen})
    content: dict[str, Any] = {
        "title": title,
        "ways": summary,
        "best_of_n": chosen,
        "reward_models": {name: model.metrics for name, model in reward_models.items()},
        "seconds": sum(p.manifest.seconds for seeds in ways.values() for p in seeds.values()),
    }
    plots.write_report(stage.folder, "overopt", content, _charts(summary, chosen))
    return {
        f"{name}_fall": way["fall"]["from_peak"]["gold"]["mean"] for name, way in summary.items()
    }


def gathered(ways: Ways, proxies: Mapping[str, str], gold: str) -> dict[str, Any]:
    """Return everything that is shown of each way of rewarding."""
    summary = {}
    for way, policies in ways.items():
        courses = [found_by.course_of(p, gold, proxies[way]) for p in policies.values()]
        fall = found_by.fall(courses)
        fits = {score: found_by.fit(courses, score) for score in ("gold", "proxy")}
        summary[way] = {
            "proxy": proxies[way],
            "verdict": found_by.verdict(way, fall),
            "fall": fall,
            "fit": fits,
            "band": found_by.bands(courses),
            "line": found_by.fitted_line(fits["gold"], max(float(c.kl.max()) for c in courses)),
            "looks": [
                {
                    "way": way,
                    "seed": seed,
                    "round": step,
                    "kl": float(course.kl[look]),
                    "root_kl": float(max(course.kl[look], 0.0) ** 0.5),
                    "gold": float(course.gain("gold")[look]),
                    "proxy": float(course.gain("proxy")[look]),
                    "words": float(course.words[look]),
                }
                for seed, course in zip(policies, courses, strict=True)
                for look, step in enumerate(course.steps)
            ],
            "start": {
                "gold": float(courses[0].gold[0]),
                "prompts": courses[0].gold_by_prompt.shape[1],
            },
        }
    return summary


def of_answers(
    answers: Artifact | None, rankings: Mapping[str, Mapping[str, str]], gold: str
) -> dict[str, Any]:
    """Return best of n for each way of ranking; nothing where there are no answers."""
    if answers is None:
        return {}
    scores = read_answers(answers)
    count = scores[gold].shape[1]
    sizes = [size for size in (2**power for power in range(20)) if size <= count]
    return {
        way: found_by.chosen(
            [best_of(scores[column], scores[gold], sizes) for column in columns.values()]
        )
        for way, columns in rankings.items()
    }


def _charts(summary: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, plots.Chart]:
    names = list(summary)
    points = [look for way in summary.values() for look in way["looks"]]
    band = [row | {"way": name} for name, way in summary.items() for row in way["band"]]
    lines = [row | {"way": name} for name, way in summary.items() for row in way["line"]]
    charts = {
        "gold": _against_kl(points, band, names, "gold", "gain in gold utility, points", lines),
        "proxy": _against_kl(points, band, names, "proxy", "gain in its own reward, deviations"),
        "words": _courses(points, names, "words", "words an answer"),
    }
    if chosen:
        rows = [point | {"way": way} for way, found in chosen.items() for point in found["points"]]
        ranked = list(chosen)
        charts["best-of-n"] = _chosen(rows, ranked)
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
    spread = (
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
                *(alt.Tooltip(f"{name}:N") for name in ("way", "seed", "round")),
                *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("kl", "gold", "proxy")),
            ],
        )
    )
    layers = spread + means + dots
    if lines:
        layers += (
            alt.Chart(alt.Data(values=list(lines)))
            .mark_line(strokeWidth=1.5, strokeDash=[5, 4])
            .encode(x=x, y=y, color=_color(names))
        )
    return layers.properties(width="container", height=300)


def _courses(
    points: Sequence[dict[str, Any]], names: list[str], measure: str, title: str
) -> plots.Chart:
    base = alt.Chart(alt.Data(values=list(points))).encode(
        x=alt.X("root_kl:Q", title=_AXIS),
        y=alt.Y(f"{measure}:Q", title=title, scale=alt.Scale(zero=False)),
        color=_color(names),
        detail=["way:N", "seed:N"],
    )
    drawn = base.mark_line(strokeWidth=1.5, opacity=0.7).encode(order="round:Q")
    return (drawn + base.mark_point(filled=True, size=30)).properties(width="container", height=220)


def _chosen(rows: Sequence[dict[str, Any]], names: list[str]) -> plots.Chart:
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X("root_kl:Q", title=_AXIS), color=_color(names)
    )
    spread = base.mark_area(opacity=0.15).encode(
        y=alt.Y("gold_low:Q", title="gain in gold utility, points"), y2="gold_high:Q"
    )
    means = base.mark_line(strokeWidth=2, point=True).encode(
        y=alt.Y("gold:Q", title="gain in gold utility, points"),
        tooltip=[
            alt.Tooltip("way:N"), alt.Tooltip("n:Q"), alt.Tooltip("gold:Q", format=".3f"),
            alt.Tooltip("proxy:Q", format=".3f"),
        ],
    )  # fmt: skip
    return (spread + means).properties(width="container", height=260)


def _color(names: list[str]) -> alt.Color:
    scale = alt.Scale(domain=names, range=plots.PALETTE[: len(names)])
    legend = alt.Legend(orient="bottom", columns=2, labelLimit=400)
    return alt.Color("way:N", title=None, scale=scale, legend=legend)
