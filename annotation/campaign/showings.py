"""What was sent, with what was said about it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from annotation.campaign.argilla import Answer
from annotation.campaign.items import SHARED, Item


@dataclass
class Showing:
    """An item that was sent, with who has dealt with it."""

    item: Item
    wanted: int
    """How many different people are to submit it."""
    submitted: set[str] = field(default_factory=set)
    """Ids of the users who did."""
    discarded: set[str] = field(default_factory=set)

    @property
    def completed(self) -> bool:
        """Whether it was submitted as often as it should be."""
        return len(self.submitted) >= self.wanted

    @property
    def set_aside(self) -> bool:
        """Whether its one person discarded it, so that nobody else is asked."""
        return self.item.queue != SHARED and bool(self.discarded) and not self.completed

    @property
    def missing(self) -> int:
        """How many answers it waits for."""
        return 0 if self.set_aside else max(0, self.wanted - len(self.submitted))

    def by(self, user: str) -> bool:
        """Tell whether somebody has dealt with it."""
        return user in self.submitted or user in self.discarded


def showings_of(
    items: Iterable[Item], answers: Iterable[Answer], queues: Collection[str], overlap: int
) -> dict[str, Showing]:
    """Return the items of the queues that were sent, by id, with the answers as they stand."""
    shown = {
        item.id: Showing(item, overlap if item.queue == SHARED else 1)
        for item in items
        if item.queue in queues
    }
    for answer in answers:
        found = shown.get(answer.item or "")
        if found is not None and answer.status == "submitted":
            found.submitted.add(answer.user_id)
        elif found is not None and answer.status == "discarded":
            found.discarded.add(answer.user_id)
    return shown


def out_of_reach(showings: Sequence[Showing], members: Collection[str]) -> int:
    """Return how many missing answers of a shared queue none of its members is left to give."""
    return sum(
        max(0, found.missing - sum(not found.by(user) for user in members)) for found in showings
    )
