"""Simulated labellers who work through the server: they sign in, read what is shown, and answer.

They judge by what a record shows, as `annotation.sources.simulated_labels` describes, and by
nothing else: they cannot tell a gold item or a repeat from any other pair.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from filelock import FileLock

from annotation.argilla.api import Argilla
from annotation.argilla.client import PATIENCE_SECONDS, RefusedError
from annotation.argilla.labeler_client import LabelerClient, ShownRecord
from annotation.campaign.datasets import CAMPAIGN_KEY
from annotation.campaign.folder import Campaign
from annotation.private_files import write_private
from annotation.questions.answers import simulate_answer
from annotation.questions.form import PROMPT, RESPONSE_A, RESPONSE_B
from annotation.questions.form_config import FormConfig
from annotation.questions.question import Judgment
from annotation.sources.config import LabelerConfig
from annotation.sources.simulated_labels import probability_of_a, reason_for
from plumbline.errors import ConfigError
from plumbline.hooks import Scorer
from plumbline.seeds import rng

_CREDENTIALS = "simulated.json"


@dataclass(frozen=True)
class Credentials:
    """The name and password of an account."""

    name: str
    password: str = field(repr=False)


def create_accounts(site: Argilla, home: Path, names: Sequence[str]) -> list[Credentials]:
    """Give simulated labellers accounts; return the names and passwords.

    The passwords are kept in ``home``, for all campaigns. An account whose password is not there
    belongs to a person, and no simulation may sign in under that name.
    """
    file = home / _CREDENTIALS
    existing = {user.name for user in site.users()}
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(home / f".{_CREDENTIALS}.lock", mode=0o600):  # several campaigns may begin
        passwords: dict[str, str] = json.loads(file.read_text("utf-8")) if file.exists() else {}
        taken = sorted((set(names) & existing) - set(passwords))
        if taken:
            raise ConfigError(
                f"{', '.join(taken)} can sign in to {site.url} already. Give the simulated "
                "labellers other names."
            )
        passwords |= {name: secrets.token_urlsafe(24) for name in names if name not in passwords}
        write_private(file, json.dumps(passwords, indent=2) + "\n")
    for name in names:
        if name not in existing:
            try:
                site.create_user(name, passwords[name])
            except RefusedError as error:
                if error.status != 409:  # it was made, but the reply was lost
                    raise
    return [Credentials(name, passwords[name]) for name in names]


@dataclass
class SimulatedLabeler:
    """One simulated labeller, signed in to a server."""

    url: str
    credentials: Credentials
    config: LabelerConfig
    questions: FormConfig
    utility: Scorer
    seed: int
    campaign_id: str
    patience: float = PATIENCE_SECONDS
    answered: int = 0
    _times_seen: Counter[str] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        """The name of the account."""
        return self.credentials.name

    def work(self, stop: threading.Event, thinking: threading.Lock) -> None:
        """Answer what is in the queue until it is empty, or until ``stop`` is set."""
        client = self._sign_in()
        try:
            while not stop.is_set():
                try:
                    if not self._answer_page(client, stop, thinking):
                        return
                except RefusedError as error:
                    if error.status != 401:
                        raise
                    client.close()  # signed out meanwhile
                    client = self._sign_in()
        finally:
            client.close()

    def _sign_in(self) -> LabelerClient:
        name, password = self.credentials.name, self.credentials.password
        return LabelerClient.sign_in(self.url, name, password, patience=self.patience)

    def _answer_page(
        self, client: LabelerClient, stop: threading.Event, thinking: threading.Lock
    ) -> int:
        """Answer one page of each dataset; return how many answers that were."""
        before = self.answered
        for dataset in client.datasets():
            if dataset.metadata.get(CAMPAIGN_KEY) != self.campaign_id:
                continue
            records, _ = client.queue(dataset.id)
            if not records:
                continue
            kinds = client.question_kinds(dataset.id)
            with thinking:  # a scorer may not be able to serve several callers at once
                answers = [self.judge(record, kinds) for record in records]
            for record, values in zip(records, answers, strict=True):
                if stop.is_set():
                    break
                client.submit(record.id, values)
                self.answered += 1
        return self.answered - before

    def judge(self, record: ShownRecord, kinds: Mapping[str, str]) -> dict[str, Any]:
        """Return the answer to what a record shows; ``kinds`` are those of its questions."""
        prompt, a, b = (record.fields[name] for name in (PROMPT, RESPONSE_A, RESPONSE_B))
        utilities = self.utility.score([prompt, prompt], [a, b])
        p_a = probability_of_a(self.config, (utilities[0], a), (utilities[1], b))
        # The same pair shown again is judged again, not remembered.
        text = json.dumps([prompt, sorted((a, b))], ensure_ascii=False)
        showing = hashlib.sha256(text.encode()).hexdigest()
        self._times_seen[showing] += 1
        random = rng(self.seed, "answers", self.name, showing, self._times_seen[showing])
        # Drawn for the side whose text sorts first, so that the sides' order decides nothing.
        sides: tuple[Literal["a", "b"], Literal["a", "b"]] = ("a", "b") if a <= b else ("b", "a")
        p_first = p_a if a <= b else 1 - p_a
        choice = sides[0] if random.random() < p_first else sides[1]
        chosen, other = (a, b) if choice == "a" else (b, a)
        judgment = Judgment(
            choice,
            p_a if choice == "a" else 1 - p_a,
            reason_for(self.utility, prompt, chosen, other),
        )
        values = simulate_answer(judgment, self.questions, random)
        return {name: _as_kind(values[name], kinds[name]) for name in values if name in kinds}


def _as_kind(value: Any, kind: str) -> Any:
    """Return a value as its question stores it: older datasets ask for the strength as a rating."""
    return int(value) if kind == "rating" else value


def simulate_team(
    campaign: Campaign,
    site: Argilla,
    home: Path,
    labelers: Sequence[LabelerConfig],
    utility: Scorer | None,
    seed: int,
) -> SimulatedTeam:
    """Return simulated labellers of a campaign, with accounts."""
    if utility is None:
        raise ConfigError("Simulated labellers need a utility to judge by, but got none.")
    accounts = create_accounts(site, home, [labeler.name for labeler in labelers])
    return SimulatedTeam(
        [
            SimulatedLabeler(
                site.url,
                account,
                labeler,
                campaign.config,
                utility,
                seed,
                campaign.id,
                patience=site.patience,
            )
            for account, labeler in zip(accounts, labelers, strict=True)
        ]
    )


class SimulatedTeam:
    """Simulated labellers who work at the same time, while the block runs."""

    def __init__(self, labelers: Sequence[SimulatedLabeler]) -> None:
        self.labelers = labelers
        self._stop = threading.Event()
        self._thinking = threading.Lock()
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(labeler,), daemon=True) for labeler in labelers
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self.join()
        if kind is None:
            self.check()

    def join(self) -> None:
        """Wait until none of them has anything left to answer."""
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        """Raise the error that ended the work of one of them."""
        if self._errors:
            raise self._errors[0]

    @property
    def answered(self) -> Mapping[str, int]:
        """How many answers each of them has given."""
        return {labeler.name: labeler.answered for labeler in self.labelers}

    def _run(self, labeler: SimulatedLabeler) -> None:
        try:
            labeler.work(self._stop, self._thinking)
        except BaseException as error:
            self._errors.append(error)
