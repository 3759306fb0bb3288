"""A campaign's folder: what was decided, what was sent, and where it is on the server.

======================  ========================================================================
``campaign.json``       its settings, the server's address and the datasets there; no secrets
``secret``              makes item ids and pseudonyms; with it, both can be undone
``pairs.jsonl``         the texts of the pairs
``items.jsonl``         every showing: pair, queue, side, purpose, known answer
``training.json``       the answers of the training round, with their explanations
``left_out.jsonl``      pairs that nobody is asked about, each with the reason
``labels.jsonl``        the journal of answers (see `annotation.campaign.ledger`)
``labels-length.json``  the journal's length
``pulled.json``         the state in which each dataset was last read
``people.json``         user ids and names, for the person who runs the campaign
======================  ========================================================================

Only its owner can read the folder. Every file but the journal is replaced as a whole or not at all,
so a process that is killed leaves the old file or the new one.
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
from annotation.names import check_campaign_name
from annotation.private_files import write_private
from plumbline.config.declare import ineffective
from plumbline.data.records import Row, as_json_lines
from plumbline.errors import BusyError, ConfigError, DataError, brief
from plumbline.runs.artifacts import read_json

CAMPAIGN, SECRET, PAIRS, ITEMS, LEFT_OUT = (
    "campaign.json",
    "secret",
    "pairs.jsonl",
    "items.jsonl",
    "left_out.jsonl",
)
LABELS, PULLED, PEOPLE = "labels.jsonl", "pulled.json", "people.json"
TRAINING = "training.json"
_VERSION = 1
_SECRET_BYTES = 32
_FIXED = (
    "name", "workspace", "strength", "rationale", "aspects", "flags", "own_questions",
    "argilla_markdown", "show_votes",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """The dataset of a queue on the server."""

    dataset_id: str
    dataset: str
    workspace: str


class Campaign:
    """One campaign on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = folder / CAMPAIGN
        if not file.exists():
            near = sorted(other.parent.name for other in folder.parent.glob(f"*/{CAMPAIGN}"))
            others = f"; in the same place there are {', '.join(near)}" if near else ""
            raise DataError(
                f"There is no campaign in {folder}{others}. 'plumbline annotate push' starts one."
            )
        state = _read_object(file)
        if state.get("version") != _VERSION:
            raise DataError(
                f"{file} has version {state.get('version')!r}; this Plumbline reads version "
                f"{_VERSION}."
            )
        with _undamaged(file):
            self.id: str = state["id"]
            self.server: str = state["server"]
            self.config = _read_config(state["config"])
            self.places = {queue: Place(**place) for queue, place in state["places"].items()}
            self.guidelines: str = state["guidelines"]

    @classmethod
    def start(cls, folder: Path, config: CampaignConfig, server: str, guidelines: str) -> Campaign:
        """Open a campaign, or start one, with these settings from now on.

        Raises `ConfigError` where they would change what people have already been asked.
        """
        folder.parent.parent.mkdir(parents=True, exist_ok=True)
        for private in (folder.parent, folder):  # mkdir's mode is not that of parents it makes
            private.mkdir(exist_ok=True, mode=0o700)
            private.chmod(0o700)
        if not (folder / SECRET).exists():
            write_private(folder / SECRET, secrets.token_hex(_SECRET_BYTES) + "\n")
        if not (folder / CAMPAIGN).exists():
            _write_json(
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
        old = self.config
        new = config if config.overlap is not None else _with_overlap(config, old.overlap)
        fixed = list(_FIXED) + ([] if new.people else ["overlap"])
        changes = [
            f"{name} from {getattr(old, name)!r} to {getattr(new, name)!r}"
            for name in fixed
            if getattr(old, name) != getattr(new, name)
        ]
        if bool(old.people) != bool(new.people):
            changes.append(f"people from {old.people!r} to {new.people!r}")
        if changes:
            raise ConfigError(
                f"The campaign in {self.folder} has begun, and this would change "
                f"{'; '.join(changes)}. Answers from before and after could not be compared. Set "
                "it back, or start another campaign under another name."
            )
        self.config = new

    def save(self) -> None:
        """Write ``campaign.json``."""
        _write_json(
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
        lock = FileLock(self.folder / f".{work}.lock", mode=0o600)
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            raise BusyError(
                f"Another process has begun to {work} the campaign in {self.folder}. Wait for it; "
                "the same command then resumes."
            ) from None
        with held:
            yield

    @property
    def secret(self) -> bytes:
        """The secret that makes item ids and pseudonyms."""
        file = self.folder / SECRET
        with _undamaged(file):
            secret = bytes.fromhex(file.read_text(encoding="ascii").strip())
            if len(secret) < _SECRET_BYTES:
                raise ValueError(f"it has {len(secret)} bytes, not {_SECRET_BYTES}")
        return secret

    def items(self) -> list[Item]:
        """Return all showings, in the order in which people see them."""
        file = self.folder / ITEMS
        with _undamaged(file):
            return [Item(**row) for row in _read_lines(file)]

    def pairs(self) -> dict[str, Pair]:
        """Return the pairs by id."""
        file = self.folder / PAIRS
        with _undamaged(file):
            return {
                row["pair_id"]: Pair(row["pair_id"], row["prompt"], row["a"], row["b"])
                for row in _read_lines(file)
            }

    def add(self, pairs: Iterable[Pair], items: Sequence[Item]) -> None:
        """Add pairs and the showings decided for them: both, or neither."""
        texts = {pair.id: pair for pair in pairs} | self.pairs()
        _write_lines(self.folder / PAIRS, [pair.to_json() for pair in texts.values()])
        # The items come last: pairs without items do no harm.
        _write_lines(self.folder / ITEMS, [item.to_json() for item in [*self.items(), *items]])

    def training(self) -> dict[str, dict[str, str]]:
        """Return ``answer`` and ``explanation`` of the pairs of the training round, by id."""
        return dict(_read_or_empty(self.folder / TRAINING))

    def add_training(self, answers: Mapping[str, Mapping[str, str]]) -> None:
        """Add pairs to the training round, or change their explanations."""
        if answers:
            _write_json(self.folder / TRAINING, self.training() | dict(answers))

    def left_out(self) -> list[Row]:
        """Return what was left out, with origin, row number, reason and record."""
        file = self.folder / LEFT_OUT
        with _undamaged(file):
            return list(_read_lines(file))

    def leave_out(self, rows: Sequence[Row]) -> int:
        """Note what is left out; return how many of these were not noted before."""
        noted = self.left_out()
        stored = {json.dumps([row["reason"], row["record"]], sort_keys=True) for row in noted}
        new = [
            row
            for row in json.loads(json.dumps(list(rows), default=str))
            if json.dumps([row["reason"], row["record"]], sort_keys=True) not in stored
        ]
        if new:
            _write_lines(self.folder / LEFT_OUT, [*noted, *new])
        return len(new)

    def ledger(self, *, writing: bool = False) -> Ledger:
        """Open the journal of answers; for writing, only under the lock."""
        return Ledger(self.folder / LABELS, writing=writing)

    def pulled(self) -> dict[str, str]:
        """Return the state in which each dataset was when it was last read to the end."""
        return dict(_read_or_empty(self.folder / PULLED))

    def note_pulled(self, pulled: Mapping[str, str]) -> None:
        """Note the state in which datasets were read."""
        _write_json(self.folder / PULLED, dict(pulled))

    def people(self) -> dict[str, str]:
        """Return the names of the people who answered, by user id, as far as they are known."""
        return dict(_read_or_empty(self.folder / PEOPLE))

    def note_people(self, people: Mapping[str, str]) -> None:
        """Keep names, also of people whose accounts are deleted later."""
        _write_json(self.folder / PEOPLE, self.people() | dict(people))


def campaigns(parent: Path) -> list[Path]:
    """Return the folders of the campaigns in a folder."""
    return sorted(file.parent for file in parent.glob(f"*/{CAMPAIGN}"))


def campaign_folder(home: Path, name: str) -> Path:
    """Return the folder of a campaign, by the site's folder and the campaign's name."""
    return home / "campaigns" / check_campaign_name(name)


def _with_overlap(config: CampaignConfig, overlap: int | None) -> CampaignConfig:
    return config.model_copy(update={"overlap": overlap})


def _read_config(stored: Mapping[str, Any]) -> CampaignConfig:
    """Return stored settings; those without effect, which earlier versions accepted, are reset."""
    loading = {"loading": True}
    config = CampaignConfig.model_validate_json(json.dumps(stored), context=loading)
    reset = {path[0] for path, _ in ineffective(config, CampaignConfig, stored)}
    kept = {name: value for name, value in stored.items() if name not in reset}
    return CampaignConfig.model_validate_json(json.dumps(kept), context=loading)


def _read_or_empty(file: Path) -> Mapping[str, Any]:
    return _read_object(file) if file.exists() else {}


def _read_object(file: Path) -> Mapping[str, Any]:
    with _undamaged(file):
        stored = read_json(file)
        if not isinstance(stored, Mapping):
            raise ValueError("it holds no keys and values")
    return stored


@contextmanager
def _undamaged(file: Path) -> Iterator[None]:
    """Turn what a damaged file of a campaign brings about into an error that names it."""
    try:
        yield
    except DataError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        is_said = isinstance(error, ValueError)
        what = " ".join(str(error).split())[:200] if is_said else "it holds something else"
        raise DataError(
            f"{file} is damaged: {what}. Restore it from a backup (plumbline annotate backup), or "
            "start another campaign under another name."
        ) from None


def _write_json(file: Path, value: Any) -> None:
    write_private(file, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _read_lines(file: Path) -> Iterator[dict[str, Any]]:
    if file.exists():
        with file.open(encoding="utf-8") as stream:
            for line in stream:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"{brief(row)} is not a row")
                yield row


def _write_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_private(file, as_json_lines(rows))
