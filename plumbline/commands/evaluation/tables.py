"""Figures as tables: on the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from evaluation.measures.registry import BUILT_IN, REGISTRY, explained
from plumbline import pages

_SUFFIXES = ("_error", "_low", "_high")
#: Parts that other figures are made of.
_UNSHOWN = ("nats", "tokens", "nats_a_token", "calculations")
_SCORERS = {"gold": "gold utility", "reward": "reward-model score", "ensemble": "ensemble score"}


class Line(NamedTuple):
    """One figure of all models."""

    title: str
    unit: str
    values: list[str]


def lines(figures: Mapping[str, Mapping[str, float | None]]) -> list[Line]:
    """Return a task's figures as lines: one a figure, with its error or interval in the cell."""
    known = {one["name"]: one for one in explained()}
    names = sorted({name for values in figures.values() for name in values}, key=_order)
    main = [
        name
        for name in names
        if not name.endswith(_SUFFIXES) and name.partition(".")[2] not in _UNSHOWN
    ]
    return [
        Line(*_title(name, known), [_cell(values, name) for values in figures.values()])
        for name in main
    ]


def _order(name: str) -> tuple[int, int, str]:
    """Put scores and win rates first, then the harness's own figures, then measures."""
    base = name.split(".")[0].removesuffix("_error")
    if base.split("_")[0] in (*_SCORERS, "people", "llm"):
        return 0, "." in name, name
    if base in (*BUILT_IN, "prompts"):
        return 1, 0, name
    return 2, list(REGISTRY).index(base) if base in REGISTRY else len(REGISTRY), name


def _title(name: str, known: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    base, _, part = name.partition(".")
    if part:
        return f"· {part.replace('_', ' ')}", str(known[base]["unit"]) if base in known else ""
    if base in known:
        one = known[base]
        return _arrow(one["title"], one["higher_is_better"]), str(one["unit"])
    if base in BUILT_IN:
        title, unit, better = BUILT_IN[base]
        return _arrow(title, better), unit
    for scorer, title in _SCORERS.items():
        if base == scorer:
            return _arrow(title, True), "points"
        if base == f"{scorer}_win_rate":
            return _arrow(f"win rate by {scorer}", True), "share of prompts"
        if base == f"{scorer}_std":
            return f"{title}: standard deviation between members", "points"
    return base.replace("_", " "), ""


def _arrow(title: str, better: bool | None) -> str:
    return title + {True: " ↑", False: " ↓", None: ""}[better]


def _cell(values: Mapping[str, float | None], name: str) -> str:
    value = values.get(name)
    if value is None:
        return "–"
    text = f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 2 else f"{value:.4g}"
    low, high = values.get(f"{name}_low"), values.get(f"{name}_high")
    if low is not None and high is not None:
        return f"{text} [{low:.3g}, {high:.3g}]"
    error = values.get(f"{name}_error")
    return text if error is None else f"{text} ± {error:.2g}"


def markdown(results: Mapping[str, Any]) -> str:
    """Return all figures as Markdown: one table a task."""
    parts = ["# Evaluation\n"]
    for task, figures in results["tasks"].items():
        models = [pages.plain(name) for name in figures]
        parts.append(f"## {pages.plain(task)}\n")
        parts.append(f"| measure | unit | {' | '.join(models)} |")
        parts.append("|---|---|" + "---|" * len(models))
        parts += [
            f"| {one.title} | {one.unit} | {' | '.join(one.values)} |" for one in lines(figures)
        ]
        parts.append("")
    parts.append(
        "± is the standard error over prompts; brackets are intervals over prompts. ↑ more is "
        "better, ↓ less is better. KL: mean of log p − log q over sampled answers (k1), in nats."
    )
    return "\n".join(parts) + "\n"


def show(results: Mapping[str, Any]) -> None:
    """Print all figures, one table a task."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for task, figures in results["tasks"].items():
        table = Table("measure", "unit", *map(escape, figures), title=escape(task), box=None)
        for one in lines(figures):
            table.add_row(one.title, one.unit, *map(escape, one.values))
        console.print(table)


def show_measures() -> None:
    """Print what each measure is."""
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "measure", "unit", "of each", "needs", "usual", box=None, pad_edge=False)
    for one in explained():
        table.add_row(
            one["name"],
            _arrow(one["title"], one["higher_is_better"]),
            one["unit"],
            one["per"],
            ", ".join(one["needs"]),
            "yes" if REGISTRY[one["name"]].usual else "",
        )
    Console().print(table)
