"""What mkdocstrings does not read by itself: tables in docstrings, and comments of variables.

Docstrings write tables as they read well in an editor, with columns below lines of ``====``; on the
site they are Markdown tables. A variable's documentation is the ``#:`` comment above it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import griffe

from site_builder.pages import table

_RULE = re.compile(r"=+( +=+)+")


class Docstrings(griffe.Extension):
    """Completes what griffe reads from the source."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        """Document a variable by the comment above it."""
        if attr.docstring is None and attr.lineno and isinstance(attr.filepath, Path):
            lines = attr.filepath.read_text(encoding="utf-8").split("\n")
            if text := comment_above(lines, attr.lineno):
                attr.docstring = griffe.Docstring(text, parent=attr)

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the tables in a docstring."""
        if obj.docstring is not None:
            obj.docstring.value = with_markdown_tables(obj.docstring.value)


def comment_above(lines: Sequence[str], number: int) -> str:
    """Return the ``#:`` comment that ends above a line, which counts from 1."""
    found: list[str] = []
    for line in reversed(lines[: number - 1]):
        if not line.strip().startswith("#:"):
            break
        found.insert(0, line.strip().removeprefix("#:").strip())
    return "\n".join(found)


def with_markdown_tables(text: str) -> str:
    """Return a docstring whose tables are Markdown. A table without a header gets an empty one."""
    done: list[str] = []
    lines = text.split("\n")
    while lines:
        line = lines.pop(0)
        if not _RULE.fullmatch(line.strip()):
            done.append(line)
            continue
        starts = [match.start() for match in re.finditer("=+", line)]
        parts: list[list[list[str]]] = [[]]
        while lines and lines[0].strip():
            row = lines.pop(0)
            if _RULE.fullmatch(row.strip()):
                parts.append([])
            else:
                _add_row(parts[-1], _cells(row, starts))
        header, rows = (parts[0][0], parts[1]) if len(parts) > 2 else ([""] * len(starts), parts[0])
        done += ["", table(header, rows), ""]
    return "\n".join(done)


def _cells(line: str, starts: list[int]) -> list[str]:
    ends = [*starts[1:], None]
    return [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]


def _add_row(rows: list[list[str]], cells: list[str]) -> None:
    """Add a row; one whose first cell is empty continues the row above."""
    if rows and not cells[0]:
        rows[-1] = [" ".join(filter(None, both)) for both in zip(rows[-1], cells, strict=True)]
    else:
        rows.append(cells)
