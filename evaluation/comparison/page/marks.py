"""What all charts are built from: Vega-Lite as plain data, in the page's colours.

A colour is written as a property of the style sheet, ``var(--m1)``. In the page it follows the
reader's colour scheme, and paper, without being drawn anew; `svg` puts the light scheme's colour
in its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.comparison.page.view import COLORS, Row, View, Who

Spec = dict[str, Any]
Rows = list[dict[str, Any]]

HEIGHT = 280
_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"  # a name; nothing is fetched
_LIGHT = {"text": "#1d2330", "soft": "#5a6375", "line": "#dfe3ea", "ground": "#ffffff"}
_PROPERTY = re.compile(r"var\(--([a-z0-9]+)\)")
_AXIS = {
    "labelColor": "var(--text)", "titleColor": "var(--text)", "gridColor": "var(--line)",
    "domainColor": "var(--line)", "tickColor": "var(--line)", "titleFontWeight": "normal",
    "labelFontSize": 12, "titleFontSize": 12, "labelLimit": 240, "titleLimit": 300,
}  # fmt: skip
_CONFIG = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": "transparent"},
    "axis": _AXIS,
    "axisX": {"tickCount": 6, "labelOverlap": True},
    "legend": {
        "labelColor": "var(--text)", "titleColor": "var(--text)", "labelFontSize": 12,
        "orient": "bottom", "symbolSize": 90, "labelLimit": 260, "symbolOpacity": 1,
    },
}  # fmt: skip


#: As many as fit beside each other at phone width, where names are as long as methods' names are.
_LEGEND = {"columns": 4}


@dataclass(frozen=True)
class Chart:
    """A chart: what it shows, in which section, and what is said below it."""

    name: str
    section: str
    caption: str
    spec: Spec

    @property
    def height(self) -> int:
        """Height of the drawing in pixels, about, so that the page does not jump."""
        return int(self.spec["height"]) + 70


def chart(name: str, section: str, caption: str, layers: Iterable[Spec], height: int) -> Chart:
    """Return a chart of those layers that have data, as wide as its place."""
    spec = {
        "$schema": _SCHEMA,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": _CONFIG,
        "layer": [made for made in layers if made["data"]["values"]],
    }
    return Chart(name, section, caption, spec)


def layer(rows: Rows, mark: Spec, **encoding: Any) -> Spec:
    """Return one layer."""
    return {"data": {"values": rows}, "mark": mark, "encoding": encoding}


def quantity(field: str, title: str | None = None, **more: Any) -> Spec:
    """Return an encoding of numbers; scales need not start at zero."""
    scale = {"zero": False} | more.pop("scale", {})
    return {"field": field, "type": "quantitative", "title": title, "scale": scale} | more


def name_of(field: str, **more: Any) -> Spec:
    """Return an encoding of names, in the order of the rows."""
    return {"field": field, "type": "nominal", "title": None, "sort": None} | more


def color(people: Sequence[Who]) -> Spec:
    """Return the colour of each method, by its title."""
    scale = {
        "domain": [who.title for who in people],
        "range": [f"var(--m{who.color})" for who in people],
    }
    return {"field": "method", "type": "nominal", "title": None, "scale": scale, "legend": _LEGEND}


def shape(people: Sequence[Who]) -> Spec:
    """Return the shape of each method, in one legend with its colour."""
    scale = {
        "domain": [who.title for who in people],
        "range": [who.shape for who in people],
    }
    return {"field": "method", "type": "nominal", "title": None, "scale": scale, "legend": _LEGEND}


def series_color(names: Sequence[str], known: dict[str, str]) -> Spec:
    """Return colours for any series: the method's own, or the next of the palette."""
    palette = [f"var(--m{index})" for index in range(1, len(COLORS))]
    spare = [tone for tone in palette if tone not in known.values()] or palette
    strangers = [name for name in names if name not in known]
    given = {name: spare[place % len(spare)] for place, name in enumerate(strangers)}
    shown = [(known | given)[name] for name in names]
    scale = {"domain": list(names), "range": shown}
    legend = {"columns": 2 if len(names) > 3 else 4}
    return {"field": "series", "type": "nominal", "title": None, "scale": scale, "legend": legend}


def rule(value: float, axis: str) -> Spec:
    """Return a dashed line across the chart, at a value of an axis."""
    mark = {"type": "rule", "strokeDash": [4, 4], "color": "var(--soft)"}
    return layer([{"at": value}], mark, **{axis: {"field": "at", "type": "quantitative"}})


def present(view: View, rows: Sequence[Row]) -> list[Who]:
    """Return who appears in the rows, in the order of colours; strangers last."""
    titles = dict.fromkeys(row["method"] for row in rows)
    known = [who for who in view.people.values() if who.title in titles]
    names = {who.title for who in known}
    return known + [view.who(title) for title in titles if title not in names]


def tooltip(*fields: tuple[str, str]) -> list[Spec]:
    """Return what is shown of a mark that is pointed at: pairs of field and title."""
    return [{"field": field, "title": title} for field, title in fields]


def for_svg(spec: Spec) -> Spec:
    """Return a specification in the light scheme's colours, at a fixed width, on white."""
    light = _LIGHT | {f"m{index}": value for index, value in enumerate(COLORS)}
    text = _PROPERTY.sub(lambda found: light[found[1]], json.dumps(spec))
    drawn: Spec = json.loads(text) | {"width": 560, "background": "white"}
    return drawn


def svg(spec: Spec) -> str:
    """Draw a chart as SVG."""
    import vl_convert

    drawn: str = vl_convert.vegalite_to_svg(for_svg(spec))
    return drawn
