"""Doubtful rows out to people, and their corrections back.

The folder of a set of corrections holds ``rows.jsonl`` (what was sent), ``corrections.json`` (where
it is on the server) and the journal ``answers.jsonl``, to which every version of every answer is
appended. Sending and fetching can be repeated at any time: nothing is sent or taken twice.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from annotation.argilla.api import PUSH_PAGE, Answer, Argilla, User
from annotation.campaign.datasets import users_called
from annotation.campaign.ledger import Ledger
from annotation.corrections.form import (
    ANSWER,
    ANSWERED,
    ASKED,
    QUESTION,
    corrected,
    form,
    item_of,
    shown,
)
from annotation.names import check_campaign_name
from annotation.private_files import write_private
from plumbline.data.records import Row, as_json_lines
from plumbline.errors import ConfigError, DataError
from plumbline.runs.artifacts import read_json

STATE, ROWS, ANSWERS = "corrections.json", "rows.jsonl", "answers.jsonl"
KEY = "plumbline_corrections"
"""Where a dataset's metadata names the set of corrections that made it."""


class Sent(NamedTuple):
    """The result of sending: rows that were new, and all rows of these corrections."""

    new: int
    total: int


@dataclass(frozen=True)
class Fetched:
    """What people made of the rows."""

    rows: list[Row]
    """Corrected and confirmed ones, in the order in which they were sent."""
    counts: Mapping[str, int]
    """Rows by outcome: corrected, confirmed, discarded, open."""


def corrections_folder(home: Path, name: str) -> Path:
    """Return the folder of a set of corrections, by the site's folder and the name."""
    return home / "corrections" / check_campaign_name(name)


def send(folder: Path, site: Argilla, rows: Sequence[Row], *, members: Sequence[str] = ()) -> Sent:
    """Send the rows that a set of corrections does not have yet; start it if there is none.

    All who are in its workspace, named like the folder, share one queue; each row is corrected
    once. ``members`` are added to the workspace.
    """
    people = users_called(site, members)  # nothing is made for people who do not exist
    _make(folder)
    with _lock(folder):
        return _send(folder, site, rows, people.values())


def _send(folder: Path, site: Argilla, rows: Sequence[Row], people: Iterable[User]) -> Sent:
    state = _start(folder, site)
    workspace = site.workspaces().get(folder.name) or site.create_workspace(folder.name)
    for user in people:
        site.add_member(workspace, user)
    metadata = {
        KEY: state["id"],
        "plumbline": {"page": {"campaign": folder.name, "kind": "corrections", "markdown": False}},
    }
    dataset = site.create_dataset(workspace, folder.name, 1, form(), metadata)
    if dataset.metadata.get(KEY) != state["id"]:
        raise ConfigError(
            f"The workspace {folder.name!r} on {site.url} has a dataset of that name which does "
            "not belong to these corrections. Use another name, or the folder it was sent from."
        )
    if not dataset.published:
        site.publish(dataset, form())
    all_rows = _rows(folder) | {item_of(row): row for row in rows}
    write_private(folder / ROWS, as_json_lines(all_rows.values()))
    write_private(folder / STATE, json.dumps({**state, "dataset": dataset.id}) + "\n")
    there = site.item_ids(dataset.id)
    missing = [(item, shown(row)) for item, row in all_rows.items() if item not in there]
    ids = site.question_ids(dataset.id)
    for start in range(0, len(missing), PUSH_PAGE):
        page = missing[start : start + PUSH_PAGE]
        # Argilla's own page starts from suggestions; ours from the fields.
        suggestions = {
            item: {ids[QUESTION]: fields[ASKED], ids[ANSWER]: fields[ANSWERED]}
            for item, fields in page
        }
        site.send(dataset.id, page, suggestions)
    return Sent(len(missing), len(all_rows))


def fetch(folder: Path, site: Argilla) -> Fetched:
    """Add to the journal what the server has, and return the rows as people left them."""
    dataset = _state(folder).get("dataset")
    if dataset is None or dataset not in {entry.id for entry in site.datasets()}:
        raise DataError(
            f"{site.url} does not show the dataset of the corrections in {folder}. It may be "
            "another server, or somebody deleted it. What was fetched before is safe in "
            f"{folder / ANSWERS}: '--offline' gives it without the server."
        )
    with _lock(folder):
        ledger = Ledger(folder / ANSWERS, writing=True)
        for page in site.answers(dataset):
            ledger.append(page)
        ledger.accept_length()
        return outcome(_rows(folder), ledger.current())


def fetched_before(folder: Path) -> Fetched:
    """Return the rows as people left them when they were last fetched, without the server."""
    _state(folder)
    with _lock(folder):
        ledger = Ledger(folder / ANSWERS)
        if ledger.lost_bytes:
            raise DataError(
                f"{ledger.path} is {ledger.lost_bytes} bytes shorter than it once was, so answers "
                "are missing. Leave out --offline to get them from the server again."
            )
        return outcome(_rows(folder), ledger.current())


def outcome(rows: Mapping[str, Row], answers: Sequence[Answer]) -> Fetched:
    """Return rows as people left them; of several answers to one the latest counts."""
    latest: dict[str, Answer] = {}
    for answer in sorted(answers, key=lambda answer: (answer.changed_at, answer.id)):
        if answer.item in rows and answer.status in ("submitted", "discarded"):
            latest[str(answer.item)] = answer
    kept: list[Row] = []
    counts: Counter[str] = Counter()
    for item, row in rows.items():
        reply = latest.get(item)
        if reply is None:
            counts["open"] += 1
        elif reply.status == "discarded":
            counts["discarded"] += 1
        else:
            kept.append(corrected(row, reply.values))
            counts[kept[-1]["review"]] += 1
    return Fetched(kept, dict(counts))


def _make(folder: Path) -> None:
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    for private in (folder.parent, folder):
        private.mkdir(exist_ok=True, mode=0o700)


def _lock(folder: Path) -> FileLock:
    """Return a lock: those who send or fetch at once take turns, so that no row is lost."""
    return FileLock(folder / ".lock", mode=0o600)


def _start(folder: Path, site: Argilla) -> dict[str, Any]:
    """Return the state of a set of corrections, a new one where there is none."""
    if (folder / STATE).exists():
        return _state(folder)
    state = {"id": secrets.token_hex(8), "server": site.url}
    write_private(folder / STATE, json.dumps(state) + "\n")
    return state


def _state(folder: Path) -> dict[str, Any]:
    if not (folder / STATE).exists():
        others = sorted(file.parent.name for file in folder.parent.glob(f"*/{STATE}"))
        there = f" There are: {', '.join(others)}." if others else ""
        raise DataError(
            f"There are no corrections in {folder}.{there} "
            "'plumbline annotate correct' starts some."
        )
    return dict(read_json(folder / STATE))


def _rows(folder: Path) -> dict[str, Row]:
    if not (folder / ROWS).exists():
        return {}
    lines = (folder / ROWS).read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    return {item_of(row): row for row in rows}
