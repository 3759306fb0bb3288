"""The report's plots, as Vega-Lite: interactive in the page, drawn as SVG beside `report.md`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import altair as alt

Rows = Sequence[dict[str, Any]]
Chart = Any  # altair's many classes of chart, which it does not type

#: Told apart by people with any kind of colour vision, and by brightness (Okabe and Ito, 2008).
_COLOURS = {"SFT": "#7f7f7f", "DPO": "#0072b2", "PPO": "#d55e00"}
#: For as many methods as anyone compares at once, in the same spirit.
PALETTE = [
    "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b",
    "#bcbd22", "#5b5bd6",
]  # fmt: skip
_HEIGHT = 260


def win_rates(rows: Rows, judge: str) -> Chart:
    """Draw the win rate of each policy over the baseline, with its interval."""
    base = alt.Chart(alt.Data(values=list(rows)))
    y = alt.Y("label:N", title=None, sort=None)
    label = "datum.method + ', seed ' + datum.seed"
    scale = alt.Scale(domain=[0, 1])
    bars = base.transform_calculate(label=label).mark_rule(strokeWidth=3).encode(
        x=alt.X("low:Q", title=f"win rate over the SFT policy by {judge}", scale=scale,
                axis=alt.Axis(format="%")),
        x2="high:Q",
        y=y,
        color=_colour(),
    )  # fmt: skip
    points = (
        base.transform_calculate(label=label)
        .mark_point(filled=True, size=110)
        .encode(
            x=alt.X("win_rate:Q", scale=scale),
            y=y,
            color=_colour(),
            tooltip=_tooltips("method:N", "seed:N", "win_rate:Q", "low:Q", "high:Q"),
        )
    )
    half = (
        alt.Chart(alt.Data(values=[{"half": 0.5}]))
        .mark_rule(strokeDash=[4, 4], color="#888")
        .encode(x="half:Q")
    )
    return _sized(half + bars + points, height=40 + 30 * len(rows))


def frontier(rows: Rows, measure: str, title: str) -> Chart:
    """Draw a score against the KL to the reference, at every look at every policy."""
    found = [row for row in rows if row.get(measure) is not None]
    base = alt.Chart(alt.Data(values=found)).encode(
        x=alt.X("kl:Q", title="KL to the SFT policy, nats (root scale)",
                scale=alt.Scale(type="sqrt")),
        y=alt.Y(f"{measure}:Q", title=title, scale=alt.Scale(zero=False)),
        color=_colour(),
        detail=["method:N", "seed:N"],
    )  # fmt: skip
    lines = base.mark_line(strokeWidth=1.5, opacity=0.7).encode(order="step:Q")
    points = base.mark_point(filled=True, size=60).encode(
        tooltip=_tooltips("method:N", "seed:N", "step:Q", "kl:Q", f"{measure}:Q", "words:Q")
    )
    return _sized(lines + points)


def over_training(rows: Rows, measure: str, title: str) -> Chart:
    """Draw a measure over the course of training."""
    found = [row for row in rows if row.get(measure) is not None]
    base = alt.Chart(alt.Data(values=found)).encode(
        x=alt.X("progress:Q", title="share of the training done", axis=alt.Axis(format="%")),
        y=alt.Y(f"{measure}:Q", title=title, scale=alt.Scale(zero=False)),
        color=_colour(),
        detail=["method:N", "seed:N"],
    )
    points = base.mark_point(filled=True, size=40).encode(
        tooltip=_tooltips("method:N", "seed:N", "step:Q", f"{measure}:Q")
    )
    return _sized(base.mark_line(strokeWidth=1.5, opacity=0.7) + points)


def training_figure(rows: Rows, figure: str, stages: Sequence[str]) -> Chart:
    """Draw one training figure of some stages, step by step."""
    found = [row for row in rows if row["figure"] == figure and row["stage"] in stages]
    chart = (
        alt.Chart(alt.Data(values=found))
        .mark_line(strokeWidth=1.5)
        .encode(
            x=alt.X("step:Q", title="step"),
            y=alt.Y("value:Q", title=figure, scale=alt.Scale(zero=False)),
            color=alt.Color("stage:N", title=None, legend=alt.Legend(orient="bottom", columns=3)),
            tooltip=_tooltips("stage:N", "step:Q", "value:Q"),
        )
    )
    return _sized(chart)


def parts(rows: Rows) -> Chart:
    """Draw what each policy's gold utility is made of."""
    chart = (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_bar()
        .encode(
            x=alt.X("points:Q", title="mean contribution to the gold utility, in points"),
            y=alt.Y("part:N", title=None, sort=None),
            yOffset=alt.YOffset("policy:N", sort=["SFT", "DPO", "PPO"]),
            color=_colour("policy:N"),
            tooltip=_tooltips("policy:N", "part:N", "points:Q"),
        )
    )
    return _sized(chart, height=300)


def specification(chart: Chart) -> dict[str, Any]:
    """Return a chart as Vega-Lite JSON."""
    spec: dict[str, Any] = chart.to_dict()
    return spec


def svg(spec: dict[str, Any]) -> str:
    """Draw a chart as SVG, on white, at a fixed width."""
    import vl_convert

    drawn: str = vl_convert.vegalite_to_svg(spec | {"width": 560, "background": "white"})
    return drawn


def javascript() -> str:
    """Return the whole of Vega in one script, so that the page opens without a network."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle


def for_script(value: Any) -> str:
    """Return JSON that cannot end the script element it stands in."""
    return json.dumps(value).replace("<", "\\u003c")


def _colour(field: str = "method:N") -> alt.Color:
    scale = alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values()))
    return alt.Color(field, title=None, scale=scale, legend=alt.Legend(orient="bottom"))


def _tooltips(*fields: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip(field, format=".3f") if field.endswith(":Q") else alt.Tooltip(field)
        for field in fields
    ]


def _sized(chart: Any, height: int = _HEIGHT) -> Any:
    return chart.properties(width="container", height=height)
