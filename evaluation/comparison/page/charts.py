"""All charts of the report, and those that show values with intervals below each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluation.comparison.page import curves
from evaluation.comparison.page.vega import (
    Chart,
    Rows,
    Spec,
    chart,
    color,
    layer,
    name_of,
    quantity,
    rule,
    shape,
    styles_in,
    tooltip,
)
from evaluation.comparison.page.view import View

#: More subsets than this are shown as a table only.
_MAX_SUBSETS = 40


def charts(view: View) -> list[Chart]:
    """Return every chart that the content has data for, in the order of the page."""
    drawn: list[Chart | None] = [curves.frontier(view, row["name"]) for row in view.scorers]
    drawn += curves.over_training(view)
    drawn += curves.training_metrics(view)
    drawn += [_contrasts(view), _parts(view), _win_rates(view), _ranking(view)]
    drawn += [_subsets(view), _seeds(view)]
    return [chart for chart in drawn if chart is not None]


def _win_rates(view: View) -> Chart | None:
    rate = f"{view.judge}_win_rate"
    title = f"win rate over {view.baseline_style.title} by {view.scorer_title(view.judge)}"
    rows = [
        {
            "label": view.policy_title(row["id"]) if view.of_models or row.get("seed") is None
            else f"{style.title}, seed {row['seed']}",
            "method": style.title,
            "policy": row["id"],
            "value": row["metrics"][rate],
            "low": row["metrics"].get(f"{rate}_low"),
            "high": row["metrics"].get(f"{rate}_high"),
        }
        for style in view.methods
        for row in view.finished(style.name)
        if (row.get("metrics") or {}).get(rate) is not None
    ]  # fmt: skip
    each = "model" if view.of_models else "seed"
    caption = f"The win rate of every {each}, with its {view.confidence} interval over prompts."
    scale = {"domain": [0, 1]}
    return _intervals(
        view, "win-rates", "wins", caption, rows, "label",
        quantity("value", title, scale=scale, axis={"format": "%"}), 0.5,
    )  # fmt: skip


def _ranking(view: View) -> Chart | None:
    rows = [
        {
            "method": view.style(row["name"]).title,
            "value": row["strength"],
            "low": row.get("low"),
            "high": row.get("high"),
        }
        for row in view.rows("ranking")
        if row.get("strength") is not None
    ]
    caption = f"Bradley-Terry strengths with {view.confidence} intervals."
    x = quantity("value", "strength, log odds against the average policy")
    return _intervals(view, "ranking", "ranking", caption, rows, "method", x, 0.0)


def _contrasts(view: View) -> Chart | None:
    at = {"final": "end", "matched": "budget"}
    rows = [
        {
            "label": f"{view.style(row['a']).title} against {view.style(row['b']).title}"
            + (f", {at.get(row['at'], row['at'])}" if row.get("at") else ""),
            "method": view.style(row["a"]).title,
            "value": row["difference"],
            "low": row.get("low"),
            "high": row.get("high"),
            "undetected_low": None if row.get("detectable") is None else -row["detectable"],
            "undetected_high": row.get("detectable"),
        }
        for row in view.rows("contrasts")
        if row.get("scorer", view.judge) == view.judge and row.get("difference") is not None
    ]
    x = quantity("value", f"difference in {view.scorer_title(view.judge, unit=True)}")
    undetected = layer(
        [row for row in rows if row["undetected_high"] is not None],
        {"type": "bar", "height": 18, "color": "var(--soft)", "opacity": 0.25},
        x=x | {"field": "undetected_low"},
        x2={"field": "undetected_high"},
        y=name_of("label"),
    )
    caption = (
        f"Differences with {view.confidence} intervals. Grey bars: true differences of this size "
        "may well stay undetected in this design (power below 80%)."
    )
    return _intervals(
        view, "contrasts", "results", caption, rows, "label", x, 0.0, below=[undetected]
    )


def _seeds(view: View) -> Chart | None:
    if view.of_models:
        return None
    rows = [
        {"policy": row["id"], "method": style.title, "value": row["metrics"][view.judge]}
        for style in view.methods
        for row in view.finished(style.name)
        if (row.get("metrics") or {}).get(view.judge) is not None
    ]
    caption = "The mean score of every seed by the judge: how much another seed may differ."
    x = quantity("value", view.scorer_title(view.judge, unit=True))
    return _intervals(view, "seeds", "seeds", caption, rows, "method", x, None)


def _subsets(view: View) -> Chart | None:
    if len(view.rows("subsets")) > _MAX_SUBSETS:
        return None
    rows = [
        {
            "label": row["subset"],
            "method": view.style(name).title,
            "value": cell["mean"],
            "low": cell.get("low"),
            "high": cell.get("high"),
        }
        for row in view.rows("subsets")
        for name, cell in (row.get("cells") or {}).items()
        if cell and cell.get("mean") is not None
    ]
    caption = f"Means by subset, with {view.confidence} intervals."
    x = quantity("value", view.scorer_title(view.judge, unit=True))
    return _intervals(view, "subsets", "subsets", caption, rows, "label", x, None, beside="method")


def _parts(view: View) -> Chart | None:
    rows = [
        {"method": view.style(r["method"]).title, "part": r["part"], "mean": r["mean"]}
        for r in view.rows("parts")
        if r.get("mean") is not None
    ]
    if not rows:
        return None
    styles = styles_in(view, rows)
    bars = layer(
        rows,
        {"type": "bar"},
        x=quantity("mean", f"mean part of the {view.scorer_title(view.judge, unit=True)}"),
        y=name_of("part"),
        yOffset={"field": "method", "sort": [style.title for style in styles]},
        color=color(styles),
    )
    height = 16 * len(rows) + 10 * len({row["part"] for row in rows})
    over = "responses" if view.of_models else "responses and seeds"
    caption = f"The parts of the {view.scorer_title(view.judge)}: means over {over}."
    return chart("gold-parts", "results", caption, [bars], height)


def _intervals(
    view: View,
    name: str,
    section: str,
    caption: str,
    rows: Rows,
    label: str,
    x: Spec,
    null: float | None,
    *,
    below: Sequence[Spec] = (),
    beside: str | None = None,
) -> Chart | None:
    """Draw values with intervals below each other, and a line where there is no difference."""
    if not rows:
        return None
    styles = styles_in(view, rows)
    shared: dict[str, Any] = {"y": name_of(label), "color": color(styles)}
    if beside is not None:
        shared["yOffset"] = {"field": beside, "sort": [style.title for style in styles]}
    pointing = {"tooltip": tooltip(("policy", "policy"))} if "policy" in rows[0] else {}
    low = x | {"field": "low"}
    layers = [
        *below,
        layer([row for row in rows if row.get("low") is not None],
              {"type": "rule", "strokeWidth": 3}, x=low, x2={"field": "high"}, **shared),
        layer(rows, {"type": "point", "filled": True, "size": 100, "opacity": 1}, x=x, **shared,
              shape=shape(styles), **pointing),
    ]  # fmt: skip
    if null is not None:
        layers.append(rule(null, "x"))
    places = len({row[label] for row in rows}) * (len(styles) if beside else 1)
    height = 30 + (16 if beside else 28) * places
    return chart(name, section, caption, layers, height)
