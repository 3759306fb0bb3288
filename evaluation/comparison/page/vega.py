"""Building blocks of the charts: Vega-Lite as plain data, in the colors of the page.

A color is a property of the style sheet, ``var(--m1)``. In the page it follows the color scheme of
the reader, and of paper, without a new drawing; `svg` replaces it by the color of the light scheme.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.comparison.page.view import COLORS, MethodStyle, Row, View
from plumbline.runs.names import safe_file_name

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


#: Columns that fit beside each other at phone width, with names of usual length.
_LEGEND = {"columns": 4}


@dataclass(frozen=True)
class Chart:
    """A chart: its name, its section, its caption and its specification."""

    name: str
    section: str
    caption: str
    spec: Spec

    @property
    def height(self) -> int:
        """Approximate height of the drawing in pixels, so that the page does not jump."""
        return int(self.spec["height"]) + 70


def chart(name: str, section: str, caption: str, layers: Iterable[Spec], height: int) -> Chart:
    """Return a chart of the layers that have data, as wide as its place.

    Its name becomes that of a file, and a score's name may be in it.
    """
    spec = {
        "$schema": _SCHEMA,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": _CONFIG,
        "layer": [spec for spec in layers if spec["data"]["values"]],
    }
    return Chart(safe_file_name(name), section, caption, spec)


def layer(rows: Rows, mark: Spec, **encoding: Any) -> Spec:
    """Return one layer."""
    return {"data": {"values": rows}, "mark": mark, "encoding": encoding}


def quantity(field: str, title: str | None = None, **more: Any) -> Spec:
    """Return an encoding of numbers; scales need not start at zero."""
    if title is not None:  # Vega puts it into an expression, where a backslash is an escape
        title = title.replace("\\", "\u2216")
    scale = {"zero": False} | more.pop("scale", {})
    return {"field": field, "type": "quantitative", "title": title, "scale": scale} | more


def name_of(field: str, **more: Any) -> Spec:
    """Return an encoding of names, in the order of the rows."""
    return {"field": field, "type": "nominal", "title": None, "sort": None} | more


def color(styles: Sequence[MethodStyle]) -> Spec:
    """Return the color of each method, by its title."""
    scale = {
        "domain": [style.title for style in styles],
        "range": [f"var(--m{style.color})" for style in styles],
    }
    return {"field": "method", "type": "nominal", "title": None, "scale": scale, "legend": _LEGEND}


def shape(styles: Sequence[MethodStyle]) -> Spec:
    """Return the shape of each method, in one legend with its color."""
    scale = {
        "domain": [style.title for style in styles],
        "range": [style.shape for style in styles],
    }
    return {"field": "method", "type": "nominal", "title": None, "scale": scale, "legend": _LEGEND}


def series_color(names: Sequence[str], known: dict[str, str]) -> Spec:
    """Return colors for any series: the method's own, or the next of the palette."""
    palette = [f"var(--m{index})" for index in range(1, len(COLORS))]
    free = [tone for tone in palette if tone not in known.values()] or palette
    others = [name for name in names if name not in known]
    colors = known | {name: free[place % len(free)] for place, name in enumerate(others)}
    scale = {"domain": list(names), "range": [colors[name] for name in names]}
    legend = {"columns": 2 if len(names) > 3 else 4}
    return {"field": "series", "type": "nominal", "title": None, "scale": scale, "legend": legend}


def rule(value: float, axis: str) -> Spec:
    """Return a dashed line across the chart, at a value of an axis."""
    mark = {"type": "rule", "strokeDash": [4, 4], "color": "var(--soft)"}
    return layer([{"at": value}], mark, **{axis: {"field": "at", "type": "quantitative"}})


def styles_in(view: View, rows: Sequence[Row]) -> list[MethodStyle]:
    """Return the styles of the methods whose titles stand in the rows, in the order of colors."""
    titles = {row["method"] for row in rows}
    return [style for style in view.styles if style.title in titles]


def tooltip(*fields: tuple[str, str]) -> list[Spec]:
    """Return what is shown for the mark under the pointer: pairs of field and title."""
    return [{"field": field, "title": title} for field, title in fields]


def for_svg(spec: Spec) -> Spec:
    """Return a specification in the colors of the light scheme, at a fixed width, on white."""
    light = _LIGHT | {f"m{index}": value for index, value in enumerate(COLORS)}
    text = _PROPERTY.sub(lambda match: light[match[1]], json.dumps(spec))
    light_spec: Spec = json.loads(text) | {"width": 560, "background": "white"}
    return light_spec


def svg(spec: Spec) -> str:
    """Draw a chart as SVG."""
    import vl_convert

    text: str = vl_convert.vegalite_to_svg(for_svg(spec))
    return text
