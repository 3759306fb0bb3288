"""Writing the page: one HTML file, Markdown beside it, charts as SVG and figures as CSV."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from evaluation.comparison.page import results, samples
from evaluation.comparison.page.charts import charts
from evaluation.comparison.page.marks import Chart, svg
from evaluation.comparison.page.tables import Table
from evaluation.comparison.page.view import BASELINE, View
from evaluation.plots import for_script, javascript
from plumbline import pages

CODE_BESIDE = "../../templates"
_SCRIPTS = ("charts", "words", "answers", "browser", "keys", "live", "start")
_IN_MARKDOWN = 12

#: Every section of the page in its order: its place, its heading, what the navigation says.
_SECTIONS = (
    ("verdict", "", ""),
    ("frontier", "Quality against KL", "Frontier"),
    ("training", "Over training", "Training"),
    ("results", "Results", "Results"),
    ("wins", "Win rates", "Win rates"),
    ("ranking", "Ranking", "Ranking"),
    ("subsets", "By subset", "Subsets"),
    ("answers", "Answers side by side", "Answers"),
    ("cost", "Cost", "Cost"),
    ("seeds", "Seeds", "Seeds"),
    ("lineage", "Lineage", "Lineage"),
    ("left-out", "Left out", "Left out"),
    ("differences", "Different settings", "Differences"),
    ("settings", "Settings", "Settings"),
)
_TABLES: dict[str, Callable[[View], Table]] = {
    "results": results.results,
    "contrasts": results.contrasts,
    "measures": results.measures,
    "frontiers": results.frontiers,
    "ranking": results.ranking,
    "subsets": results.subsets,
    "costs": results.costs,
    "policies": results.policies,
    "lineage": results.lineage,
    "left_out": results.left_out,
    "differences": results.differences,
    "settings": results.settings,
}


@dataclass(frozen=True)
class Section:
    """A part of the page that can be renewed by itself."""

    place: str
    heading: str
    short: str
    html: str

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show, so that the page leaves it out."""
        return not self.html


def write(content: Mapping[str, Any], folder: Path) -> None:
    """Write ``report.html``, ``report.md``, ``plots/*.svg`` and ``figures/*.csv`` into a folder.

    Equal content gives equal bytes. The content is that of `page_content`.
    """
    view = View(content)
    drawn = charts(view)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("plots", "figures"):
        (folder / name).mkdir(exist_ok=True)
    for chart in drawn:
        _put(folder / "plots" / f"{chart.name}.svg", svg(chart.spec))
    tables = _tables(view)
    for table in [*tables.values(), *results.bare(view)]:
        if table:
            _put(folder / "figures" / f"{table.name}.csv", table.csv())
    _put(folder / "report.html", _page(view, drawn, samples.embedded(view), live=False))
    markdown = _environment().get_template("comparison.md.jinja")
    _put(
        folder / "report.md",
        markdown.render(
            view=view,
            tables=tables,
            filled=[name for name, table in tables.items() if table],
            charts=drawn,
            samples=samples.selection(view, _IN_MARKDOWN),
        ),
    )


def sections(content: Mapping[str, Any]) -> list[Section]:
    """Return the page's sections in order, as HTML; the first is the verdict."""
    view = View(content)
    return _sections(view, charts(view))


def live_page(content: Mapping[str, Any]) -> str:
    """Return the page that renews itself from the server it came from, without samples."""
    view = View(content)
    return _page(view, charts(view), "", live=True)


def live_parts(content: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return what a live page asks for: its sections and charts, and the samples as JSON."""
    view = View(content)
    drawn = charts(view)
    parts = {
        "status": view.content.get("status") or "finished",
        "sections": {part.place: part.html for part in _sections(view, drawn)},
        "charts": {chart.name: chart.spec for chart in drawn},
        "titles": _titles(view),
    }
    return parts, samples.as_json(view)


def _page(view: View, drawn: list[Chart], packed: str, *, live: bool) -> str:
    environment = _environment()
    settings = {"live": live, "judge": view.judge, "titles": _titles(view)}
    script = _script()
    sources = f"{_hash(javascript())} {_hash(script)} 'unsafe-eval'"  # Vega compiles
    reach = "'self'" if live else "'none'"
    return environment.get_template("comparison.html.jinja").render(
        view=view,
        title=view.content.get("title") or "Comparison",
        version=view.content.get("version") or "",
        live=live,
        sections=_sections(view, drawn),
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src {sources}; "
        f"connect-src {reach}; base-uri 'none'; form-action 'none'",
        vega=javascript(),
        script=script,
        charts=for_script({chart.name: chart.spec for chart in drawn}, allow_nan=False),
        settings=for_script(settings, allow_nan=False),
        samples=packed,
    )


def _sections(view: View, drawn: list[Chart]) -> list[Section]:
    macros: Any = _environment().get_template("comparison.sections.html.jinja").module
    tables = _tables(view)
    found = []
    for place, heading, short in _SECTIONS:
        macro = getattr(macros, place.replace("-", "_"))
        found.append(Section(place, heading, short, str(macro(view, tables, drawn)).strip()))
    return found


def _titles(view: View) -> dict[str, str]:
    """Return what charts call each policy."""
    ids = dict.fromkeys([BASELINE, *view.policies, *(view.samples.get("policies") or [])])
    return {name: view.policy_title(name) for name in ids}


def _tables(view: View) -> dict[str, Table]:
    return {name: make(view) for name, make in _TABLES.items()}


@cache
def _environment() -> Environment:
    return pages.templates("evaluation")


@cache
def _script() -> str:
    """Return the page's own script: every part in a file of its own, in one closed scope."""
    loader, environment = _environment().loader, _environment()
    assert loader is not None
    parts = [loader.get_source(environment, f"comparison.{name}.js")[0] for name in _SCRIPTS]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "\n})();\n"


def _hash(script: str) -> str:
    """Return a script's hash as a content security policy names it."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="replace", newline="\n")
