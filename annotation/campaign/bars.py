"""Progress bars: what a `Reporter` on a terminal and a `Stage` in a run have in common."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from plumbline.runs.progress import Bar, Reporter


class ProgressBars(Protocol):
    """Shows the progress of long work."""

    def bar(self, description: str, total: int) -> AbstractContextManager[Bar]:
        """Show a bar while the block runs."""
        ...


SILENT: ProgressBars = Reporter(quiet=True)
