"""Showing what a file holds, and the formats that are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from plumbline.data.format import Format
from plumbline.data.formats import FORMATS
from plumbline.data.parts import PARTS

if TYPE_CHECKING:
    from rich.console import Console

    from plumbline.commands.data_check import Check, Learnt

_LONGEST = 2000


def show(check: Check) -> None:
    """Print what became of a file's rows."""
    from rich.markup import escape

    from plumbline.terminal import Terminal

    console = Terminal()
    console.print(f"[bold]{escape(check.file)}[/bold] as {check.use}")
    if check.format is not None:
        console.print(f"  format   {escape(check.format)}")
    console.print(f"  rows     {check.rows} read, {check.kept} kept")
    for reason, count, numbers in check.dropped.by_reason():
        console.print(f"  left out {count}: {escape(reason)} (rows {numbers})", highlight=False)
    if check.columns_used:
        used = ", ".join(f"{column} ({part})" for column, part in check.columns_used.items())
        console.print(f"  read     {escape(used)}", highlight=False)
    if check.columns_unused:
        unused = ", ".join(f"{name} ({count} rows)" for name, count in check.columns_unused.items())
        console.print(f"  unused   {escape(unused)}", highlight=False)
    for warning in check.warnings:
        console.print(f"  [yellow]note[/yellow]     {escape(warning)}", highlight=False)
    if check.tokens:
        counts = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in check.tokens.items())
        console.print(f"  tokens   {counts}", highlight=False)
    _show_example(console, check)


def _show_example(console: Console, check: Check) -> None:
    from rich.markup import escape

    if not check.example:
        return
    console.print(
        "\n  The first row; [green]what is learnt or compared is green[/green], between ▶ ◀:"
    )
    if check.seen:
        for part, pieces in zip(check.example, check.seen, strict=True):
            text = "".join(
                f"[green]▶{escape(piece)}◀[/green]" if learnt else escape(piece)
                for piece, learnt in pieces
            )
            console.print(f"\n  [bold]{part.title}[/bold]\n{_cut(text)}", highlight=False)
        return
    for part in check.example:
        console.print(f"\n  [bold]{part.title}[/bold]")
        for line, learnt in _lines(part):
            text = f"  [green]▶{escape(line)}◀[/green]" if learnt else f"  {escape(line)}"
            console.print(_cut(text), highlight=False)


def _lines(part: Learnt) -> Iterator[tuple[str, bool]]:
    if part.tools:
        yield f"tools: {part.tools}", False
    for number, message in enumerate(part.messages):
        learnt = (
            number >= part.prompt
            and message["role"] == "assistant"
            and message.get("weight", 1) != 0
        )
        for name in ("reasoning_content", "tool_calls"):
            if message.get(name):
                yield f"{message['role']}, {name}: {message[name]}", learnt
        yield f"{message['role']}: {message['content']}", learnt


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text)} characters)"


def show_formats() -> None:
    """Print the formats, and which columns each of them reads."""
    from rich.markup import escape
    from rich.table import Table

    from plumbline.terminal import Terminal

    table = Table("format", "what it is", "columns", box=None, pad_edge=False)
    for form in FORMATS.values():
        table.add_row(form.name, escape(form.about), escape(", ".join(_columns(form, "{}"))))
    Terminal().print(table)


def formats_as_markdown() -> str:
    """Return the tables of formats and parts for docs/formats.md."""
    lines = ["| format | what it is | columns by part |", "|---|---|---|"]
    for form in FORMATS.values():
        columns = "; ".join(_columns(form, "`{}`"))
        lines.append(f"| `{form.name}` | {form.about} | {columns} |")
    lines += ["", "| part | what it is |", "|---|---|"]
    lines += [f"| `{part.name}` | {part.about} |" for part in PARTS.values()]
    return "\n".join(lines)


def _columns(form: Format, style: str) -> Iterator[str]:
    """Yield each part with the columns that may hold it; those that mark the format in front."""
    shown = [part for part in form.columns if part in PARTS or part in form.marks]
    for part in sorted(shown, key=lambda part: part not in form.marks):
        names = ", ".join(style.format(name) for name in form.columns[part])
        yield f"{part}{'' if part in form.marks else ' (optional)'}: {names}"
