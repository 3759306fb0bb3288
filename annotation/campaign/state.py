"""A campaign's folder: what was decided, what was sent, and where it lies on the server.

====================  ==========================================================================
``campaign.json``     its config, the server's address and the datasets there; no secrets
``secret``            makes item ids and pseudonyms; whoever has it can undo both
``pairs.jsonl``       what the pairs say
``items.jsonl``       every showing: pair, queue, side, purpose, known answer
``left_out.jsonl``    pairs that nobody is asked about, with the reason
``labels.jsonl``      the journal of answers (see `annotation.campaign.ledger`)
``pulled.json``       up to where each dataset was read
``people.json``       user ids and names, for whoever runs the campaign
====================  ==========================================================================

The folder is readable by its owner alone. Every file but the journal is replaced as a whole or not
at all, so that a process that is killed leaves the old one or the new one.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from annotation.campaign.config import CampaignConfig
from annotation.campaign.items import Item
from annotation.campaign.ledger import Ledger
from annotation.campaign.pairs import Pair
from annotation.private_files import write_private
from plumbline.data.records import Row
from plumbline.errors import BusyError, ConfigError, DataError
from plumbline.runs.artifacts import read_json, write_json

CAMPAIGN, SECRET, PAIRS, ITEMS, LEFT_OUT = (
    "campaign.json",
    "secret",
    "pairs.jsonl",
    "items.jsonl",
    "left_out.jsonl",
)
LABELS, PULLED, PEOPLE = "labels.jsonl", "pulled.json", "people.json"
_VERSION = 1
_FIXED = (
    "name", "workspace", "strength", "rationale", "aspects", "flags", "markdown", "show_votes",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a queue lies on the server."""

    dataset_id: str
    dataset: str
    workspace: str


class Campaign:
    """One campaign, as it lies on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = folder / CAMPAIGN
        if not file.exists():
            near = sorted(found.parent.name for found in folder.parent.glob(f"*/{CAMPAIGN}"))
            there = f"; beside it there are {', '.join(near)}" if near else ""
            raise DataError(
                f"There is no campaign in {folder}{there}. 'plumbline annotate push' starts one."
            )
        state = read_json(file)
        if state.get("version") != _VERSION:
            raise DataError(
                f"{file} is of version {state.get('version')!r}; this Plumbline reads "
                f"version {_VERSION}."
            )
        self.id: str = state["id"]
        self.server: str = state["server"]
        self.config = CampaignConfig.model_validate_json(json.dumps(state["config"]))
        self.places = {queue: Place(**place) for queue, place in state["places"].items()}
        self.guidelines: str = state["guidelines"]

    @classmethod
    def start(cls, folder: Path, config: CampaignConfig, server: str, guidelines: str) -> Campaign:
        """Open a campaign, or start one, with this config from now on.

        Raises `ConfigError` where the config would change what people have already been asked.
        """
        folder.parent.parent.mkdir(parents=True, exist_ok=True)
        for private in (folder.parent, folder):  # mkdir's mode is not that of parents it makes
            private.mkdir(exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        if not (folder / SECRET).exists():
            write_private(folder / SECRET, secrets.token_hex(32) + "\n")
        if not (folder / CAMPAIGN).exists():
            write_json(
                folder / CAMPAIGN,
                {
                    "version": _VERSION,
                    "id": secrets.token_hex(8),
                    "server": server,
                    "config": config.model_dump(mode="json"),
                    "places": {},
                    "guidelines": guidelines,
                },
            )
            return cls(folder)
        campaign = cls(folder)
        campaign._change_to(config)
        campaign.server = server
        campaign.save()
        return campaign

    def _change_to(self, config: CampaignConfig) -> None:
        old, new = self.config, config
        fixed = list(_FIXED) + ([] if new.people else ["overlap"])
        changed = [
            f"{name} from {getattr(old, name)!r} to {getattr(new, name)!r}"
            for name in fixed
            if getattr(old, name) != getattr(new, name)
        ]
        if bool(old.people) != bool(new.people):
            changed.append(f"people from {old.people!r} to {new.people!r}")
        if changed:
            raise ConfigError(
                f"The campaign in {self.folder} has begun, and this would change "
                f"{'; '.join(changed)}. Answers from before and after could not be compared: set "
                "it back, or start another campaign under another name."
            )
        self.config = config

    def save(self) -> None:
        """Write ``campaign.json``."""
        write_json(
            self.folder / CAMPAIGN,
            {
                "version": _VERSION,
                "id": self.id,
                "server": self.server,
                "config": self.config.model_dump(mode="json"),
                "places": {queue: asdict(place) for queue, place in self.places.items()},
                "guidelines": self.guidelines,
            },
        )

    @contextmanager
    def lock(self, work: Literal["push", "pull"]) -> Iterator[None]:
        """Let no other process push, or pull, meanwhile. Pushing and pulling may go together."""
        lock = FileLock(self.folder / f".{work}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BusyError(
                f"Another process has begun to {work} the campaign in {self.folder}. Wait for "
                "it; the same command then goes on from there."
            ) from None
        with lock:
            yield

    @property
    def secret(self) -> bytes:
        """The secret that ids and pseudonyms are made with."""
        return bytes.fromhex((self.folder / SECRET).read_text(encoding="ascii").strip())

    def items(self) -> list[Item]:
        """Return all showings, in the order in which they are to be shown."""
        return [Item(**row) for row in _read_lines(self.folder / ITEMS)]

    def pairs(self) -> dict[str, Pair]:
        """Return the pairs by id."""
        return {
            row["pair_id"]: Pair(row["pair_id"], row["prompt"], row["a"], row["b"])
            for row in _read_lines(self.folder / PAIRS)
        }

    def add(self, pairs: Iterable[Pair], items: Sequence[Item]) -> None:
        """Add pairs and the showings decided for them; both are there, or neither."""
        texts = {pair.id: pair for pair in pairs} | self.pairs()
        _write_lines(self.folder / PAIRS, [pair.to_json() for pair in texts.values()])
        # The items come last: pairs without items are nothing but a few lines too many.
        _write_lines(self.folder / ITEMS, [item.to_json() for item in [*self.items(), *items]])

    def left_out(self) -> list[Row]:
        """Return what was left out, with origin, row number, reason and record."""
        return list(_read_lines(self.folder / LEFT_OUT))

    def leave_out(self, rows: Sequence[Row]) -> int:
        """Note what is left out; return how many of these were not noted before."""
        there = self.left_out()
        known = {json.dumps([row["reason"], row["record"]], sort_keys=True) for row in there}
        new = [
            row
            for row in json.loads(json.dumps(list(rows), default=str))
            if json.dumps([row["reason"], row["record"]], sort_keys=True) not in known
        ]
        if new:
            _write_lines(self.folder / LEFT_OUT, [*there, *new])
        return len(new)

    def ledger(self, *, writing: bool = False) -> Ledger:
        """Open the journal of answers; for writing, under the lock alone."""
        return Ledger(self.folder / LABELS, writing=writing)

    def pulled(self) -> dict[str, str]:
        """Return the state in which each dataset was when it was last read to the end."""
        return dict(_read_or_empty(self.folder / PULLED))

    def note_pulled(self, pulled: Mapping[str, str]) -> None:
        """Note the state in which datasets were read."""
        write_json(self.folder / PULLED, dict(pulled))

    def people(self) -> dict[str, str]:
        """Return the names of the people who answered, by user id, as far as they are known."""
        return dict(_read_or_empty(self.folder / PEOPLE))

    def note_people(self, people: Mapping[str, str]) -> None:
        """Keep names, also of people whose accounts go."""
        write_json(self.folder / PEOPLE, self.people() | dict(people))


def campaigns(home: Path) -> list[Path]:
    """Return the folders of the campaigns in a folder."""
    return sorted(file.parent for file in home.glob(f"*/{CAMPAIGN}"))


def _read_or_empty(file: Path) -> Mapping[str, str]:
    found: Mapping[str, str] = read_json(file) if file.exists() else {}
    return found


def _read_lines(file: Path) -> Iterator[dict[str, Any]]:
    if file.exists():
        with file.open(encoding="utf-8") as stream:
            for line in stream:
                yield json.loads(line)


def _write_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_private(file, text)
