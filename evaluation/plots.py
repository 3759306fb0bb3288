"""Vega-Lite plots: interactive in a page, as SVG beside ``report.md``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from plumbline import __version__, pages

CODE_BESIDE = "templates"

Chart = Any  # altair's many classes of chart, which it does not type

#: Distinguishable with any kind of color vision, and by brightness (after Okabe and Ito, 2008).
PALETTE = [
    "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b",
    "#bcbd22", "#5b5bd6",
]  # fmt: skip


def specification(chart: Chart) -> dict[str, Any]:
    """Return a chart as Vega-Lite JSON."""
    spec: dict[str, Any] = chart.to_dict()
    return spec


def svg(spec: dict[str, Any]) -> str:
    """Draw a chart as SVG, on white, at a fixed width."""
    import vl_convert

    text: str = vl_convert.vegalite_to_svg(spec | {"width": 560, "background": "white"})
    return text


@cache
def javascript() -> str:
    """Return all of Vega in one script, so that a page opens without a network."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle


def write_report(
    folder: Path,
    package: str,
    template: str,
    content: Mapping[str, Any],
    charts: Mapping[str, Chart],
) -> None:
    """Write a page and its Markdown from ``TEMPLATE.html.jinja`` and ``TEMPLATE.md.jinja``.

    The templates are in the folder ``templates`` of the package. Charts are written beside them as
    ``plots/NAME.svg``; in the templates they are ``charts``.
    """
    specs = {name: specification(chart) for name, chart in charts.items()}
    (folder / "plots").mkdir(exist_ok=True)
    for name, spec in specs.items():
        (folder / "plots" / f"{name}.svg").write_text(svg(spec), encoding="utf-8")
    values = {**content, "version": __version__, "charts": specs}
    templates = pages.templates(package)
    script = (Path(__file__).parent / CODE_BESIDE / "charts.js").read_text(encoding="utf-8")
    for ending, more in (
        ("md", {}),
        ("html", {"vega": javascript(), "specs": for_script(specs), "chart_script": script}),
    ):
        text = templates.get_template(f"{template}.{ending}.jinja").render(values, **more)
        (folder / f"report.{ending}").write_text(text, encoding="utf-8")


def for_script(value: Any, *, allow_nan: bool = True) -> str:
    """Return JSON that cannot end the script element that it stands in."""
    return json.dumps(value, allow_nan=allow_nan).replace("<", "\\u003c")
