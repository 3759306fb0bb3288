"""Writing the page: one HTML file, Markdown beside it, charts as SVG and tables as CSV."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from evaluation.comparison.page import packed_responses, provenance_tables, tables
from evaluation.comparison.page.charts import charts
from evaluation.comparison.page.table import ReportTable
from evaluation.comparison.page.vega import Chart, svg
from evaluation.comparison.page.view import View
from evaluation.comparison.page_content import BASELINE_ID
from evaluation.plots import for_script, javascript
from plumbline import pages

CODE_BESIDE = "templates"
TABLES_FOLDER = "tables"
_SCRIPTS = (
    "charts", "export", "words", "responses", "notes", "browser", "keys", "live", "start",
)  # fmt: skip
#: Prompts whose responses stand in the Markdown.
_IN_MARKDOWN = 12

#: The sections of the page in order: place, heading, text in the navigation.
_SECTIONS = (
    ("verdict", "", ""),
    ("frontier", "Quality against KL", "Frontier"),
    ("training", "Over training", "Training"),
    ("results", "Results", "Results"),
    ("wins", "Win rates", "Win rates"),
    ("ranking", "Ranking", "Ranking"),
    ("subsets", "By subset", "Subsets"),
    ("responses", "Responses side by side", "Responses"),
    ("notes", "Notes", "Notes"),
    ("cost", "Cost", "Cost"),
    ("seeds", "Seeds", "Seeds"),
    ("lineage", "Lineage", "Lineage"),
    ("dropped", "Rows left out", "Left out"),
    ("differences", "Different settings", "Differences"),
    ("settings", "Settings", "Settings"),
)
_TABLES: dict[str, Callable[[View], ReportTable]] = {
    "leaderboard": tables.leaderboard,
    "results": tables.results,
    "contrasts": tables.contrasts,
    "measures": tables.measures,
    "frontiers": tables.frontiers,
    "ranking": tables.ranking,
    "subsets": tables.subsets,
    "costs": tables.costs,
    "policies": tables.policies,
    "lineage": provenance_tables.lineage,
    "dropped": provenance_tables.dropped,
    "differences": provenance_tables.differences,
    "run_settings": provenance_tables.run_settings,
    "settings": provenance_tables.settings,
}


@dataclass(frozen=True)
class Section:
    """A part of the page that can be replaced by itself."""

    place: str
    heading: str
    short: str
    html: str

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show; the page then hides the section."""
        return not self.html


def write(content: Mapping[str, Any], folder: Path) -> None:
    """Write ``report.html``, ``report.md``, ``plots/*.svg`` and ``tables/*.csv`` into a folder.

    Equal content gives equal bytes. The content is that of `page_content`.
    """
    view = View(content)
    drawn = charts(view)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("plots", TABLES_FOLDER):
        (folder / name).mkdir(exist_ok=True)
    for chart in drawn:
        _write_text(folder / "plots" / f"{chart.name}.svg", svg(chart.spec))
    shown = _tables(view)
    for table in [*shown.values(), *tables.csv_only_tables(view)]:
        if table:
            _write_text(folder / TABLES_FOLDER / f"{table.name}.csv", table.csv())
    packed = packed_responses.embedded(view)
    _write_text(folder / "report.html", _page(view, drawn, packed, live=False))
    markdown = _environment().get_template("report.md.jinja")
    _write_text(
        folder / "report.md",
        markdown.render(
            view=view,
            tables=shown,
            filled=[name for name, table in shown.items() if table],
            charts=drawn,
            samples=packed_responses.selection(view, _IN_MARKDOWN),
        ),
    )


def sections(content: Mapping[str, Any]) -> list[Section]:
    """Return the page's sections in order, as HTML; the first is the verdict."""
    view = View(content)
    return _sections(view, charts(view))


def live_page(content: Mapping[str, Any], *, curves: str = "") -> str:
    """Return the page that updates itself from its server, without samples.

    ``curves`` is the address of the page of the trainings' curves, if there is one.
    """
    view = View(content)
    return _page(view, charts(view), "", live=True, curves=curves)


def live_parts(content: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return what a live page requests: its sections and charts, and the samples as JSON."""
    view = View(content)
    drawn = charts(view)
    parts = {
        "status": view.content.get("status") or "finished",
        "sections": {part.place: part.html for part in _sections(view, drawn)},
        "charts": {chart.name: chart.spec for chart in drawn},
        "titles": _titles(view),
    }
    return parts, packed_responses.as_json(view)


def _page(view: View, drawn: list[Chart], packed: str, *, live: bool, curves: str = "") -> str:
    environment = _environment()
    settings = {"live": live, "judge": view.judge, "titles": _titles(view)}
    script = _script()
    sources = f"{_hash(javascript())} {_hash(script)} 'unsafe-eval'"  # Vega compiles
    reach = "'self'" if live else "'none'"
    return environment.get_template("report.html.jinja").render(
        view=view,
        title=view.content.get("title") or "Comparison",
        version=view.content.get("version") or "",
        live=live,
        curves=curves,
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
    macros: Any = _environment().get_template("sections.html.jinja").module
    shown = _tables(view)
    return [
        Section(place, heading, short, str(getattr(macros, place)(view, shown, drawn)).strip())
        for place, heading, short in _SECTIONS
    ]


def _titles(view: View) -> dict[str, str]:
    """Return the title of each policy, for charts."""
    ids = dict.fromkeys([BASELINE_ID, *view.policies, *(view.samples.get("policies") or [])])
    return {name: view.policy_title(name) for name in ids}


def _tables(view: View) -> dict[str, ReportTable]:
    return {name: make(view) for name, make in _TABLES.items()}


@cache
def _environment() -> Environment:
    return pages.templates("evaluation.comparison.page")


@cache
def _script() -> str:
    """Return the script of the page: all its parts in one closed scope."""
    loader, environment = _environment().loader, _environment()
    assert loader is not None
    parts = [loader.get_source(environment, f"{name}.js")[0] for name in _SCRIPTS]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "\n})();\n"


def _hash(script: str) -> str:
    """Return a script's hash as a content security policy names it."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="replace", newline="\n")
