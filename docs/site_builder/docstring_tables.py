"""Tables in docstrings, for the site: columns below lines of ``====`` become Markdown tables.

Docstrings write tables as they read well in an editor::

    ============  ======================
    file          what it holds
    ============  ======================
    config.yaml   every setting
    ============  ======================
"""

from __future__ import annotations

import re
from typing import Any

import griffe

from site_builder.pages import table

_RULE = re.compile(r"=+( +=+)+")


class DocstringTables(griffe.Extension):
    """Rewrites the tables in every docstring that griffe reads."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = with_markdown_tables(obj.docstring.value)


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
