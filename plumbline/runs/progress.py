"""What a person sees during a run: stages, progress bars with the time left, metrics as they come.

On a terminal the bars move; elsewhere (a log file, CI) a plain line appears every few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from html import escape
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from plumbline.terminal import Terminal

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_UPDATES = 0.5
#: Columns of a terminal up to which there is no bar beside the numbers.
_NARROW = 100
#: Columns that the numbers take.
_NUMBERS = 42


class Show:
    """Where a bar's state goes: a terminal, a log, or the process that has one of these."""

    def __call__(self, done: int, metrics: str) -> None:
        """Show how far a step has come."""


class Bar:
    """One long step: tell it how far it has come and, if there are any, its metrics."""

    def __init__(self, show: Show) -> None:
        self.show = show
        self._done = 0
        self._metrics = ""

    def advance(self, by: int = 1, metrics: Mapping[str, Any] | None = None) -> None:
        """Note that ``by`` more units are done."""
        self.update(self._done + by, metrics)

    def update(self, done: int, metrics: Mapping[str, Any] | None = None) -> None:
        """Note that ``done`` units are done in total."""
        self._done = done
        if metrics:
            self._metrics = "  ".join(f"{name} {_short(value)}" for name, value in metrics.items())
        self.show(self._done, self._metrics)


class LiveShow(Show):
    """One of the moving bars on a terminal."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def __call__(self, done: int, metrics: str) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=done, metrics=metrics)


class _LineShow(Show):
    """A line in a log every few seconds, with the time left by the steps so far."""

    def __init__(self, console: Console, description: str, total: int) -> None:
        self._console, self._description, self._total = console, description, total
        self._last = time.monotonic()
        self._first: tuple[float, int] | None = None

    def __call__(self, done: int, metrics: str) -> None:
        now = time.monotonic()
        if self._first is None:  # a stage that resumes does not begin at 0
            self._first = now, done
        if now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            text = f"    {self._description} {done}/{self._total}{self._left(now, done)}  {metrics}"
            self._console.print(text.rstrip(), highlight=False)

    def _left(self, now: float, done: int) -> str:
        assert self._first is not None
        began, at = self._first
        if not at < done < self._total:
            return ""
        return f", {duration((now - began) / (done - at) * (self._total - done))} left"


class _NotebookShow(Show):
    """One line below a notebook's cell, which changes in place."""

    def __init__(self, description: str, total: int) -> None:
        from IPython.display import display

        self._description, self._total = description, total
        self._line: Any = display(self._text(0, ""), display_id=True, raw=True)
        self._last = time.monotonic()

    def __call__(self, done: int, metrics: str) -> None:
        now = time.monotonic()
        if done >= self._total or now - self._last >= SECONDS_BETWEEN_UPDATES:
            self._last = now
            self._line.update(self._text(done, metrics), raw=True)

    def _text(self, done: int, metrics: str) -> dict[str, str]:
        text = f"    {self._description} {done}/{self._total}  {metrics}".rstrip()
        bar = f'<progress value="{done}" max="{max(self._total, 1)}"></progress>'
        return {"text/plain": text, "text/html": f"<pre>{bar} {escape(text.strip())}</pre>"}


class Reporter:
    """Prints what a run does. ``quiet`` prints nothing, for use from Python."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self.console = console or Terminal(stderr=False, quiet=quiet, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, highlight=False)

    def within(self) -> Reporter:
        """Return what shows the lines of a stage itself."""
        return self

    @contextmanager
    def bar(self, description: str, total: int) -> Iterator[Bar]:
        """Show a bar while the block runs."""
        if self.console.is_jupyter and not self.console.quiet:
            yield Bar(_NotebookShow(description, total))
            return
        if not self.console.is_terminal:
            yield Bar(_LineShow(self.console, description, total))
            return
        with live_bars(self.console) as progress:
            task = progress.add_task(description, total=total, metrics="")
            yield Bar(LiveShow(progress, task))


class RemoteReporter(Reporter):
    """Sends what a stage says to the process that shows it."""

    def __init__(self, send: Callable[..., None]) -> None:
        super().__init__(quiet=True)
        self._send, self._count = send, 0

    def say(self, text: str) -> None:
        """Send one line."""
        self._send("say", text)

    @contextmanager
    def bar(self, description: str, total: int) -> Iterator[Bar]:
        """Send a bar's beginning, state and end."""
        self._count += 1
        number = self._count
        self._send("bar", number, description, total)
        try:
            yield Bar(_RemoteShow(self._send, number))
        finally:
            self._send("end", number)


class _RemoteShow(Show):
    def __init__(self, send: Callable[..., None], number: int) -> None:
        self._send, self._number = send, number

    def __call__(self, done: int, metrics: str) -> None:
        self._send("update", self._number, done, metrics)


class EventPlayer:
    """Shows what a stage says elsewhere."""

    def __init__(self, reporter: Reporter, bars: ExitStack) -> None:
        self._reporter, self._bars = reporter, bars
        self._shown: dict[int, tuple[Bar, ExitStack]] = {}

    def play(self, event: str, *content: Any) -> None:
        """Show one event of a `RemoteReporter`."""
        if event == "say":
            self._reporter.say(content[0])
        elif event == "bar":
            number, description, total = content
            stack = self._bars.enter_context(ExitStack())
            bar = stack.enter_context(self._reporter.bar(description, total))
            self._shown[number] = (bar, stack)
        elif event == "update":
            number, done, metrics = content
            self._shown[number][0].show(done, metrics)
        elif event == "end":
            self._shown.pop(content[0])[1].close()

    def close(self) -> None:
        """Take all bars away: what they showed has ended."""
        for _, stack in self._shown.values():
            stack.close()
        self._shown.clear()


def live_bars(console: Console) -> Progress:
    """Return the display of moving bars.

    How far it has come and the time left are whole on any terminal: a narrow one has no bar,
    descriptions are cut where they would push them out, and metrics have the room that is left.
    """
    bar = [BarColumn(bar_width=24)] if console.width > _NARROW else []
    longest = max(console.width - _NUMBERS - sum(25 for _ in bar), 8)
    described = Column(no_wrap=True, overflow="ellipsis", max_width=longest)
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (
        TextColumn("   "),
        SpinnerColumn(),
        TextColumn("{task.description}", table_column=described),
        *bar,
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[metrics]}", table_column=rest),
    )
    return Progress(*columns, console=console, transient=True, expand=True)


def duration(seconds: float) -> str:
    """Return a duration as people write it: ``0.4 s``, ``35 s``, ``2 min 05 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def size(count: float) -> str:
    """Return a number of bytes in the largest fitting binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit in ("B", "KiB") else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
