"""Waiting until there are enough labels, with few and cheap requests.

Waiting may be interrupted and started again: it keeps nothing that a new start would miss.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from annotation.argilla.api import Argilla, DatasetProgress
from annotation.campaign.bars import SILENT, ProgressBars
from annotation.campaign.config import WaitConfig
from annotation.campaign.folder import Campaign
from annotation.campaign.items import SHARED, is_training
from annotation.campaign.pull import Labels, labels_from, pull
from annotation.campaign.showings import showings_of
from annotation.campaign.webhook import Listener
from plumbline.errors import BusyError, DataError

_PULL_SECONDS = 60.0
_GATHER_SECONDS = 0.5
_SLOWER = 6.0


@dataclass
class QueueWatch:
    """The progress of a campaign's queues, asked for only where something has happened."""

    campaign: Campaign
    site: Argilla
    queues: Collection[str]
    _counts: dict[str, tuple[str, DatasetProgress]] = field(default_factory=dict)

    def progress(self) -> Mapping[str, DatasetProgress]:
        """Return the progress of each queue."""
        existing = {dataset.id: dataset for dataset in self.site.datasets()}
        for queue in self.queues:
            place = self.campaign.places[queue]
            dataset = existing.get(place.dataset_id)
            if dataset is None:
                raise DataError(
                    f"{self.site.url} no longer shows the dataset {place.dataset!r} in "
                    f"{place.workspace!r}, which this campaign waits for. Somebody may have "
                    "deleted it. Restore a backup, or push again."
                )
            before = self._counts.get(queue)
            if before is None or before[0] != dataset.last_activity:
                self._counts[queue] = dataset.last_activity, self.site.progress(dataset.id)
        return {queue: progress for queue, (_, progress) in self._counts.items()}


def waiting_in(queue: str, items: int, progress: DatasetProgress) -> int:
    """Return how many showings of a queue still wait for somebody.

    In a personal queue, a pair that its person discarded does not wait. In a shared queue it waits
    for somebody else.
    """
    discarded = 0 if queue == SHARED else sum(progress.discarded.values())
    return max(0, items - progress.completed - discarded)


def wait_for(
    campaign: Campaign,
    site: Argilla,
    config: WaitConfig,
    *,
    among: Collection[str] | None = None,
    queues: Collection[str] | None = None,
    listener: Listener | None = None,
    check: Callable[[], None] = lambda: None,
    bars: ProgressBars = SILENT,
) -> Labels:
    """Return the labels as soon as there are enough votes, or nothing is left to answer.

    With ``among`` or ``queues``, only these pairs and queues are waited for: what an earlier round
    left open is not waited for again. With a listener the server says when something happened; it
    is still asked, less often. ``check`` is called in every round, and may raise an error that
    ends the waiting.
    """
    names = {queue for queue in campaign.places if not is_training(queue)}
    names &= names if queues is None else set(queues)
    shown = Counter(item.queue for item in campaign.items() if item.queue in names)
    overlap = campaign.config.votes_per_pair
    answers = sum(count * (overlap if queue == SHARED else 1) for queue, count in shown.items())
    watch = QueueWatch(campaign, site, names)
    need, handled_before, pulled = 0, 0, -_PULL_SECONDS
    with bars.bar("answers", answers) as bar:
        while True:
            check()
            progress = watch.progress()
            submitted = sum(sum(queue.submitted.values()) for queue in progress.values())
            handled = submitted + sum(sum(q.discarded.values()) for q in progress.values())
            waiting = sum(waiting_in(queue, shown[queue], progress[queue]) for queue in shown)
            bar.update(submitted, {"to answer": waiting})
            # Answers to other pairs, gold items and repeats are counted too, so it may be enough.
            may_be_enough = handled - handled_before >= need
            if may_be_enough or not waiting or time.monotonic() - pulled > _PULL_SECONDS:
                try:
                    pull(campaign, site)
                except BusyError:
                    pass  # another process pulls the same labels
                else:
                    pulled, handled_before = time.monotonic(), handled
                    labels, need = _labels_and_need(campaign, config, names, among)
                    if need <= 0:
                        return labels
            if listener is None:
                time.sleep(config.poll_seconds)
            elif listener.wait(_SLOWER * config.poll_seconds):
                time.sleep(_GATHER_SECONDS)  # answers come in groups


def _labels_and_need(
    campaign: Campaign,
    config: WaitConfig,
    queues: Collection[str],
    among: Collection[str] | None,
) -> tuple[Labels, int]:
    """Return the labels that were pulled, and how many more are needed at least."""
    items, answers = campaign.items(), campaign.ledger().current()
    labels = labels_from(answers, items, campaign.secret, campaign.config)
    overlap = campaign.config.votes_per_pair
    missing = sum(
        showing.missing
        for showing in showings_of(items, answers, queues, overlap).values()
        if among is None or showing.item.pair_id in among or showing.item.purpose == "gold"
    )
    if config.enough is None:
        return labels, missing
    votes = sum(
        label.purpose == "vote" and (among is None or label.pair_id in among)
        for label in labels.labels
    )
    return labels, min(missing, config.enough - votes)
