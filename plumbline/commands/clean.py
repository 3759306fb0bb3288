"""Deleting what stopped stages left in a store."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from plumbline.errors import BusyError
from plumbline.runs import leftovers
from plumbline.runs.leftovers import Leftover
from plumbline.runs.progress import duration, size


def clean(
    console: Console, home: Path, ids: Sequence[str], days: float | None, *, delete: bool
) -> None:
    """List what is left, and delete it where that is asked for.

    ``ids``: only these, also where a run may resume them. ``days``: also what a run may resume, if
    nothing was written in it for so long. What is in use is never deleted.
    """
    listed = leftovers.leftovers(home)
    if ids:
        listed = leftovers.chosen_by(ids, listed)
        used = [left for left in listed if left.in_use]
        if used and delete:
            raise BusyError(
                f"{used[0].id} cannot be deleted: {used[0].kept}. Stop that first, or leave it."
            )
    if not listed:
        console.print(f"Stopped stages left nothing in {escape(str(home))}.")
        return
    oldest = -math.inf if days is None else time.time() - days * 86400
    goes = [
        left
        for left in listed
        if not left.in_use and (ids or left.kept is None or left.changed < oldest)
    ]
    if not delete:
        _list(console, listed)
        room = size(sum(left.bytes for left in goes))
        nothing = (
            "--delete frees nothing: a run may resume each. Name one by its id, or give "
            "--older-than DAYS."
        )
        console.print(f"--delete frees {room}." if goes else nothing)
        return
    freed = 0
    for left in goes:
        if leftovers.delete(left):
            freed += left.bytes
            console.print(f"  {left.id} is deleted.")
        else:
            console.print(f"  {left.id} is being made again, and stays.")
    rest = len(listed) - len(goes)
    more = f" {rest} stay, which plumbline clean lists with the reason." if rest else ""
    console.print(f"{size(freed)} are free again.{more}")


def _list(console: Console, listed: Sequence[Leftover]) -> None:
    whole = [Column(title, overflow="fold") for title in ("id", "stage")]
    table = Table(*whole, "size", "last written", "why it is kept", box=None, pad_edge=False)
    for left in listed:
        table.add_row(
            left.id,
            escape(left.title),
            size(left.bytes),
            f"{duration(max(0.0, time.time() - left.changed))} ago",
            left.kept or "[yellow]nothing resumes it[/yellow]",
        )
    console.print(table)
