"""A campaign as it stands, looked at once or again and again, also while its server restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from annotation.campaign.argilla import Argilla
from annotation.campaign.client import RefusedError, ServerError
from annotation.campaign.items import SHARED
from annotation.campaign.pull import labels_from, pull
from annotation.campaign.state import Campaign
from annotation.progress.progress import Standing, standing_of
from annotation.progress.quality import CampaignQuality, measure_quality
from plumbline.errors import BusyError

_PEOPLE_SECONDS = 60.0


@dataclass(frozen=True)
class Look:
    """What was seen, and what kept it from being newer."""

    standing: Standing
    trouble: ServerError | None = None
    """Why these are the figures of an earlier pull."""
    pulled_at: datetime | None = None
    """When the server last answered, if it has."""
    news: bool = True
    """Whether anything was pushed or answered since the look before."""

    @property
    def warning(self) -> str | None:
        """What to say of figures that are not new, or None."""
        if self.trouble is None:
            return None
        when = f" at {self.pulled_at.astimezone():%H:%M:%S}" if self.pulled_at is not None else ""
        return (
            f"The labelling server does not answer; these are the figures of the last pull{when}."
        )


@dataclass
class Overview:
    """Looks at one campaign.

    ``open_site`` is called again after trouble: a site may come back under another port.
    """

    folder: Path
    open_site: Callable[[], Argilla]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _site: Argilla | None = None
    _users: dict[str, str] = field(default_factory=dict)
    _members: frozenset[str] | None = None
    _asked: float | None = None
    _pulled_at: datetime | None = None
    _measured: tuple[tuple[int, int], CampaignQuality] | None = None

    def look(self) -> Look:
        """Pull, and return how far the campaign has come.

        Where the server does not answer, that is what the last pull knew, with the reason. Raises
        `RefusedError` where it answers and refuses.
        """
        before = self._measured[0] if self._measured is not None else None
        trouble: ServerError | None = None
        try:
            self._pull()
            self._pulled_at = self.now()
        except ServerError as error:
            if isinstance(error, RefusedError) and error.status < 500:
                raise
            trouble = error
            self.close()
        standing = self.known()
        after = self._measured[0] if self._measured is not None else None
        return Look(standing, trouble, self._pulled_at, news=before != after)

    def follow(self, every: float) -> Iterator[Look]:
        """Look every so many seconds, until nothing waits for anybody."""
        while True:
            look = self.look()
            yield look
            if look.standing.finished and look.trouble is None:
                return
            time.sleep(every)

    def known(self) -> Standing:
        """Return how far the campaign has come by what was pulled, and ask nobody."""
        campaign = Campaign(self.folder)
        items, ledger, secret = campaign.items(), campaign.ledger(), campaign.secret
        answers = ledger.current()
        labels = labels_from(answers, items, secret, campaign.config.aspects)
        state = len(items), len(ledger)
        if self._measured is None or self._measured[0] != state:
            self._measured = state, measure_quality(labels.labels, labels.gold)
        return standing_of(
            campaign.config.name,
            items,
            answers,
            labels,
            self._measured[1],
            overlap=campaign.config.overlap,
            queues=campaign.places.keys(),
            users=_known(campaign.people(), self._users),
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
        with suppress(BusyError):  # somebody else brings the same answers
            pull(campaign, self._site)
        if self._asked is None or time.monotonic() - self._asked > _PEOPLE_SECONDS:
            self._learn_people(campaign, self._site)
            self._asked = time.monotonic()

    def _learn_people(self, campaign: Campaign, site: Argilla) -> None:
        """Ask who there is and who sees the shared queue, as far as this key may know."""
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
        # Owners and admins see it too, but nobody counts on them to label.
        labelers = {user.id: user.name for user in members if user.role == "annotator"}
        self._users |= labelers
        self._members = frozenset(labelers)


def _known(answered: Mapping[str, str], there: Mapping[str, str]) -> dict[str, str]:
    """Return names by id; whoever has an account now comes last, and so bears the name."""
    return {user: name for user, name in answered.items() if user not in there} | dict(there)
