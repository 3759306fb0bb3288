"""Labels back: every submitted answer, exactly once, however often and whenever one asks.

A pull reads the datasets on which something has happened since they were last read to the end;
what is new goes into the journal, and only then is it noted that they were read. So a pull that is
killed is repeated, and the journal takes nothing twice.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from annotation.campaign.argilla import Answer, Argilla
from annotation.campaign.bars import SILENT, Bars
from annotation.campaign.client import RefusedError
from annotation.campaign.items import Item, pseudonym
from annotation.campaign.ledger import Ledger
from annotation.campaign.questions import CHOICE, FLAGS, RATIONALE, STRENGTH, aspect_question
from annotation.campaign.questions import unshown as about_the_pair
from annotation.campaign.state import Campaign
from plumbline.data.labels import Choice, Label
from plumbline.errors import DataError

SOURCE = "argilla"


@dataclass(frozen=True)
class Labels:
    """What a journal amounts to."""

    labels: list[Label]
    """Every answer that stands, the earliest first."""
    gold: dict[str, Choice]
    """The known answers of the gold items, by the pair's id."""
    counts: dict[str, int]
    """How many there are of what, and what is no label and why."""


@dataclass(frozen=True)
class Pulled:
    """What a pull found."""

    new: int
    """Answers that were not known."""
    changed: int
    """Later versions of answers that were."""
    gone: int
    """Answers that the server has no more, since their person, or the record, was deleted, or a
    backup restored. They stand."""
    read: int
    """Datasets that were read."""
    datasets: int


def pull(
    campaign: Campaign, site: Argilla, *, everything: bool = False, bars: Bars = SILENT
) -> Pulled:
    """Bring a campaign's journal up to what the server has.

    Datasets on which nothing has happened are not read, unless ``everything`` is asked for.
    """
    with campaign.lock("pull"):
        ledger = campaign.ledger(writing=True)
        items = _items_by_dataset(campaign)
        there = {dataset.id: dataset for dataset in site.datasets()}
        missing = [p for p in campaign.places.values() if p.dataset_id not in there]
        new = changed = gone = read = 0
        notes = campaign.pulled()
        with bars.bar("pulling", len(campaign.places)) as bar:
            for place in campaign.places.values():
                dataset = there.get(place.dataset_id)
                bar.advance()
                if dataset is None:
                    continue
                if notes.get(dataset.id) == dataset.last_activity and not everything:
                    continue
                first, later, lost = _read(ledger, site, dataset.id, items[dataset.id])
                new, changed, gone, read = new + first, changed + later, gone + lost, read + 1
                # As it was before the reading: what came meanwhile makes it another.
                notes[dataset.id] = dataset.last_activity
                campaign.note_pulled(notes)
        if read:
            _learn_names(campaign, site, ledger)
    if missing:
        names = ", ".join(f"{place.dataset!r} in {place.workspace!r}" for place in missing)
        raise DataError(
            f"{site.url} does not show the dataset {names} of this campaign, which was pushed to "
            f"{campaign.server}. Is it another server, a key that may not see it, or was it "
            f"deleted there? What was pulled before is safe in {campaign.folder}."
        )
    return Pulled(new, changed, gone, read, len(campaign.places))


def _read(
    ledger: Ledger, site: Argilla, dataset_id: str, items: AbstractSet[str]
) -> tuple[int, int, int]:
    """Read a dataset into the journal; return how many answers are new, changed and gone."""
    new = changed = 0
    seen: set[str] = set()
    for page in site.answers(dataset_id):
        first, later = ledger.append(page)
        new, changed = new + first, changed + later
        seen |= {answer.id for answer in page}
    known = {answer.id for answer in ledger.current() if answer.item in items}
    return new, changed, len(known - seen)


def _items_by_dataset(campaign: Campaign) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for item in campaign.items():
        if item.queue in campaign.places:
            found[campaign.places[item.queue].dataset_id].add(item.id)
    return found


def _learn_names(campaign: Campaign, site: Argilla, ledger: Ledger) -> None:
    """Keep the names of who answered, for whoever runs the campaign, while they are to be had."""
    unknown = {answer.user_id for answer in ledger.current()} - set(campaign.people())
    if not unknown:
        return
    try:
        users = site.users()
    except RefusedError as error:
        if error.status != 403:  # an admin may not see all users
            raise
        return
    campaign.note_people({user.id: user.name for user in users if user.id in unknown})


def labels_of(campaign: Campaign) -> Labels:
    """Return a campaign's labels, as its journal has them."""
    return labels_from(
        campaign.ledger().current(),
        campaign.items(),
        campaign.secret,
        campaign.config.aspects,
    )


def labels_from(
    answers: Sequence[Answer], items: Sequence[Item], secret: bytes, aspects: Sequence[str]
) -> Labels:
    """Turn answers as they stand into labels about the pairs themselves.

    Of a person's answers to showings of the same pair the first is the vote and the others are
    repeats, whichever was meant to come first: some servers shuffle, and people may look ahead.
    """
    by_id = {item.id: item for item in items}
    counts: Counter[str] = Counter()
    standing: list[tuple[Answer, Item]] = []
    for answer in answers:
        item = by_id.get(answer.item or "")
        if item is None:
            counts["not_of_this_campaign"] += 1
        elif answer.status != "submitted":
            counts["discarded" if answer.status == "discarded" else "taken_back"] += 1
        elif CHOICE not in answer.values:
            counts["without_choice"] += 1
        else:
            standing.append((answer, item))
    repeats = _repeats(standing)
    labels = []
    for answer, item in standing:
        label = _label(answer, item, secret, aspects, repeat=answer.id in repeats)
        if answer.values.get(STRENGTH) is not None and label.strength is None:
            counts["strength_of_no_preference"] += 1
        labels.append(label)
        counts[label.purpose] += 1
    labels.sort(key=lambda label: (label.created_at, label.pair_id, label.annotator))
    gold = {item.pair_id: item.answer for item in items if item.answer is not None}
    return Labels(labels, gold, dict(counts))


def _repeats(standing: Sequence[tuple[Answer, Item]]) -> set[str]:
    """Return the ids of the answers that are somebody's second, or later, on a pair."""
    showings: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for answer, item in standing:
        if item.purpose in ("vote", "repeat"):
            showings[answer.user_id, item.pair_id].append(answer)
    return {
        answer.id
        for theirs in showings.values()
        for answer in sorted(theirs, key=lambda answer: (answer.given_at, answer.id))[1:]
    }


def _label(
    answer: Answer, item: Item, secret: bytes, aspects: Sequence[str], *, repeat: bool
) -> Label:
    values: Mapping[str, Any] = answer.values
    choice = about_the_pair(values[CHOICE], item.shown_first)
    purpose = item.purpose
    if purpose in ("vote", "repeat"):
        purpose = "repeat" if repeat else "vote"
    strength = values.get(STRENGTH)
    return Label(
        pair_id=item.pair_id,
        annotator=pseudonym(secret, answer.user_id),
        source=SOURCE,
        choice=choice,
        created_at=answer.changed_at,
        shown_first=item.shown_first,
        rationale=values.get(RATIONALE) or "",
        strength=strength if choice in ("a", "b") else None,
        aspects={
            aspect: about_the_pair(values[aspect_question(aspect)], item.shown_first)
            for aspect in aspects
            if aspect_question(aspect) in values
        },
        flags=tuple(values.get(FLAGS) or ()),
        purpose=purpose,
    )
