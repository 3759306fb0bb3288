"""What was sent, with who has answered it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from annotation.argilla.api import Answer
from annotation.campaign.items import SHARED, Item, is_training


@dataclass
class Showing:
    """An item that was sent, with who has answered or discarded it."""

    item: Item
    wanted: int
    """How many different people should submit it."""
    submitted: set[str] = field(default_factory=set)
    """Ids of the users who submitted it."""
    discarded: set[str] = field(default_factory=set)
    """Ids of the users who discarded it."""

    @property
    def completed(self) -> bool:
        """Whether it has all the answers that it should get."""
        return len(self.submitted) >= self.wanted

    @property
    def set_aside(self) -> bool:
        """Whether the only person who is asked discarded it."""
        return self.item.queue != SHARED and bool(self.discarded) and not self.completed

    @property
    def missing(self) -> int:
        """How many answers it still waits for."""
        return 0 if self.set_aside else max(0, self.wanted - len(self.submitted))

    def is_done_by(self, user: str) -> bool:
        """Return whether somebody has answered or discarded it."""
        return user in self.submitted or user in self.discarded


def showings_of(
    items: Iterable[Item], answers: Iterable[Answer], queues: Collection[str], overlap: int
) -> dict[str, Showing]:
    """Return the items of the queues that were sent, by id, with the current answers.

    The pairs of training rounds are not among them: nobody waits for their answers.
    """
    showings = {
        item.id: Showing(item, overlap if item.queue == SHARED else 1)
        for item in items
        if item.queue in queues and not is_training(item.queue)
    }
    for answer in answers:
        showing = showings.get(answer.item or "")
        if showing is not None and answer.status == "submitted":
            showing.submitted.add(answer.user_id)
        elif showing is not None and answer.status == "discarded":
            showing.discarded.add(answer.user_id)
    return showings


def out_of_reach(showings: Sequence[Showing], members: Collection[str]) -> int:
    """Return how many missing answers of a shared queue none of its members is left to give."""
    return sum(
        max(0, showing.missing - sum(not showing.is_done_by(user) for user in members))
        for showing in showings
    )
