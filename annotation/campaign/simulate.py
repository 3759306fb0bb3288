"""Simulated labellers who work through the server: they sign in, read what is shown, and answer.

They judge by what a record shows, as `annotation.sources.simulated_labels` has it, and by nothing
else: whether a pair is a gold item or a repeat they can tell no more than people can.
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
from typing import Any, Self

from annotation.campaign.argilla import Argilla
from annotation.campaign.client import PATIENCE_SECONDS, RefusedError
from annotation.campaign.labeler_client import Desk, Shown
from annotation.campaign.places import CAMPAIGN_KEY
from annotation.campaign.questions import (
    CHOICE,
    PROMPT,
    RATIONALE,
    RESPONSE_A,
    RESPONSE_B,
    STRENGTH,
)
from annotation.config import LabelerConfig
from annotation.private_files import write_private
from annotation.sources.simulated_labels import probability_of_a, strength_of
from plumbline.errors import ConfigError
from plumbline.hooks import Scorer
from plumbline.seeds import rng

_CREDENTIALS = "simulated.json"


@dataclass(frozen=True)
class Credentials:
    """What somebody signs in with."""

    name: str
    password: str = field(repr=False)


def hire(site: Argilla, home: Path, names: Sequence[str]) -> list[Credentials]:
    """Give simulated labellers accounts; return what they sign in with.

    Their passwords are kept in ``home``, for all campaigns. Somebody whose password is not there
    is a person, and nobody else may sign in under their name.
    """
    file = home / _CREDENTIALS
    known: dict[str, str] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    there = {user.name for user in site.users()}
    taken = sorted((set(names) & there) - set(known))
    if taken:
        raise ConfigError(
            f"{', '.join(taken)} can sign in to {site.url} already. Give the simulated labellers "
            "other names."
        )
    known |= {name: secrets.token_urlsafe(24) for name in names if name not in known}
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(file, json.dumps(known, indent=2) + "\n")
    for name in names:
        if name not in there:
            try:
                site.create_user(name, known[name])
            except RefusedError as error:
                if error.status != 409:  # made, but the answer was lost
                    raise
    return [Credentials(name, known[name]) for name in names]


class Labeler:
    """One simulated labeller at their desk."""

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        config: LabelerConfig,
        utility: Scorer,
        seed: int,
        campaign_id: str,
        *,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.name = credentials.name
        self.answered = 0
        self._url, self._credentials, self._patience = url, credentials, patience
        self._config, self._utility, self._seed = config, utility, seed
        self._campaign_id = campaign_id
        self._times_seen: Counter[str] = Counter()

    def work(self, stop: threading.Event, thinking: threading.Lock) -> None:
        """Answer what is in the queue until it is empty, or until told to stop."""
        desk = self._sign_in()
        try:
            while not stop.is_set():
                try:
                    if not self._answer_some(desk, stop, thinking):
                        return
                except RefusedError as error:
                    if error.status != 401:
                        raise
                    desk.close()  # signed out meanwhile
                    desk = self._sign_in()
        finally:
            desk.close()

    def _sign_in(self) -> Desk:
        name, password = self._credentials.name, self._credentials.password
        return Desk.sign_in(self._url, name, password, patience=self._patience)

    def _answer_some(self, desk: Desk, stop: threading.Event, thinking: threading.Lock) -> int:
        """Answer one page of each dataset; return how many answers that were."""
        before = self.answered
        for dataset in desk.datasets():
            if dataset.metadata.get(CAMPAIGN_KEY) != self._campaign_id:
                continue
            records, _ = desk.queue(dataset.id)
            if not records:
                continue
            asked = desk.questions(dataset.id)
            with thinking:  # a scorer need not bear several callers at once
                answers = [self.judge(record, asked) for record in records]
            for record, values in zip(records, answers, strict=True):
                if stop.is_set():
                    break
                desk.submit(record.id, values)
                self.answered += 1
        return self.answered - before

    def judge(self, record: Shown, asked: set[str]) -> dict[str, Any]:
        """Return the answer to what a record shows."""
        prompt, a, b = (record.fields[name] for name in (PROMPT, RESPONSE_A, RESPONSE_B))
        utilities = self._utility.score([prompt, prompt], [a, b])
        p_a = probability_of_a(self._config, (utilities[0], a), (utilities[1], b))
        # The same pair shown again is judged again, not remembered.
        text = json.dumps([prompt, sorted((a, b))], ensure_ascii=False)
        showing = hashlib.sha256(text.encode()).hexdigest()
        self._times_seen[showing] += 1
        random = rng(self._seed, "answers", self.name, showing, self._times_seen[showing])
        # Drawn for the side whose text sorts first, so that the sides' order decides nothing.
        p_first, first, other = (p_a, "a", "b") if a <= b else (1 - p_a, "b", "a")
        choice = first if random.random() < p_first else other
        values: dict[str, Any] = {CHOICE: choice}
        if STRENGTH in asked:
            values[STRENGTH] = strength_of(p_a if choice == "a" else 1 - p_a)
        if RATIONALE in asked:
            values[RATIONALE] = self._rationale(prompt, a, b, choice)
        return values

    def _rationale(self, prompt: Any, a: str, b: str, choice: str) -> str:
        explain = getattr(self._utility, "explain", None)
        if explain is None:
            return "It reads better to me."
        mine, theirs = (explain(prompt, text) for text in ((a, b) if choice == "a" else (b, a)))
        lead: dict[str, float] = {name: mine[name] - theirs[name] for name in mine}
        best = max(lead, key=lambda name: lead[name])
        return f"Better on {best}." if lead[best] > 0 else "Hard to say; it reads better to me."


class Workforce:
    """Simulated labellers at work, all at once, while the block runs."""

    def __init__(self, labelers: Sequence[Labeler]) -> None:
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
        """Wait until all of them have nothing left to do."""
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        """Raise what ended the work of one of them."""
        if self._errors:
            raise self._errors[0]

    @property
    def answered(self) -> Mapping[str, int]:
        """How many answers each has given."""
        return {labeler.name: labeler.answered for labeler in self.labelers}

    def _run(self, labeler: Labeler) -> None:
        try:
            labeler.work(self._stop, self._thinking)
        except BaseException as error:
            self._errors.append(error)
