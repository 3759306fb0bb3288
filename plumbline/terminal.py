"""What is shown on a terminal: texts from anywhere, in which nothing is obeyed.

A terminal obeys control characters: a text could clear the screen, change the window's title, or
write one thing and show another. They are shown as escapes, here and in reports.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment
from rich.table import Column

#: What a terminal would obey, or what changes the order in which a text is shown; and half a
#: character, which no terminal can be sent.
_INVISIBLE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
    "\ud800-\udfff]"
)


def visible(text: str) -> str:
    """Return a text with what cannot be seen shown as escapes; line ends stay."""
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def column_to_copy(title: str, texts: Iterable[str], console: Console) -> Column:
    """Return a table's column for names that a reader copies.

    Each name stays on one line, unless the longest takes more than half of the terminal.
    """
    longest = max((len(line) for text in texts for line in text.splitlines()), default=0)
    return Column(title, overflow="fold", no_wrap=longest <= console.width // 2)


class Terminal(Console):
    """A console that shows control characters in what it prints, and obeys its own alone."""

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """Yield the segments of something to print."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)
