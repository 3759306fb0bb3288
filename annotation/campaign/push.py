"""Pairs out: what each person is to see is decided and written down first, then sent.

A push that is killed, at any point, goes on with the same command: what was decided stands, and
the server is asked what it has before anything is sent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from annotation.campaign.argilla import PUSH_PAGE, Argilla, User
from annotation.campaign.bars import SILENT, Bars
from annotation.campaign.client import RefusedError
from annotation.campaign.config import CampaignConfig
from annotation.campaign.items import (
    RESERVE,
    SHARED,
    Item,
    Plan,
    is_adjudication,
    plan,
    plan_adjudication,
    share_of,
)
from annotation.campaign.pairs import Pair, leave_out
from annotation.campaign.places import (
    check_workspace,
    open_to,
    places_of,
    renew_guidelines,
    users_called,
)
from annotation.campaign.pull import labels_of
from annotation.campaign.questions import content, guidelines, in_words, unshown
from annotation.campaign.state import Campaign, Place
from plumbline.data.labels import Label
from plumbline.data.records import Row
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.seeds import rng


@dataclass(frozen=True)
class Pushed:
    """What a push did."""

    sent: int
    """Records sent now."""
    items: int
    """Showings in the whole campaign."""
    pairs: int
    """Pairs that are new to the campaign."""
    left_out: Mapping[str, int]
    """Pairs that nobody is asked about, by reason; those of this push."""
    notes: tuple[str, ...]
    """What could not be done as asked."""


def push(
    folder: Path,
    site: Argilla,
    config: CampaignConfig,
    pairs: Sequence[Pair],
    *,
    gold: Sequence[Pair] | None = None,
    dropped: Dropped | None = None,
    members: Sequence[str] = (),
    bars: Bars = SILENT,
) -> Pushed:
    """Send the pairs that a campaign does not have yet; start it if there is none.

    Gold items are pairs with an ``answer``: those in ``gold``, or else as many as are needed of
    the pairs. ``dropped`` are rows that were no pairs to begin with; they are noted with the rest.
    ``members`` are let into the workspace of the shared queue.
    """
    site.me(patience=min(5.0, site.patience))
    # What is decided stands, so nothing is decided about people or places that are not there.
    invited = users_called(site, [*config.people, *members])
    check_workspace(site, config)
    page = guidelines(config)
    campaign = Campaign.start(folder, config, site.url, page)
    with campaign.lock("push"):
        items = campaign.items()
        _check_texts(campaign, [*pairs, *(gold or ())])
        known = {item.pair_id for item in items if item.purpose != "adjudication"}
        kept, out = leave_out(pairs, config.near_identical, "pairs")
        new = [pair for pair in kept if pair.id not in known]
        kept_gold, out_gold = leave_out(
            _answered(gold) if gold is not None else draw_gold(new, config),
            config.near_identical,
            "gold",
        )
        answers = {item.pair_id: item.answer for item in items if item.answer is not None}
        answers |= {pair.id: pair.answer for pair in kept_gold if pair.answer is not None}
        votes = [pair for pair in new if pair.id not in answers]
        both = 0 if gold is None else len(new) - len(votes)
        decided = (
            plan([pair.id for pair in votes], answers, config, campaign.secret, items)
            if votes
            else Plan(())
        )
        if not votes and not items:
            rows = len(pairs) + (len(dropped.rows) if dropped else 0)
            raise DataError(
                f"There is nothing to label: of {rows} rows, {len(kept)} are pairs that can be "
                f"shown, and {len(kept) - len(votes)} of these are gold items. Left out: "
                f"{Dropped([*(dropped.rows if dropped else ()), *out.rows]).reasons() or 'none'}."
            )
        left_out = Dropped([*(dropped.rows if dropped else ()), *out.rows, *out_gold.rows])
        campaign.leave_out(left_out.rows)
        campaign.add([*votes, *kept_gold], decided.items)
        let_in = [invited[name] for name in members]
        sent, notes = _send(campaign, site, bars, let_in=let_in)
        renew_guidelines(campaign, site, page)
    if both:
        notes = (*notes, f"{both} pairs are gold items too, and so not voted on")
    return Pushed(
        sent, len(campaign.items()), len(votes), left_out.reasons(), (*decided.notes, *notes)
    )


def push_adjudication(
    folder: Path,
    site: Argilla,
    senior: str,
    pairs: Sequence[Pair],
    *,
    bars: Bars = SILENT,
) -> Pushed:
    """Send pairs of a campaign, most valuable first, to a senior labeller's own queue."""
    site.me(patience=min(5.0, site.patience))
    campaign = Campaign(folder)
    users_called(site, [senior])
    with campaign.lock("push"):
        items = campaign.items()
        _check_texts(campaign, pairs)
        theirs = {
            item.pair_id
            for item in items
            if item.purpose == "adjudication" and item.person == senior
        }
        kept, out = leave_out(pairs, 1.0, "adjudication")
        new = [pair for pair in kept if pair.id not in theirs]
        decided = plan_adjudication(
            [pair.id for pair in new], senior, campaign.config, campaign.secret, items
        )
        campaign.leave_out(out.rows)
        campaign.add(new, decided.items)
        reasons = {pair.id: pair.reasons for pair in pairs}
        sent, notes = _send(campaign, site, bars, reasons)
    return Pushed(sent, len(campaign.items()), len(new), out.reasons(), notes)


def draw_gold(pairs: Sequence[Pair], config: CampaignConfig) -> list[Pair]:
    """Return as many of the pairs whose answer is known as the queues need for gold items.

    They are not voted on then. Pairs with a known answer beyond that are pairs like all others.
    """
    answered = [pair for pair in pairs if pair.answer is not None]
    queues = max(1, len(config.people))
    votes = len(pairs) * (config.overlap if config.people else 1) // queues
    wanted = min(len(answered), share_of(config.gold_share, votes))
    return rng(config.seed, "gold", len(pairs)).sample(answered, wanted)


def _answered(gold: Sequence[Pair]) -> list[Pair]:
    without = [pair.id for pair in gold if pair.answer is None]
    if without:
        raise DataError(
            f"{len(without)} of {len(gold)} gold items have no answer (the first is "
            f"{without[0]!r}). Give each one of a, b, tie, both_bad in a column 'answer'."
        )
    return list(gold)


def _send(
    campaign: Campaign,
    site: Argilla,
    bars: Bars,
    reasons: Mapping[str, Sequence[str]] | None = None,
    let_in: Sequence[User] = (),
) -> tuple[int, tuple[str, ...]]:
    """Send what the server does not have yet; return how many records that were."""
    queues: dict[str, list[Item]] = defaultdict(list)
    for item in campaign.items():
        if item.queue != RESERVE:
            queues[item.queue].append(item)
    places = places_of(campaign, site, list(queues))
    notes = open_to(site, places[SHARED], let_in) if SHARED in places else ()
    pairs = campaign.pairs()
    votes = _votes(campaign) if any(map(is_adjudication, queues)) else {}
    waiting: list[tuple[Place, list[Item]]] = []
    for queue, items in queues.items():
        there = _items_there(campaign, site, places[queue])
        missing = [item for item in items if item.id not in there]
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
    said = None
    if item.purpose == "adjudication" and config.show_votes:
        said = what_others_said(item, votes.get(pair.id, ()), (reasons or {}).get(pair.id, ()))
    return content(pair.prompt, pair.a, pair.b, item.shown_first, said)


def what_others_said(item: Item, votes: Sequence[Label], reasons: Sequence[str]) -> str:
    """Return the votes on a pair in the words of its page, on which A may be the pair's b."""
    lines = []
    if reasons:
        words = ", ".join(reason.replace("_", " ").replace(":", ": ") for reason in reasons)
        lines.append(f"You see this because of: {words}.")
    for vote in votes:
        answer = in_words(unshown(vote.choice, item.shown_first), vote.strength)
        flags = f" [{', '.join(vote.flags)}]" if vote.flags else ""
        # The words may speak of "A" and "B" as that person saw them, which may be the other way.
        swapped = vote.shown_first != item.shown_first and vote.rationale
        note = " (saw A and B the other way round)" if swapped else ""
        rationale = f": “{vote.rationale}”{note}" if vote.rationale else ""
        lines.append(f"- {vote.annotator}: {answer}{flags}{rationale}")
    return "\n".join(lines) or "Nobody has voted yet."


def _votes(campaign: Campaign) -> dict[str, list[Label]]:
    votes: dict[str, list[Label]] = defaultdict(list)
    for label in labels_of(campaign).labels:
        if label.purpose == "vote":
            votes[label.pair_id].append(label)
    return votes


def _items_there(campaign: Campaign, site: Argilla, place: Place) -> set[str]:
    try:
        return site.item_ids(place.dataset_id)
    except RefusedError as error:
        if error.status != 404:
            raise
        raise DataError(
            f"The dataset {place.dataset!r} of this campaign is not on {site.url}. It was made on "
            f"{campaign.server}: is this another server, or was it deleted there? Its labels in "
            f"{campaign.folder} are safe; restore the server from a backup, or start another "
            "campaign."
        ) from None


def _check_texts(campaign: Campaign, pairs: Sequence[Pair]) -> None:
    """Refuse a pair under the id of another: labels on one would be taken for the other's."""
    there = campaign.pairs()
    for number, pair in enumerate(pairs, 1):
        if pair.id in there and there[pair.id].to_json() != pair.to_json():
            raise DataError(
                f"Pair {number} has the pair_id {pair.id!r}, under which the campaign in "
                f"{campaign.folder} has other texts. Nothing has been sent. Give it an id of its "
                "own, or start another campaign."
            )
