"""Writing a comparison into a folder and showing it on a terminal."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape as without_markup
from rich.table import Table

from evaluation.comparison import page
from evaluation.comparison.compare import SUMMARY, summary
from plumbline.pages import number, percent
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.names import safe_file_name
from plumbline.terminal import visible


def folder_name(runs: Sequence[str], files: Sequence[Path], budget: str) -> str:
    """Return the name of a comparison's folder: the same for the same question."""
    parts = [*runs, *(str(file.resolve()) for file in files), budget]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:6]
    return f"{safe_file_name(runs[0] if runs else files[0].stem)}-{digest}"


def publish(content: Mapping[str, Any], stages: Mapping[str, Artifact], folder: Path) -> None:
    """Write the report into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    page.write(content, folder)
    write_json(folder / SUMMARY, summary(content, stages))


def show(console: Console, content: Mapping[str, Any], folder: Path) -> None:
    """Print headline and verdict, the results behind them, and where the report is."""
    headline = content["headline"]
    console.print(f"[bold]{'So far: ' * headline['so_far']}{_shown(headline['title'])}[/bold]")
    for sentence in [*headline["margin"], headline["basis"], *headline["trust"]]:
        console.print(_shown(sentence))
    for item in headline["missing"]:
        console.print(f"[yellow]still missing:[/yellow] {_shown(item)}")
    colors = {"refused": "red", "warning": "yellow", "note": "dim"}
    for flag in content["flags"]:
        color = colors[flag["level"]]
        console.print(f"[{color}]! {_shown(flag['text'])}[/{color}]")
    for sentence in content["verdict"]:
        console.print(f"• {_shown(sentence)}")
    judge = content["judge"]
    table = Table("method", "seed", "checkpoint", _shown(judge), "win rate", "KL", "words",
                  box=None, pad_edge=False)  # fmt: skip
    titles = {method["name"]: method["title"] for method in content["methods"]}
    for policy in content["policies"]:
        if policy["final"]:
            metrics = policy["metrics"]
            table.add_row(
                _shown(titles[policy["method"]]),
                _shown(policy["seed"]),
                str(policy["checkpoint"]),
                number(metrics.get(judge)),
                percent(metrics.get(f"{judge}_win_rate")),
                number(metrics.get("kl")),
                number(metrics.get("words"), 1),
            )
    console.print(table)
    for name in ("report.html", "report.md", SUMMARY, page.TABLES_FOLDER):
        console.print(f"  {folder / name}")


def _shown(text: str) -> str:
    """Return somebody's text so that a terminal shows it and obeys nothing in it."""
    return without_markup(visible(text))
