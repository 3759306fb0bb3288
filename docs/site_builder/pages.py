"""What the site is made of: pages by their place on the site, and the repository's folders."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

#: The root of the repository.
ROOT = Path(__file__).resolve().parents[2]

#: Packages whose modules have a page in the Python API, in the order of the navigation.
PACKAGES = ("plumbline", "sft", "preference", "annotation", "reward", "rl", "evaluation")

#: Modules that are no interface for Python users: the command line, and what runs elsewhere.
NOT_IN_API = ("plumbline.__main__", "plumbline.commands", "annotation.server.embedded")


@dataclass(frozen=True)
class Page:
    """A page of the site in Markdown."""

    path: str
    """Its place on the site, such as ``settings/dpo_vs_ppo.md``."""
    title: str
    """What the navigation calls it."""
    text: str


class SiteError(Exception):
    """Something on the site is wrong: each line says where, and what."""


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; a vertical bar outside of code is kept as text."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(map(_cell, cells)) + " |"

    return "\n".join([line(header), "|" + " --- |" * len(header), *map(line, rows)])


def reference_table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table whose rows become blocks where the screen is narrow."""
    return f'<div class="reference" markdown>\n\n{table(header, rows)}\n\n</div>'


def _cell(text: str) -> str:
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(part if part.startswith("`") else part.replace("|", "\\|") for part in parts)


def code(value: object) -> str:
    """Return a value as inline code of Markdown; nothing for an empty text."""
    text = str(value)
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}" if text else ""
