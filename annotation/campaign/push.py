"""Pairs out: what each person will see is decided and written down first, then sent.

A push that is killed at any point resumes with the same command: what was decided stands, and the
server is asked what it has before anything is sent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotation.argilla.api import PUSH_PAGE, Argilla, User
from annotation.argilla.client import RefusedError
from annotation.campaign.bars import SILENT, ProgressBars
from annotation.campaign.config import USUAL_OVERLAP, CampaignConfig
from annotation.campaign.datasets import (
    add_members,
    check_workspace,
    places_of,
    update_datasets,
    users_called,
    workspace_of,
)
from annotation.campaign.folder import CAMPAIGN, Campaign, Place
from annotation.campaign.items import (
    RESERVE,
    SHARED,
    Item,
    Plan,
    is_adjudication,
    is_training,
    plan,
    plan_adjudication,
    plan_training,
    share_of,
)
from annotation.campaign.pairs import Pair, leave_out
from annotation.campaign.pull import labels_of
from annotation.campaign.vote_texts import votes_text
from annotation.questions.form import guidelines, record_fields
from annotation.questions.question import about_the_pair
from plumbline.data.labels import Label
from plumbline.data.records import Row
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.seeds import rng


@dataclass(frozen=True)
class Pushed:
    """The result of a push."""

    sent: int
    """Records sent now."""
    items: int
    """Showings in the whole campaign."""
    pairs: int
    """Pairs that are new to the campaign."""
    left_out: Mapping[str, int]
    """Pairs of this push that nobody is asked about, by reason."""
    notes: tuple[str, ...]
    """What was decided for the user, and what could not be done."""


def push(
    folder: Path,
    site: Argilla,
    config: CampaignConfig,
    pairs: Sequence[Pair],
    *,
    gold: Sequence[Pair] | None = None,
    training: Sequence[Pair] = (),
    dropped: Dropped | None = None,
    members: Sequence[str] = (),
    bars: ProgressBars = SILENT,
) -> Pushed:
    """Send the pairs that a campaign does not have yet; start the campaign if there is none.

    Gold items are pairs with an ``answer``: those in ``gold``, or else as many as are needed of
    the pairs. ``training`` are pairs with an ``answer``, and ``reasons`` as its explanation, that
    everybody labels first, with feedback. ``dropped`` are rows that were no pairs to begin with;
    they are noted with the rest. ``members`` are added to the workspace of the shared queue.
    """
    site.me(patience=min(5.0, site.patience))
    # What is decided stands, so nothing is decided about people or workspaces that do not exist.
    invited = users_called(site, [*config.people, *members])
    check_workspace(site, config)
    config, notes = _decide_overlap(folder, site, config, [invited[name] for name in members])
    page = guidelines(config)
    campaign = Campaign.start(folder, config, site.url, page)
    with campaign.lock("push"):
        decided = _decide(campaign, pairs, gold, training, dropped or Dropped())
        sent, more = _send(campaign, site, bars, add=[invited[name] for name in members])
        update_datasets(campaign, site, page, _feedback(campaign))
    return Pushed(
        sent,
        len(campaign.items()),
        decided.pairs,
        decided.left_out.reasons(),
        (*notes, *decided.notes, *more),
    )


def push_adjudication(
    folder: Path,
    site: Argilla,
    senior: str,
    pairs: Sequence[Pair],
    *,
    bars: ProgressBars = SILENT,
) -> Pushed:
    """Send pairs of a campaign, in the order given, to a senior labeller's own queue."""
    site.me(patience=min(5.0, site.patience))
    campaign = Campaign(folder)
    users_called(site, [senior])
    with campaign.lock("push"):
        items = campaign.items()
        _check_texts(campaign, pairs)
        queued = {
            item.pair_id
            for item in items
            if item.purpose == "adjudication" and item.person == senior
        }
        kept, out = leave_out(pairs, 1.0, "adjudication")
        new = [pair for pair in kept if pair.id not in queued]
        decided = plan_adjudication(
            [pair.id for pair in new], senior, campaign.config, campaign.secret, items
        )
        campaign.leave_out(out.rows)
        campaign.add(new, decided.items)
        reasons = {pair.id: pair.reasons for pair in pairs}
        sent, notes = _send(campaign, site, bars, reasons)
    return Pushed(sent, len(campaign.items()), len(new), out.reasons(), notes)


def _decide_overlap(
    folder: Path, site: Argilla, config: CampaignConfig, members: Sequence[User]
) -> tuple[CampaignConfig, tuple[str, ...]]:
    """Return the settings of a new campaign with an overlap that fits its people, and a note."""
    if config.overlap is not None or (folder / CAMPAIGN).exists():
        return config, ()
    if config.people:
        count = len(config.people)
    else:
        users = {user.id for user in members if user.role == "annotator"}
        workspace = site.workspaces().get(workspace_of(config, None))
        if workspace is not None:
            users |= {user.id for user in site.members(workspace) if user.role == "annotator"}
        count = len(users)
    overlap = min(USUAL_OVERLAP, count) if count else USUAL_OVERLAP
    why = f"{count} {'person labels' if count == 1 else 'people label'}" if count else "by default"
    note = f"each pair gets {overlap} vote{'s' if overlap > 1 else ''} ({why}; setting overlap)"
    return config.model_copy(update={"overlap": overlap}), (note,)


@dataclass(frozen=True)
class _Decided:
    """What a push decided before it sends anything."""

    pairs: int
    left_out: Dropped
    notes: tuple[str, ...]


def _decide(
    campaign: Campaign,
    pairs: Sequence[Pair],
    gold: Sequence[Pair] | None,
    training: Sequence[Pair],
    dropped: Dropped,
) -> _Decided:
    """Decide who sees what, and write it down."""
    config, items = campaign.config, campaign.items()
    _check_texts(campaign, [*pairs, *(gold or ()), *training])
    pushed_ids = {item.pair_id for item in items if item.purpose != "adjudication"}
    lessons, out_training = leave_out(
        _answered(training, "training pairs"), config.near_identical, "training"
    )
    lesson_ids = {pair.id for pair in lessons}
    kept, out = leave_out(pairs, config.near_identical, "pairs")
    new = [pair for pair in kept if pair.id not in pushed_ids | lesson_ids]
    kept_gold, out_gold = leave_out(
        _answered(gold, "gold items") if gold is not None else draw_gold(new, config),
        config.near_identical,
        "gold",
    )
    answers = {
        item.pair_id: item.answer for item in items if item.purpose == "gold" and item.answer
    }
    answers |= {
        pair.id: pair.answer
        for pair in kept_gold
        if pair.answer is not None and pair.id not in lesson_ids
    }
    votes = [pair for pair in new if pair.id not in answers]
    left_out = Dropped([*dropped.rows, *out.rows, *out_gold.rows, *out_training.rows])
    if not votes and not items:
        raise DataError(
            f"There is nothing to label: of {len(pairs) + len(dropped.rows)} rows, {len(kept)} are "
            f"pairs that can be shown, and {len(kept) - len(votes)} of these are gold items or "
            f"training pairs. Left out: {left_out.summary() or 'none'}."
        )
    decided = (
        plan([pair.id for pair in votes], answers, config, campaign.secret, items)
        if votes
        else Plan(())
    )
    training_plan = _plan_training(campaign, lessons, items)
    campaign.leave_out(left_out.rows)
    campaign.add([*votes, *kept_gold, *lessons], [*decided.items, *training_plan.items])
    notes = decided.notes
    both = 0 if gold is None else len(new) - len(votes)
    if both:
        notes = (*notes, f"{both} pairs are gold items too, and so nobody votes on them")
    return _Decided(len(votes), left_out, notes)


def _plan_training(campaign: Campaign, lessons: Sequence[Pair], items: Sequence[Item]) -> Plan:
    """Keep the answers of the training round, and return its items that are new."""
    campaign.add_training(
        {
            pair.id: {"answer": str(pair.answer), "explanation": " ".join(pair.reasons)}
            for pair in lessons
        }
    )
    answers: dict[str, Any] = {
        pair_id: lesson["answer"] for pair_id, lesson in campaign.training().items()
    }
    return plan_training(answers, campaign.config, campaign.secret, items)


def draw_gold(pairs: Sequence[Pair], config: CampaignConfig) -> list[Pair]:
    """Return as many of the pairs with a known answer as the queues need for gold items.

    Nobody votes on them. Further pairs with a known answer are voted on like all others.
    """
    answered = [pair for pair in pairs if pair.answer is not None]
    queues = max(1, len(config.people))
    votes = len(pairs) * (config.votes_per_pair if config.people else 1) // queues
    wanted = min(len(answered), share_of(config.gold_share, votes))
    return rng(config.seed, "gold", len(pairs)).sample(answered, wanted)


def _answered(pairs: Sequence[Pair], what: str) -> list[Pair]:
    """Return pairs of which each must have a known answer."""
    without = [pair.id for pair in pairs if pair.answer is None]
    if without:
        raise DataError(
            f"{len(without)} of {len(pairs)} {what} have no answer (the first is "
            f"{without[0]!r}). Give each one of a, b, tie, both_bad in a column 'answer'."
        )
    return list(pairs)


def _feedback(campaign: Campaign) -> dict[str, dict[str, dict[str, str]]]:
    """Return the feedback of training pairs by queue and record, in terms of what is shown."""
    lessons = campaign.training()
    feedback: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    for item in campaign.items():
        if is_training(item.queue) and item.pair_id in lessons:
            lesson = lessons[item.pair_id]
            feedback[item.queue][item.id] = {
                "choice": about_the_pair(lesson["answer"], item.shown_first),
                "explanation": lesson["explanation"],
            }
    return dict(feedback)


def _send(
    campaign: Campaign,
    site: Argilla,
    bars: ProgressBars,
    reasons: Mapping[str, Sequence[str]] | None = None,
    add: Sequence[User] = (),
) -> tuple[int, tuple[str, ...]]:
    """Send what the server does not have yet; return how many records that were, and notes."""
    queues: dict[str, list[Item]] = defaultdict(list)
    for item in campaign.items():
        if item.queue != RESERVE:
            queues[item.queue].append(item)
    places = places_of(campaign, site, list(queues))
    notes = add_members(site, places[SHARED], add) if SHARED in places else ()
    pairs = campaign.pairs()
    votes = _votes(campaign) if any(map(is_adjudication, queues)) else {}
    waiting: list[tuple[Place, list[Item]]] = []
    for queue, items in queues.items():
        existing = _items_on_site(campaign, site, places[queue])
        missing = [item for item in items if item.id not in existing]
        if missing:
            waiting.append((places[queue], missing))
    total = sum(len(items) for _, items in waiting)
    sent = 0
    with bars.bar("sending", total) as bar:
        for place, items in waiting:
            for start in range(0, len(items), PUSH_PAGE):
                page = items[start : start + PUSH_PAGE]
                records = [
                    (item.id, _shown(item, pairs[item.pair_id], campaign.config, votes, reasons))
                    for item in page
                ]
                site.send(place.dataset_id, records)
                sent += len(page)
                bar.update(sent)
    return sent, notes


def _shown(
    item: Item,
    pair: Pair,
    config: CampaignConfig,
    votes: Mapping[str, Sequence[Label]],
    reasons: Mapping[str, Sequence[str]] | None,
) -> Row:
    text = None
    if item.purpose == "adjudication" and config.show_votes:
        text = votes_text(
            item.shown_first, votes.get(pair.id, ()), (reasons or {}).get(pair.id, ())
        )
    return record_fields(pair.prompt, pair.a, pair.b, item.shown_first, text)


def _votes(campaign: Campaign) -> dict[str, list[Label]]:
    votes: dict[str, list[Label]] = defaultdict(list)
    for label in labels_of(campaign).labels:
        if label.purpose == "vote":
            votes[label.pair_id].append(label)
    return votes


def _items_on_site(campaign: Campaign, site: Argilla, place: Place) -> set[str]:
    try:
        return site.item_ids(place.dataset_id)
    except RefusedError as error:
        if error.status != 404:
            raise
        raise DataError(
            f"The dataset {place.dataset!r} of this campaign is not on {site.url}. It was made on "
            f"{campaign.server}. This may be another server, or somebody deleted the dataset. Its "
            f"labels in {campaign.folder} are safe. Restore the server from a backup, or start "
            "another campaign."
        ) from None


def _check_texts(campaign: Campaign, pairs: Sequence[Pair]) -> None:
    """Refuse a pair under the id of another: labels on one would be taken for the other's."""
    existing = campaign.pairs()
    for number, pair in enumerate(pairs, 1):
        if pair.id in existing and existing[pair.id].to_json() != pair.to_json():
            raise DataError(
                f"Pair {number} has the pair_id {pair.id!r}, under which the campaign in "
                f"{campaign.folder} has other texts. Nothing was sent. Give the pair an id of its "
                "own, or start another campaign."
            )
