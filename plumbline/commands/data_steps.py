"""Showing the steps of a build, with their settings."""

from __future__ import annotations

import json

from plumbline.config import declared
from sft.cleaning.step import Step
from sft.cleaning.steps import STEPS

_REQUIRED = "(required)"


def show() -> None:
    """Print every step with its settings."""
    from rich.markup import escape

    from plumbline.terminal import Terminal

    console = Terminal()
    for step in STEPS.values():
        console.print(f"[bold]{step.name}[/bold]  {escape(step.about)}", highlight=False)
        for name, kind, default, text in _settings(step):
            head = f"{name}: {kind} = {default}"
            console.print(f"    {escape(head)}\n        [dim]{escape(text)}[/dim]", highlight=False)


def as_markdown() -> str:
    """Return the steps as sections of docs/data.md."""
    return "\n\n".join(_section(step) for step in STEPS.values())


def _section(step: Step) -> str:
    rows = [
        f"| `{name}` | {kind} | {default} | {text} |".replace(" | null", " \\| null")
        for name, kind, default, text in _settings(step)
    ]
    head = f"#### `{step.name}`\n\n{step.about[:1].upper()}{step.about[1:]}."
    if not rows:
        return head
    table = ["| setting | type | default | what it does |", "|---|---|---|---|", *rows]
    return "\n".join([f"{head}\n", *table])


def _settings(step: Step) -> list[tuple[str, str, str, str]]:
    return [
        (
            setting.key,
            setting.type.replace(" | ", " or "),
            setting.default if setting.default == _REQUIRED else _as_json(setting.default),
            setting.documentation,
        )
        for setting in declared(step.settings)
        if setting.key != "step"
    ]


def _as_json(value: object) -> str:
    return f"`{json.dumps(value, ensure_ascii=False, default=str)}`"
