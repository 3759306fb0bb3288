"""Waiting until enough is labelled: cheap questions to the server, and labels when there are some.

It may be interrupted and started again: nothing is kept in here that a new start would miss.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from annotation.campaign.argilla import Argilla, Done
from annotation.campaign.bars import SILENT, Bars
from annotation.campaign.config import WaitConfig
from annotation.campaign.items import SHARED
from annotation.campaign.pull import Labels, labels_from, pull
from annotation.campaign.showings import showings_of
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
    queues: Collection[str]
    _counts: dict[str, tuple[str, Done]] = field(default_factory=dict)

    def look(self) -> Mapping[str, Done]:
        """Return how far each queue has come."""
        there = {dataset.id: dataset for dataset in self.site.datasets()}
        for queue in self.queues:
            place = self.campaign.places[queue]
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
    among: Collection[str] | None = None,
    queues: Collection[str] | None = None,
    listener: Listener | None = None,
    check: Callable[[], None] = lambda: None,
    bars: Bars = SILENT,
) -> Labels:
    """Return the labels as soon as there are enough votes, or nothing is left to answer.

    Only the pairs ``among`` are waited for, and only in these ``queues``, if they are given: what
    an earlier round left open is not waited for again. With a listener the server says when to
    look; it is asked all the same, less often. ``check`` is called at every look, and may raise
    what should end the waiting.
    """
    names = campaign.places.keys() if queues is None else campaign.places.keys() & set(queues)
    shown = Counter(item.queue for item in campaign.items() if item.queue in names)
    answers = sum(
        count * (campaign.config.overlap if queue == SHARED else 1)
        for queue, count in shown.items()
    )
    watch = Watch(campaign, site, names)
    need, dealt_with_then, pulled = 0, 0, -_PULL_SECONDS
    with bars.bar("answers", answers) as bar:
        while True:
            check()
            done = watch.look()
            submitted = sum(sum(queue.submitted.values()) for queue in done.values())
            dealt_with = submitted + sum(sum(queue.discarded.values()) for queue in done.values())
            waiting = sum(left(queue, shown[queue], done[queue]) for queue in shown)
            bar.update(submitted, {"to answer": waiting})
            # Answers to other pairs, gold items and repeats are counted too: it could be enough.
            perhaps = dealt_with - dealt_with_then >= need
            if perhaps or not waiting or time.monotonic() - pulled > _PULL_SECONDS:
                try:
                    pull(campaign, site)
                except BusyError:
                    pass  # somebody else brings the same labels
                else:
                    pulled, dealt_with_then = time.monotonic(), dealt_with
                    labels, need = _labels_and_need(campaign, config, names, among)
                    if need <= 0:
                        return labels
            if listener is None:
                time.sleep(config.poll_seconds)
            elif listener.wait(_SLOWER * config.poll_seconds):
                time.sleep(_GATHER_SECONDS)  # people come in numbers


def _labels_and_need(
    campaign: Campaign,
    config: WaitConfig,
    queues: Collection[str],
    among: Collection[str] | None,
) -> tuple[Labels, int]:
    """Return the labels that were pulled, and how many more are needed at least."""
    items, answers = campaign.items(), campaign.ledger().current()
    labels = labels_from(answers, items, campaign.secret, campaign.config.aspects)
    missing = sum(
        showing.missing
        for showing in showings_of(items, answers, queues, campaign.config.overlap).values()
        if among is None or showing.item.pair_id in among or showing.item.purpose == "gold"
    )
    if config.enough is None:
        return labels, missing
    votes = sum(
        label.purpose == "vote" and (among is None or label.pair_id in among)
        for label in labels.labels
    )
    return labels, min(missing, config.enough - votes)
