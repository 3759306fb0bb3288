"""Labels back: every submitted answer exactly once, however often and whenever one pulls.

A pull reads the datasets that have changed since they were last read to the end. What is new goes
into the journal, and only then is it noted that they were read. So a pull that is killed is
repeated, and the journal takes nothing twice.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from annotation.argilla.api import Answer, Argilla
from annotation.argilla.client import RefusedError
from annotation.campaign.bars import SILENT, ProgressBars
from annotation.campaign.folder import Campaign
from annotation.campaign.items import Item, pseudonym
from annotation.campaign.ledger import Ledger
from annotation.questions.answers import parse_answer
from annotation.questions.form_config import FormConfig
from annotation.questions.strength import STRENGTH
from plumbline.data.labels import Choice, Label, Purpose
from plumbline.errors import DataError

SOURCE = "argilla"


@dataclass(frozen=True)
class Labels:
    """The labels of a journal."""

    labels: list[Label]
    """Every answer that counts, the earliest first."""
    gold: dict[str, Choice]
    """The known answers of the gold items, by the pair's id."""
    counts: dict[str, int]
    """Labels by purpose, and answers that are no labels by the reason."""


@dataclass(frozen=True)
class Pulled:
    """The result of a pull."""

    new: int
    """Answers that were not known before."""
    changed: int
    """Later versions of known answers."""
    gone: int
    """Answers that the server no longer has: somebody deleted the person or the record, or restored
    a backup. The journal keeps them."""
    read: int
    """Datasets that were read."""
    datasets: int
    lost_bytes: int = 0
    """How much of the journal's end was missing; all datasets were read again for it."""


def pull(
    campaign: Campaign, site: Argilla, *, everything: bool = False, bars: ProgressBars = SILENT
) -> Pulled:
    """Add to a campaign's journal what the server has.

    Datasets that have not changed are read only with ``everything``, or when the journal has lost
    its end.
    """
    with campaign.lock("pull"):
        ledger = campaign.ledger(writing=True)
        lost = ledger.lost_bytes
        items = _items_by_dataset(campaign)
        existing = {dataset.id: dataset for dataset in site.datasets()}
        missing = [p for p in campaign.places.values() if p.dataset_id not in existing]
        new = changed = gone = read = 0
        notes = {} if lost else campaign.pulled()
        with bars.bar("pulling", len(campaign.places)) as bar:
            for place in campaign.places.values():
                dataset = existing.get(place.dataset_id)
                bar.advance()
                if dataset is None:
                    continue
                if notes.get(dataset.id) == dataset.last_activity and not everything:
                    continue
                counts = _read(ledger, site, dataset.id, items[dataset.id])
                new, changed, gone = new + counts[0], changed + counts[1], gone + counts[2]
                read += 1
                # The state before the reading: what comes meanwhile changes it again.
                notes[dataset.id] = dataset.last_activity
                if not lost:
                    campaign.note_pulled(notes)
        if lost and not missing:
            campaign.note_pulled(notes)
            ledger.accept_length()
        if read:
            _keep_names(campaign, site, ledger)
    if missing:
        names = ", ".join(f"{place.dataset!r} in {place.workspace!r}" for place in missing)
        raise DataError(
            f"{site.url} does not show the dataset {names} of this campaign, which was pushed to "
            f"{campaign.server}. It may be another server, an API key that may not see it, or a "
            f"dataset that was deleted. What was pulled before is safe in {campaign.folder}: "
            "'plumbline annotate pull --offline' gives it without the server."
        )
    return Pulled(new, changed, gone, read, len(campaign.places), lost)


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
    current_ids = {answer.id for answer in ledger.current() if answer.item in items}
    return new, changed, len(current_ids - seen)


def _items_by_dataset(campaign: Campaign) -> dict[str, set[str]]:
    ids: dict[str, set[str]] = defaultdict(set)
    for item in campaign.items():
        if item.queue in campaign.places:
            ids[campaign.places[item.queue].dataset_id].add(item.id)
    return ids


def _keep_names(campaign: Campaign, site: Argilla, ledger: Ledger) -> None:
    """Keep the names of who answered, for the person who runs the campaign."""
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
    """Return a campaign's labels by its journal.

    Raises `DataError` where the journal has lost its end: some labels would be missing.
    """
    ledger = campaign.ledger()
    if ledger.lost_bytes:
        raise DataError(
            f"{ledger.path} is {ledger.lost_bytes} bytes shorter than it once was, so labels are "
            "missing. Run 'plumbline annotate pull' to get them from the server again."
        )
    return labels_from(ledger.current(), campaign.items(), campaign.secret, campaign.config)


def labels_from(
    answers: Sequence[Answer], items: Sequence[Item], secret: bytes, config: FormConfig
) -> Labels:
    """Turn current answers into labels about the pairs.

    Of a person's answers to several showings of a pair the first is the vote, and the others are
    repeats, whichever was meant to come first: some servers shuffle, and people may look ahead.
    """
    by_id = {item.id: item for item in items}
    counts: Counter[str] = Counter()
    submitted: list[tuple[Answer, Item]] = []
    for answer in answers:
        item = by_id.get(answer.item or "")
        if item is None:
            counts["not_of_this_campaign"] += 1
        elif item.purpose == "training":
            counts["training"] += answer.status == "submitted"
        elif answer.status != "submitted":
            counts["discarded" if answer.status == "discarded" else "taken_back"] += 1
        else:
            submitted.append((answer, item))
    parsed = {
        answer.id: parse_answer(answer.values, item.shown_first, config)
        for answer, item in submitted
    }
    chosen = [(answer, item) for answer, item in submitted if "choice" in parsed[answer.id]]
    if len(chosen) < len(submitted):
        counts["without_choice"] = len(submitted) - len(chosen)
    repeats = _repeats(chosen)
    labels = []
    for answer, item in chosen:
        label = Label(
            pair_id=item.pair_id,
            annotator=pseudonym(secret, answer.user_id),
            source=SOURCE,
            created_at=answer.changed_at,
            shown_first=item.shown_first,
            purpose=_purpose(item, repeat=answer.id in repeats),
            **parsed[answer.id],
        )
        if answer.values.get(STRENGTH) is not None and label.strength is None:
            counts["strength_of_no_preference"] += 1
        labels.append(label)
        counts[label.purpose] += 1
    labels.sort(key=lambda label: (label.created_at, label.pair_id, label.annotator))
    gold = {
        item.pair_id: item.answer
        for item in items
        if item.answer is not None and item.purpose == "gold"
    }
    return Labels(labels, gold, {name: count for name, count in counts.items() if count})


def _repeats(chosen: Sequence[tuple[Answer, Item]]) -> set[str]:
    """Return the ids of the answers that are somebody's second, or later, on a pair."""
    showings: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for answer, item in chosen:
        if item.purpose in ("vote", "repeat"):
            showings[answer.user_id, item.pair_id].append(answer)
    return {
        answer.id
        for answers in showings.values()
        for answer in sorted(answers, key=lambda answer: (answer.given_at, answer.id))[1:]
    }


def _purpose(item: Item, *, repeat: bool) -> Purpose:
    if item.purpose in ("vote", "repeat"):
        return "repeat" if repeat else "vote"
    assert item.purpose != "training"
    return item.purpose
