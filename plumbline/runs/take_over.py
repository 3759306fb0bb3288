"""Resuming a training with another number of processes than began it; or saying why none resumes.

Each number has an artefact of its own, since it may read other rows at the end of an epoch, and so
has each way in which they share the weights. Where a training has no checkpoint of its own, it
takes up that of the same training by another number or in another way. Its result is that of an
uninterrupted training up to the order of sums; where passes draw random numbers (dropout, NEFTune),
these are others.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.markup import escape

from plumbline.runs.artifacts import Store, read_json, write_json
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import DONE, PARTS, PLACE

#: The most processes of one training that are looked for.
_MOST = 128
_BEFORE = "processes-before.json"


def take_over(
    store: Store,
    made_id: str,
    id_with: Callable[[int, str | None], str],
    processes: int,
    ways: Sequence[str | None],
    reporter: Reporter,
) -> None:
    """Take up the checkpoint of the same training in another number of processes, if there is one.

    ``id_with`` returns the artefact's id with a number of processes and a way of sharing the
    weights, of which ``ways`` are possible; the present one comes first. One that is being made is
    let alone.
    """
    partial = store.partial(made_id)
    if _has_checkpoint(partial):
        return
    numbers = [(way, number) for way in ways for number in range(1, _MOST + 1)]
    for way, number in numbers:
        other = store.partial(id_with(number, way))
        if other == partial or not _has_checkpoint(other):
            continue
        lock = FileLock(f"{other}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            if not _has_checkpoint(other):  # it was finished, or taken up, just now
                continue
            write_json(other / _BEFORE, [*numbers_before(other), number])
            shutil.rmtree(partial, ignore_errors=True)
            other.rename(partial)
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)  # before who waits for it has it
            lock.release()
        reporter.say(
            f"    resumes with {_processes(processes)} what {_processes(number)} began. From here "
            "on its numbers are those of an uninterrupted training up to the order of sums, but "
            "for what passes draw at random (dropout, NEFTune)"
            + ("." if way == ways[0] else ", and how shared weights are rounded in bfloat16.")
        )
        return


def say_what_stays(store: Store, made_id: str, title: str, reporter: Reporter) -> None:
    """Say where a stage begins from its start whose earlier attempt was stopped.

    What was begun with other settings or data, or by another version of the code, makes something
    else. ``title``: the stage's, with that of its run (`plumbline.runs.stage.PLACE`).
    """
    if _has_checkpoint(store.partial(made_id)):
        return
    left = [
        place.parent
        for place in sorted(store.partial(made_id).parent.glob(f"*/{PLACE}"))
        if place.parent.name != made_id
        and _title_in(place) == title
        and _has_checkpoint(place.parent)
    ]
    if left:
        folders = escape(" and ".join(map(str, left)))
        reporter.say(
            "    begins again from its start: what was made of it before began with other "
            f"settings, data or code. It is left in {folders}; `plumbline clean` lists "
            "such folders, and deletes them with --delete."
        )


def numbers_before(partial: Path) -> list[int]:
    """Return in how many processes a training ran before it continued in another number."""
    file = partial / _BEFORE
    numbers: Any = read_json(file) if file.exists() else []
    return list(numbers)


def _title_in(place: Path) -> object:
    """Return the title in a stage's file about its place; None where it was just deleted."""
    try:
        return read_json(place)["title"]
    except (OSError, ValueError, KeyError):
        return None


def _has_checkpoint(partial: Path) -> bool:
    """Return whether a training, or a part of one such as a member of an ensemble, has got on."""
    places = ("checkpoints/step-*", f"{PARTS}/*/checkpoints/step-*", f"{PARTS}/*/{DONE}")
    with suppress(FileNotFoundError):  # another process has just finished it, or taken it up
        return any(any(partial.glob(place)) for place in places)
    return False


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"
