"""Whatever can show a bar: a `Reporter` on a terminal, a `Stage` in a run, or nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from plumbline.runs.progress import Bar, Reporter


class Bars(Protocol):
    """Shows how far long work has come."""

    def bar(self, description: str, total: int) -> AbstractContextManager[Bar]:
        """Show a bar while the block runs."""
        ...


SILENT: Bars = Reporter(quiet=True)
