"""The report's curves, from the content: the frontier, the looks during training, its figures."""

from __future__ import annotations

import math

from evaluation.comparison.page.marks import (
    HEIGHT,
    Chart,
    Rows,
    chart,
    color,
    layer,
    present,
    quantity,
    rule,
    series_color,
    shape,
    tooltip,
)
from evaluation.comparison.page.view import BASELINE, Row, View

#: A line of a training figure has at most so many points in the page; its CSV has all.
_POINTS = 300
_FIT_POINTS = 60


def frontier(view: View, scorer: str) -> Chart | None:
    """Draw a score against the KL to the baseline: bands over seeds, every checkpoint a point."""
    lines = [row for row in view.rows("frontier") if row["scorer"] == scorer and row.get("points")]
    bands = [
        {
            "method": view.who(row["method"]).title,
            **{key: point.get(key) for key in ("mean", "low", "high")},
            "kl": max(0.0, point["kl"]),
        }
        for row in lines
        for point in row["points"]
        if point.get("kl") is not None and point.get("mean") is not None
    ]
    points = _points(view, scorer)
    if not bands and not points:
        return None
    people = present(view, bands + points)
    farthest = max(row["kl"] for row in bands + points)
    x = quantity("kl", "KL to the baseline, nats a response (root scale)",
                 scale={"type": "sqrt", "zero": True})  # fmt: skip
    y_title = view.scorer_title(scorer, unit=True)
    layers = [
        layer(
            [row for row in bands if row["low"] is not None and row["high"] is not None],
            {"type": "area", "opacity": 0.18, "line": False},
            x=x,
            y=quantity("low", y_title),
            y2={"field": "high"},
            color=color(people),
        ),
        layer(
            bands,
            {"type": "line", "strokeWidth": 2},
            x=x,
            y=quantity("mean", y_title),
            color=color(people),
        ),
        layer(
            [curve for row in lines for curve in _fit(view, row, farthest)],
            {"type": "line", "strokeWidth": 1.5, "strokeDash": [5, 4]},
            x=x,
            y=quantity("fit", y_title),
            color=color(people),
        ),
        layer(
            points,
            {"type": "point", "filled": True, "cursor": "pointer", "stroke": "var(--ground)",
             "strokeWidth": 0.8, "opacity": 0.9},
            x=x,
            y=quantity("score", y_title),
            color=color(people),
            shape=shape(people),
            size={"field": "size", "type": "quantitative", "scale": None, "legend": None},
            tooltip=tooltip(("policy", "policy")),
        ),
    ]  # fmt: skip
    budget = view.design.get("budget") or {}
    if budget.get("by") == "kl" and budget.get("limit"):
        layers.append(rule(budget["limit"], "x"))
    return chart(f"{scorer}-against-kl", "frontier", _frontier_caption(view, scorer), layers, 320)


def _points(view: View, scorer: str) -> Rows:
    rows = [
        {
            "policy": row["id"],
            "method": view.who(row["method"]).title,
            "kl": max(0.0, row["figures"]["kl"]),
            "score": row["figures"][scorer],
            "size": 160 if row.get("matched") else 55,
        }
        for row in view.rows("policies")
        if (row.get("figures") or {}).get("kl") is not None
        and row["figures"].get(scorer) is not None
    ]
    score = (view.baseline.get("figures") or {}).get(scorer)
    if rows and score is not None:
        title = view.people[BASELINE].title
        rows.append({"policy": BASELINE, "method": title, "kl": 0.0, "score": score, "size": 110})
    return rows


def _fit(view: View, row: Row, farthest: float) -> Rows:
    """Return the curve of Gao et al.'s fit, which speaks of the gain over the baseline."""
    fit = row.get("fit") or {}
    start = (view.baseline.get("figures") or {}).get(row["scorer"])
    if start is None or fit.get("alpha") is None or fit.get("beta") is None or farthest <= 0:
        return []
    found = []
    for step in range(1, _FIT_POINTS + 1):
        d = math.sqrt(farthest) * step / _FIT_POINTS
        bend = d if fit.get("form") == "bon" else math.log(d)
        gain = d * (fit["alpha"] - fit["beta"] * bend)
        found.append({"method": view.who(row["method"]).title, "kl": d * d, "fit": start + gain})
    return found


def _frontier_caption(view: View, scorer: str) -> str:
    text = (
        "Points are checkpoints of single seeds, the large ones those compared at the budget; "
        f"bands are {view.confidence} intervals over seeds, dashed lines the fit of Gao et al."
    )
    judged, at_looks = view.design.get("prompts"), view.design.get("prompts_at_looks")
    if judged and at_looks and at_looks < judged:
        text += (
            f" Lines and bands are on the {at_looks} prompts that every checkpoint answered, a "
            f"finished policy's point on all {judged}."
        )
    if scorer == view.judge and view.content.get("has_gold"):
        text += (
            " Where this curve falls while the proxy's rises, the reward model is over-optimised."
        )
    return text


def over_training(view: View) -> list[Chart | None]:
    """Draw the judge's score, the KL and the length over training, a line a seed."""
    wanted = [(row["name"], view.scorer_title(row["name"], unit=True)) for row in view.scorers[:1]]
    wanted += [("kl", "KL to the baseline, nats"), ("words", "words an answer")]
    captions = {
        "kl": "How far each policy moved from the baseline. Thin lines are seeds.",
        "words": "Length, the commonest way of pleasing a reward model. Thin lines are seeds.",
    }
    found: list[Chart | None] = []
    for figure, title in wanted:
        rows = [
            {
                "policy": row["id"],
                "method": view.who(row["method"]).title,
                "seed": str(row.get("seed")),
                "progress": row["progress"],
                "value": row["figures"][figure],
            }
            for row in view.rows("policies")
            if row.get("progress") is not None
            and (row.get("figures") or {}).get(figure) is not None
        ]
        if len({row["progress"] for row in rows}) < 2:
            continue  # only the finished policies are known
        people = present(view, rows)
        shared = {
            "x": quantity("progress", "share of the training done", axis={"format": "%"}),
            "y": quantity("value", title),
            "color": color(people),
            "detail": [{"field": "seed"}],
        }
        layers = [
            layer(rows, {"type": "line", "strokeWidth": 1.3, "opacity": 0.7}, **shared),
            layer(rows, {"type": "point", "filled": True, "size": 40, "cursor": "pointer"},
                  **shared, shape=shape(people), tooltip=tooltip(("policy", "policy"))),
        ]  # fmt: skip
        caption = captions.get(figure, "The judge's score over training. Thin lines are seeds.")
        found.append(chart(f"{figure}-over-training", "training", caption, layers, HEIGHT))
    return found


def training(view: View) -> list[Chart | None]:
    """Draw every figure that stages logged, a line a stage."""
    by_figure: dict[str, dict[str, list[Row]]] = {}
    for row in view.rows("training"):
        if row.get("value") is not None and row.get("step") is not None:
            by_figure.setdefault(row["figure"], {}).setdefault(row["stage"], []).append(row)
    found: list[Chart | None] = []
    for figure, stages in by_figure.items():
        known: dict[str, str] = {}
        rows: Rows = []
        for stage, lines in stages.items():
            who = view.people.get(stage.split("/")[0])
            series = who.title if who else stage
            if who:
                known[series] = f"var(--m{who.color})"
            step = math.ceil(len(lines) / _POINTS)
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
            y=quantity("value", figure),
            color=series_color(names, known),
            detail=[{"field": "stage"}],
            tooltip=tooltip(("stage", "stage")),
        )
        caption = f"{figure}: {', '.join(sorted(stages)) if len(stages) < 4 else 'a line a stage'}."
        slug = "".join(c if c.isalnum() else "-" for c in figure.lower()).strip("-") or "figure"
        name = f"training-{slug}"
        while any(made and made.name == name for made in found):
            name += "-again"
        found.append(chart(name, "figures", caption, [line], 220))
    return found
