"""Looking at a campaign, once or repeatedly, also while its server restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from annotation.argilla.api import Argilla
from annotation.argilla.client import RefusedError, ServerError
from annotation.campaign.folder import Campaign
from annotation.campaign.items import SHARED
from annotation.campaign.pull import labels_from, pull
from annotation.progress.alarms import AlarmConfig, word_count
from annotation.progress.progress import CampaignProgress, measure_progress
from annotation.progress.quality import CampaignQuality, measure_quality
from plumbline.errors import BusyError

_PEOPLE_SECONDS = 60.0


@dataclass(frozen=True)
class Snapshot:
    """The progress of a campaign at one moment, and why it is not newer."""

    progress: CampaignProgress
    error: ServerError | None = None
    """Why these are the numbers of an earlier pull."""
    pulled_at: datetime | None = None
    """When the server last answered, if it has."""
    changed: bool = True
    """Whether anything was pushed or answered since the snapshot before."""
    lost_bytes: int = 0
    """How much of the journal's end is missing."""

    @property
    def warning(self) -> str | None:
        """Why the numbers may be old or incomplete, or None."""
        if self.lost_bytes:
            return (
                f"The journal of answers has lost its last {self.lost_bytes} bytes. Labels are "
                "missing until 'plumbline annotate pull' gets them from the server again."
            )
        if self.error is None:
            return None
        when = f" at {self.pulled_at.astimezone():%H:%M:%S}" if self.pulled_at is not None else ""
        return f"The labelling server does not answer. These numbers are of the last pull{when}."


@dataclass
class ProgressMonitor:
    """Looks at one campaign.

    ``open_site`` is called again after an error: a site may come back under another port.
    """

    folder: Path
    open_site: Callable[[], Argilla]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    alarms: AlarmConfig = field(default_factory=AlarmConfig)
    _site: Argilla | None = None
    _users: dict[str, str] = field(default_factory=dict)
    _members: frozenset[str] | None = None
    _people_asked_at: float | None = None
    _pulled_at: datetime | None = None
    _measured: tuple[tuple[int, int], CampaignQuality] | None = None

    def look(self) -> Snapshot:
        """Pull, and return the progress of the campaign.

        Where the server does not answer, this is the progress at the last pull, with the error.
        Raises `RefusedError` where the server answers and refuses.
        """
        before = self._measured[0] if self._measured is not None else None
        server_error: ServerError | None = None
        try:
            self._pull()
            self._pulled_at = self.now()
        except ServerError as error:
            if isinstance(error, RefusedError) and error.status < 500:
                raise
            server_error = error
            self.close()
        progress = self.last_known()
        after = self._measured[0] if self._measured is not None else None
        lost = Campaign(self.folder).ledger().lost_bytes
        return Snapshot(progress, server_error, self._pulled_at, before != after, lost)

    def follow(self, every: float) -> Iterator[Snapshot]:
        """Look every so many seconds, until nothing is left to answer."""
        while True:
            snapshot = self.look()
            yield snapshot
            if snapshot.progress.finished and snapshot.error is None:
                return
            time.sleep(every)

    def last_known(self) -> CampaignProgress:
        """Return the progress at the last pull, without asking the server."""
        campaign = Campaign(self.folder)
        items, ledger, secret = campaign.items(), campaign.ledger(), campaign.secret
        answers = ledger.current()
        labels = labels_from(answers, items, secret, campaign.config)
        state = len(items), len(ledger)
        if self._measured is None or self._measured[0] != state:
            words = {
                pair.id: word_count(pair.a) + word_count(pair.b)
                for pair in campaign.pairs().values()
            }
            quality = measure_quality(labels.labels, labels.gold, words, self.alarms)
            self._measured = state, quality
        return measure_progress(
            campaign.config.name,
            items,
            answers,
            labels,
            self._measured[1],
            overlap=campaign.config.votes_per_pair,
            queues=campaign.places.keys(),
            users=_names_by_id(campaign.people(), self._users),
            members=self._members,
            secret=secret,
            now=self.now(),
        )

    def close(self) -> None:
        """Close the connection to the server."""
        if self._site is not None:
            self._site.close()
            self._site = None

    def _pull(self) -> None:
        if self._site is None:
            self._site = self.open_site()
        campaign = Campaign(self.folder)
        with suppress(BusyError):  # another process pulls the same answers
            pull(campaign, self._site)
        asked_at = self._people_asked_at
        if asked_at is None or time.monotonic() - asked_at > _PEOPLE_SECONDS:
            self._read_people(campaign, self._site)
            self._people_asked_at = time.monotonic()

    def _read_people(self, campaign: Campaign, site: Argilla) -> None:
        """Read the accounts, and who can see the shared queue, as far as this API key may."""
        place = campaign.places.get(SHARED)
        try:
            self._users = {user.id: user.name for user in site.users()}
        except RefusedError as error:
            if error.status != 403:  # an admin may not see all users
                raise
        if place is None:
            return
        try:
            members = site.members(site.workspaces()[place.workspace])
        except (RefusedError, KeyError) as error:
            if isinstance(error, RefusedError) and error.status not in (403, 404):
                raise
            self._members = None
            return
        # Owners and admins see it too, but are not expected to label.
        labelers = {user.id: user.name for user in members if user.role == "annotator"}
        self._users |= labelers
        self._members = frozenset(labelers)


def _names_by_id(answered: Mapping[str, str], existing: Mapping[str, str]) -> dict[str, str]:
    """Return names by id; accounts that exist now come last, and so keep their plain name."""
    return {user: name for user, name in answered.items() if user not in existing} | dict(existing)
