"""The tables of where the numbers come from: stages, rows left out, and settings."""

from __future__ import annotations

from evaluation.comparison.page.table import Column, ReportTable
from evaluation.comparison.page.view import View


def lineage(view: View) -> ReportTable:
    """Return the artefact of each stage and its inputs."""
    columns = [
        Column("stage", "stage"),
        Column("artifact", "artefact", "code"),
        Column("inputs", "made from", "list"),
        Column("seed", "seed"),
        Column("seconds", "time", "duration"),
        Column("memory", "peak memory", "size"),
    ]
    return ReportTable("lineage", "Lineage", columns, [dict(row) for row in view.rows("lineage")])


def dropped(view: View) -> ReportTable:
    """Return the rows that each stage left out, by reason."""
    columns = [
        Column("stage", "stage"),
        Column("reason", "reason", "wrap"),
        Column("count", "rows", "integer"),
        Column("rows", "row numbers", "wrap"),
    ]
    note = "All of these rows are in dropped.jsonl of their stage, with their origin."
    rows = [dict(row) for row in view.rows("dropped")]
    return ReportTable("dropped", "Rows left out", columns, rows, note)


def differences(view: View) -> ReportTable:
    """Return the settings in which the methods differ."""
    names = dict.fromkeys(
        name for row in view.rows("differences") for name in row.get("values") or {}
    )
    rows = [
        {"key": row["key"]}
        | {view.style(name).title: value for name, value in (row.get("values") or {}).items()}
        for row in view.rows("differences")
    ]
    columns = [Column("key", "setting", "code")]
    columns += [Column(view.style(n).title, view.style(n).title, "wrap") for n in names]
    return ReportTable("differences", "Settings in which the methods differ", columns, rows)


def run_settings(view: View) -> ReportTable:
    """Return the settings in which the compared runs differ, side by side."""
    rows = [{"key": row["key"], **row["values"]} for row in view.rows("run_settings")]
    names = dict.fromkeys(name for row in view.rows("run_settings") for name in row["values"])
    columns = [Column("key", "setting", "code"), *(Column(n, n, "wrap") for n in names)]
    return ReportTable("run_settings", "Settings in which the runs differ", columns, rows)


def settings(view: View) -> ReportTable:
    """Return all settings."""
    columns = [
        Column("key", "setting", "code"),
        Column("value", "value", "wrap"),
        Column("documentation", "what it does", "wrap"),
    ]
    rows = [dict(row) for row in view.rows("settings")]
    return ReportTable("settings", "Settings", columns, rows)
