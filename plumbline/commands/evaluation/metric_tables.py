"""Metrics as tables: on the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from evaluation.measures.registry import BUILT_IN, MEASURES, cautions, describe_measures
from plumbline import pages
from plumbline.commands.evaluation.judges import JUDGES

_SUFFIXES = ("_se", "_low", "_high")
#: Parts from which other metrics are computed.
_HIDDEN_PARTS = ("nats", "tokens", "nats_per_token", "calculations")


class Line(NamedTuple):
    """One metric of all models."""

    title: str
    unit: str
    values: list[str]


def metric_lines(metrics: Mapping[str, Mapping[str, float | None]]) -> list[Line]:
    """Return the metrics of a task as lines, with standard error or interval in each cell."""
    measures = {measure["name"]: measure for measure in describe_measures()}
    names = sorted({name for values in metrics.values() for name in values}, key=_order)
    shown = [
        name
        for name in names
        if not name.endswith(_SUFFIXES) and name.partition(".")[2] not in _HIDDEN_PARTS
    ]
    return [
        Line(*_title(name, measures), [_cell(values, name) for values in metrics.values()])
        for name in shown
    ]


def _order(name: str) -> tuple[int, int, str]:
    """Put scores and win rates first, then the harness's own metrics, then measures."""
    base = name.split(".")[0].removesuffix("_se")
    if base.split("_")[0] in JUDGES:
        return 0, "." in name, name
    if base in (*BUILT_IN, "prompts"):
        return 1, 0, name
    return 2, list(MEASURES).index(base) if base in MEASURES else len(MEASURES), name


def _title(name: str, measures: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    base, _, part = name.partition(".")
    if part:
        unit = str(measures[base]["unit"]) if base in measures else ""
        return f"· {part.replace('_', ' ')}", unit
    if base in measures:
        measure = measures[base]
        return _with_arrow(measure["title"], measure["higher_is_better"]), str(measure["unit"])
    if base in BUILT_IN:
        title, unit, higher_is_better = BUILT_IN[base]
        return _with_arrow(title, higher_is_better), unit
    for judge in JUDGES.values():
        if base == judge.name:
            return _with_arrow(judge.title, True), "points"
        if base == f"{judge.name}_win_rate":
            return _with_arrow(f"win rate by {judge.name}", True), "share of prompts"
        if base == f"{judge.name}_std":
            return f"{judge.title}: standard deviation between members", "points"
    return base.replace("_", " "), ""


def _with_arrow(title: str, higher_is_better: bool | None) -> str:
    return title + {True: " ↑", False: " ↓", None: ""}[higher_is_better]


def _cell(values: Mapping[str, float | None], name: str) -> str:
    value = values.get(name)
    if value is None:
        return "–"
    text = f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 2 else f"{value:.4g}"
    low, high = values.get(f"{name}_low"), values.get(f"{name}_high")
    if low is not None and high is not None:
        return f"{text} [{low:.3g}, {high:.3g}]"
    se = values.get(f"{name}_se")
    return text if se is None else f"{text} ± {se:.2g}"


def as_markdown(results: Mapping[str, Any]) -> str:
    """Return all metrics as Markdown: one table per task."""
    parts = ["# Evaluation\n"]
    for task, metrics in results["tasks"].items():
        models = [pages.plain(name) for name in metrics]
        parts.append(f"## {pages.plain(task)}\n")
        parts.append(f"| measure | unit | {' | '.join(models)} |")
        parts.append("|---|---|" + "---|" * len(models))
        parts += [
            f"| {line.title} | {line.unit} | {' | '.join(line.values)} |"
            for line in metric_lines(metrics)
        ]
        parts.append("")
    parts.append(
        "± is the standard error over prompts; brackets are intervals over prompts. ↑ higher is "
        "better, ↓ lower is better. KL: mean of log p − log q over sampled responses (k1), in nats."
    )
    parts += [f"\n{caution}" for caution in _cautions(results)]
    return "\n".join(parts) + "\n"


def _cautions(results: Mapping[str, Any]) -> list[str]:
    """Return what must be known of the measures in the results."""
    names = {n for task in results["tasks"].values() for values in task.values() for n in values}
    return cautions(names)


def print_metrics(results: Mapping[str, Any]) -> None:
    """Print all metrics, one table per task."""
    from rich.markup import escape
    from rich.table import Table

    from plumbline.terminal import Terminal

    console = Terminal()
    for task, metrics in results["tasks"].items():
        table = Table("measure", "unit", *map(escape, metrics), title=escape(task), box=None)
        for line in metric_lines(metrics):
            table.add_row(line.title, line.unit, *map(escape, line.values))
        console.print(table)
    for caution in _cautions(results):
        console.print(f"[dim]{escape(caution)}[/dim]")


def print_measures() -> None:
    """Print the meaning of each measure."""
    from rich.table import Table

    from plumbline.terminal import Terminal

    table = Table("name", "measure", "unit", "of each", "needs", "default", box=None,
                  pad_edge=False)  # fmt: skip
    for measure in describe_measures():
        table.add_row(
            measure["name"],
            _with_arrow(measure["title"], measure["higher_is_better"]),
            measure["unit"],
            measure["per"],
            ", ".join(measure["needs"]),
            "yes" if MEASURES[measure["name"]].is_default else "",
        )
    Terminal().print(table)
