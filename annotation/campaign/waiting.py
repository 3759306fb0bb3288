"""Waiting until enough is labelled: cheap questions to the server, and labels when there are some.

It may be interrupted and started again: nothing is kept in here that a new start would miss.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from annotation.campaign.argilla import Argilla, Done
from annotation.campaign.bars import SILENT, Bars
from annotation.campaign.config import WaitConfig
from annotation.campaign.items import RESERVE, SHARED
from annotation.campaign.pull import Labels, labels_of, pull
from annotation.campaign.state import Campaign
from annotation.campaign.webhook import Listener
from plumbline.errors import BusyError, DataError

_PULL_SECONDS = 60.0
_GATHER_SECONDS = 0.5
_SLOWER = 6.0


@dataclass
class Watch:
    """How far a campaign has come, asked anew only where something has happened."""

    campaign: Campaign
    site: Argilla
    _counts: dict[str, tuple[str, Done]] = field(default_factory=dict)

    def look(self) -> Mapping[str, Done]:
        """Return how far each queue has come."""
        there = {dataset.id: dataset for dataset in self.site.datasets()}
        for queue, place in self.campaign.places.items():
            dataset = there.get(place.dataset_id)
            if dataset is None:
                raise DataError(
                    f"{self.site.url} does not show the dataset {place.dataset!r} in "
                    f"{place.workspace!r} any more, which this campaign waits for."
                )
            before = self._counts.get(queue)
            if before is None or before[0] != dataset.last_activity:
                self._counts[queue] = dataset.last_activity, self.site.done(dataset.id)
        return {queue: done for queue, (_, done) in self._counts.items()}


def left(queue: str, items: int, done: Done) -> int:
    """Return how many showings of a queue still wait for somebody.

    In a queue of one's own, what its person discarded does not wait; in a shared one it waits for
    somebody else.
    """
    dealt_with = done.completed + (0 if queue == SHARED else sum(done.discarded.values()))
    return max(0, items - dealt_with)


def wait_for(
    campaign: Campaign,
    site: Argilla,
    config: WaitConfig,
    *,
    listener: Listener | None = None,
    check: Callable[[], None] = lambda: None,
    bars: Bars = SILENT,
) -> Labels:
    """Return the labels as soon as there are enough votes, or nothing is left to answer.

    With a listener the server says when to look; it is asked all the same, less often. ``check``
    is called at every look, and may raise what should end the waiting.
    """
    items = Counter(item.queue for item in campaign.items() if item.queue != RESERVE)
    shown = {queue: count for queue, count in items.items() if queue in campaign.places}
    answers = sum(
        count * (campaign.config.overlap if queue == SHARED else 1)
        for queue, count in shown.items()
    )
    watch = Watch(campaign, site)
    pulled = -_PULL_SECONDS
    with bars.bar("labels", config.enough or answers) as bar:
        while True:
            check()
            done = watch.look()
            submitted = sum(sum(queue.submitted.values()) for queue in done.values())
            waiting = sum(left(queue, shown[queue], done[queue]) for queue in shown)
            bar.update(submitted, {"to answer": waiting})
            enough = config.enough is not None and submitted >= config.enough
            if enough or not waiting or time.monotonic() - pulled > _PULL_SECONDS:
                try:
                    pull(campaign, site)
                except BusyError:
                    pass  # somebody else brings the same labels
                else:
                    pulled = time.monotonic()
                    labels = labels_of(campaign)
                    votes = labels.counts.get("vote", 0)
                    if not waiting or (config.enough is not None and votes >= config.enough):
                        return labels
            if listener is None:
                time.sleep(config.poll_seconds)
            elif listener.wait(_SLOWER * config.poll_seconds):
                time.sleep(_GATHER_SECONDS)  # people come in numbers
