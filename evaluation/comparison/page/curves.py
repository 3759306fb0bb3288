"""The curves of the report: the frontier, checkpoints over training, and training metrics."""

from __future__ import annotations

import math

from evaluation.comparison.page.vega import (
    HEIGHT,
    Chart,
    Rows,
    chart,
    color,
    layer,
    quantity,
    rule,
    series_color,
    shape,
    styles_in,
    tooltip,
)
from evaluation.comparison.page.view import MethodStyle, Row, View
from evaluation.comparison.page_content import BASELINE_ID

#: A line of a training metric has at most so many points in the page; its CSV has all.
_MAX_POINTS = 300
_FIT_POINTS = 60


def frontier(view: View, scorer: str) -> Chart | None:
    """Draw a score against the KL to the baseline: bands over seeds, one point per checkpoint."""
    lines = [row for row in view.rows("frontier") if row["scorer"] == scorer and row.get("points")]
    bands = [
        {
            "method": view.style(row["method"]).title,
            **{key: point.get(key) for key in ("mean", "low", "high")},
            "kl": max(0.0, point["kl"]),
        }
        for row in lines
        for point in row["points"]
        if point.get("kl") is not None and point.get("mean") is not None
    ]
    points = _checkpoint_points(view, scorer)
    if not bands and not points:
        return None
    styles = styles_in(view, bands + points)
    farthest = max(row["kl"] for row in bands + points)
    x = quantity("kl", "KL to the baseline, nats per response (root scale)",
                 scale={"type": "sqrt", "zero": True})  # fmt: skip
    y_title = view.scorer_title(scorer, unit=True)
    layers = [
        layer(
            [row for row in bands if row["low"] is not None and row["high"] is not None],
            {"type": "area", "opacity": 0.18, "line": False},
            x=x,
            y=quantity("low", y_title),
            y2={"field": "high"},
            color=color(styles),
        ),
        layer(
            bands,
            {"type": "line", "strokeWidth": 2},
            x=x,
            y=quantity("mean", y_title),
            color=color(styles),
        ),
        layer(
            [point for row in lines for point in _fitted_curve(view, row, farthest)],
            {"type": "line", "strokeWidth": 1.5, "strokeDash": [5, 4]},
            x=x,
            y=quantity("fit", y_title),
            color=color(styles),
        ),
        layer(
            points,
            {"type": "point", "filled": True, "cursor": "pointer", "stroke": "var(--ground)",
             "strokeWidth": 0.8, "opacity": 0.9},
            x=x,
            y=quantity("score", y_title),
            color=color(styles),
            shape=shape(styles),
            size={"field": "size", "type": "quantitative", "scale": None, "legend": None},
            tooltip=tooltip(("policy", "policy")),
        ),
    ]  # fmt: skip
    budget = view.design.get("budget") or {}
    if budget.get("by") == "kl" and budget.get("limit"):
        layers.append(rule(budget["limit"], "x"))
    return chart(f"{scorer}-against-kl", "frontier", _frontier_caption(view, scorer), layers, 320)


def _checkpoint_points(view: View, scorer: str) -> Rows:
    rows = [
        {
            "policy": row["id"],
            "method": view.style(row["method"]).title,
            "kl": max(0.0, row["metrics"]["kl"]),
            "score": row["metrics"][scorer],
            "size": 160 if row.get("matched") else 55,
        }
        for row in view.rows("policies")
        if (row.get("metrics") or {}).get("kl") is not None
        and row["metrics"].get(scorer) is not None
    ]
    score = view.baseline_metrics.get(scorer)
    if rows and score is not None:
        title = view.baseline_style.title
        rows.append(
            {"policy": BASELINE_ID, "method": title, "kl": 0.0, "score": score, "size": 110}
        )
    return rows


def _fitted_curve(view: View, row: Row, farthest: float) -> Rows:
    """Return the curve of the fit of Gao et al., which describes the gain over the baseline."""
    fit = row.get("fit") or {}
    start = view.baseline_metrics.get(row["scorer"])
    if start is None or fit.get("alpha") is None or fit.get("beta") is None or farthest <= 0:
        return []
    points = []
    for step in range(1, _FIT_POINTS + 1):
        d = math.sqrt(farthest) * step / _FIT_POINTS
        bend = d if fit.get("form") == "bon" else math.log(d)
        gain = d * (fit["alpha"] - fit["beta"] * bend)
        points.append({"method": view.style(row["method"]).title, "kl": d * d, "fit": start + gain})
    return points


def _frontier_caption(view: View, scorer: str) -> str:
    if view.of_models:
        return "Each point is a model."
    text = (
        "Points: checkpoints of single seeds; the large ones are compared at the budget. Bands: "
        f"{view.confidence} intervals over seeds. Dashed lines: the fit of Gao et al."
    )
    prompts, at_checkpoints = view.design.get("prompts"), view.design.get("checkpoint_prompts")
    if prompts and at_checkpoints and at_checkpoints < prompts:
        text += (
            f" Lines and bands use the {at_checkpoints} prompts that every checkpoint responded "
            f"to; the points of finished policies use all {prompts}."
        )
    if scorer == view.judge and view.content.get("has_gold"):
        text += (
            " Where this curve falls while the proxy's rises, the reward model is over-optimized."
        )
    return text


def over_training(view: View) -> list[Chart | None]:
    """Draw the judge's score, the KL and the length over training, one line per seed."""
    wanted = [(row["name"], view.scorer_title(row["name"], unit=True)) for row in view.scorers[:1]]
    wanted += [("kl", "KL to the baseline, nats"), ("words", "words per response")]
    captions = {
        "kl": "The distance of each policy from the baseline. One line per seed.",
        "words": "Length: the most common way to game a reward model. One line per seed.",
    }
    charts: list[Chart | None] = []
    for metric, title in wanted:
        rows = [
            {
                "policy": row["id"],
                "method": view.style(row["method"]).title,
                "seed": str(row.get("seed")),
                "progress": row["progress"],
                "value": row["metrics"][metric],
            }
            for row in view.rows("policies")
            if row.get("progress") is not None
            and (row.get("metrics") or {}).get(metric) is not None
        ]
        if len({row["progress"] for row in rows}) < 2:
            continue  # only the finished policies are known
        styles = styles_in(view, rows)
        shared = {
            "x": quantity("progress", "share of the training", axis={"format": "%"}),
            "y": quantity("value", title),
            "color": color(styles),
            "detail": [{"field": "seed"}],
        }
        layers = [
            layer(rows, {"type": "line", "strokeWidth": 1.3, "opacity": 0.7}, **shared),
            layer(rows, {"type": "point", "filled": True, "size": 40, "cursor": "pointer"},
                  **shared, shape=shape(styles), tooltip=tooltip(("policy", "policy"))),
        ]  # fmt: skip
        caption = captions.get(metric, "The judge's score over training. One line per seed.")
        charts.append(chart(f"{metric}-over-training", "training", caption, layers, HEIGHT))
    return charts


def training_metrics(view: View) -> list[Chart | None]:
    """Draw every training metric that stages logged, one line per stage."""
    by_metric: dict[str, dict[str, list[Row]]] = {}
    for row in view.rows("training"):
        if row.get("value") is not None and row.get("step") is not None:
            by_metric.setdefault(row["metric"], {}).setdefault(row["stage"], []).append(row)
    charts: list[Chart] = []
    for metric, stages in by_metric.items():
        colors: dict[str, str] = {}
        rows: Rows = []
        for stage, lines in stages.items():
            style = _style_of_stage(view, stage)
            series = style.title if style else stage
            if style:
                colors[series] = f"var(--m{style.color})"
            step = math.ceil(len(lines) / _MAX_POINTS)
            kept = [*lines[:-1:step], lines[-1]]
            rows += [
                {"series": series, "stage": stage, "step": r["step"], "value": r["value"]}
                for r in kept
            ]
        names = list(dict.fromkeys(row["series"] for row in rows))
        line = layer(
            rows,
            {"type": "line", "strokeWidth": 1.5, "opacity": 0.85},
            x=quantity("step", "step"),
            y=quantity("value", metric),
            color=series_color(names, colors),
            detail=[{"field": "stage"}],
            tooltip=tooltip(("stage", "stage")),
        )
        listed = ", ".join(sorted(stages)) if len(stages) < 4 else "one line per stage"
        slug = "".join(c if c.isalnum() else "-" for c in metric.lower()).strip("-") or "metric"
        name = f"training-{slug}"
        while any(drawn.name == name for drawn in charts):
            name += "-again"
        charts.append(chart(name, "metrics", f"{metric}: {listed}.", [line], 220))
    return list(charts)


def _style_of_stage(view: View, stage: str) -> MethodStyle | None:
    """Return the style of the method that a stage trains; None for other stages."""
    name = stage.split("/")[0]
    by_name = {style.name: style for style in view.methods}
    if name in by_name:
        return by_name[name]
    return view.baseline_style if name == view.baseline.get("name") else None
