"""Who sees which pair, in which order and on which side: drawn from a seed before anything is sent.

An item is one showing of a pair in one queue. A shared queue is open to everybody in its workspace.
Otherwise each person has a queue, and so has a senior labeller for adjudication. Nothing that the
labelling site stores about an item tells votes, gold items and repeats apart. Only the pairs of a
training round are known to be that: they have a queue of their own.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Literal

from annotation.campaign.config import CampaignConfig
from annotation.questions.question import Side
from plumbline.data.labels import Choice, Purpose
from plumbline.seeds import rng

SHARED = "shared"
RESERVE = "reserve"
"""The queue that nobody sees: gold items that nobody has been given yet."""
_ADJUDICATION = "adjudication:"
_PERSON = "person:"
_TRAINING = "training:"

ItemPurpose = Purpose | Literal["training"]
"""Why a pair is shown. An answer to a training item does not become a label."""


@dataclass(frozen=True, slots=True)
class Item:
    """One showing of a pair."""

    id: str
    """The name of the record on the labelling site; meaningless without the secret."""
    pair_id: str
    queue: str
    shown_first: Side
    """Which of the pair's responses is called A."""
    purpose: ItemPurpose
    answer: Choice | None = None
    """The known answer of a gold or training item."""

    @property
    def person(self) -> str | None:
        """Whose queue it is in; None in a shared one."""
        return person_of(self.queue)

    def to_json(self) -> dict[str, Any]:
        """Return the item as JSON."""
        return asdict(self)


def queue_of(person: str, *, adjudication: bool = False) -> str:
    """Return the name of a person's queue."""
    return f"{_ADJUDICATION if adjudication else _PERSON}{person}"


def training_queue_of(person: str | None) -> str:
    """Return the name of a person's queue of training pairs; None: the queue that all share."""
    return f"{_TRAINING}{person or ''}"


def person_of(queue: str) -> str | None:
    """Return whose queue it is; None for a queue that people share."""
    return queue.partition(":")[2] or None


def is_adjudication(queue: str) -> bool:
    """Return whether a queue is a senior labeller's."""
    return queue.startswith(_ADJUDICATION)


def is_training(queue: str) -> bool:
    """Return whether a queue holds the pairs of a training round."""
    return queue.startswith(_TRAINING)


@dataclass(frozen=True)
class Plan:
    """New items in the order in which people see them, and what could not be done."""

    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()


def plan(
    pair_ids: Sequence[str],
    gold: Mapping[str, Choice],
    config: CampaignConfig,
    secret: bytes,
    before: Sequence[Item] = (),
) -> Plan:
    """Return the items for pairs that are new to a campaign.

    ``before`` are the items that the campaign has: people's loads continue from there, and nobody
    gets a gold item twice. Gold items that are left over go to the reserve, so that they stay gold
    items.
    """
    random = rng(config.seed, "items", len(before))
    votes = _votes(pair_ids, config, random, before)
    items: list[Item] = []
    notes = []
    for queue, own in votes.items():
        if own:
            mixed, problems = _mixed_queue(queue, own, gold, config, random, before)
            items += mixed
            notes += problems
    used = {item.pair_id for item in (*before, *items) if item.purpose == "gold"}
    items += [
        Item("", pair_id, RESERVE, "a", "gold", answer)
        for pair_id, answer in gold.items()
        if pair_id not in used
    ]
    return Plan(tuple(_named(item, secret) for item in items), tuple(notes))


def _votes(
    pair_ids: Sequence[str], config: CampaignConfig, random: Random, before: Sequence[Item]
) -> dict[str, list[tuple[str, Side]]]:
    """Return the pairs that each queue votes on, and which response is shown first there."""
    if not config.people:
        first = sides(len(pair_ids), random)
        return {SHARED: list(zip(pair_ids, first, strict=True))}
    votes: dict[str, list[tuple[str, Side]]] = {queue_of(person): [] for person in config.people}
    loads, together = _history(before)
    assigned = assign(pair_ids, config.people, config.votes_per_pair, random, loads, together)
    for pair_id, people in assigned.items():
        # Half of a pair's people see one response first, and half the other.
        first = sides(len(people), random)
        for person, side in zip(people, first, strict=True):
            votes[queue_of(person)].append((pair_id, side))
    return votes


def _mixed_queue(
    queue: str,
    votes: Sequence[tuple[str, Side]],
    gold: Mapping[str, Choice],
    config: CampaignConfig,
    random: Random,
    before: Sequence[Item],
) -> tuple[list[Item], list[str]]:
    """Return a queue's votes mixed with gold items and repeats, and what could not be done."""
    notes = []
    had = {item.pair_id for item in before if item.queue == queue}
    fresh = sorted(set(gold) - had)
    wanted = share_of(config.gold_share, len(votes)) if gold else 0
    drawn = random.sample(fresh, min(wanted, len(fresh)))
    if len(drawn) < wanted:
        notes.append(f"{queue}: {len(drawn)} gold items, not {wanted}; there are no more")
    shown = [Item("", pair_id, queue, side, "vote") for pair_id, side in votes]
    shown += [
        Item("", pair_id, queue, side, "gold", gold[pair_id])
        for pair_id, side in zip(drawn, sides(len(drawn), random), strict=True)
    ]
    random.shuffle(shown)
    repeats = share_of(config.repeat_share, len(votes))
    mixed = with_repeats(shown, repeats, config.repeat_distance, random)
    placed = len(mixed) - len(shown)
    if placed < repeats:
        notes.append(f"{queue}: {placed} repeats, not {repeats}; the queue is too short")
    return mixed, notes


def plan_training(
    answers: Mapping[str, Choice],
    config: CampaignConfig,
    secret: bytes,
    before: Sequence[Item] = (),
) -> Plan:
    """Return the items of the training round: every pair once in each queue that lacks it."""
    random = rng(config.seed, "training", len(before))
    existing = {(item.queue, item.pair_id) for item in before}
    items = []
    for queue in [training_queue_of(person) for person in config.people or (None,)]:
        new = [pair_id for pair_id in answers if (queue, pair_id) not in existing]
        for pair_id, side in zip(new, sides(len(new), random), strict=True):
            item = Item("", pair_id, queue, side, "training", answers[pair_id])
            items.append(_named(item, secret))
    return Plan(tuple(items))


def plan_adjudication(
    pair_ids: Sequence[str],
    person: str,
    config: CampaignConfig,
    secret: bytes,
    before: Sequence[Item] = (),
) -> Plan:
    """Return the items for a senior labeller, in the order given."""
    random = rng(config.seed, "adjudication", person, len(before))
    queue = queue_of(person, adjudication=True)
    return Plan(
        tuple(
            _named(Item("", pair_id, queue, side, "adjudication"), secret)
            for pair_id, side in zip(pair_ids, sides(len(pair_ids), random), strict=True)
        )
    )


def assign(
    pair_ids: Sequence[str],
    people: Sequence[str],
    overlap: int,
    random: Random,
    loads: Mapping[str, int] | None = None,
    together: Mapping[frozenset[str], int] | None = None,
) -> dict[str, list[str]]:
    """Return who votes on which pair: ``overlap`` different people each.

    The loads added here differ by at most one, and ``loads`` from before decide who gets one more;
    people who joined later need not catch up. Every two people share about as many pairs as any
    other two, as far as one pass can do that: agreement between two people needs pairs that both
    judged. Ties are broken at random.
    """
    most = max((loads or {}).values(), default=0)
    load = {person: max((loads or {}).get(person, 0), most - 1) for person in people}
    shared: Counter[frozenset[str]] = Counter(together or {})
    order = list(pair_ids)
    random.shuffle(order)
    assigned = {}
    for pair_id in order:
        chosen: list[str] = []
        for _ in range(overlap):
            chance = {person: random.random() for person in people}
            person = min(
                (person for person in people if person not in chosen),
                key=lambda person: (
                    load[person],
                    sum(shared[frozenset((person, other))] for other in chosen),
                    chance[person],
                ),
            )
            load[person] += 1
            shared.update(frozenset((person, other)) for other in chosen)
            chosen.append(person)
        random.shuffle(chosen)
        assigned[pair_id] = chosen
    return {pair_id: assigned[pair_id] for pair_id in pair_ids}


def sides(count: int, random: Random) -> list[Side]:
    """Return which response comes first, for so many showings: each side for half of them.

    The order is random, and so is which side gets the odd one.
    """
    both: list[Side] = ["a", "b"]
    random.shuffle(both)
    drawn = [both[number % 2] for number in range(count)]
    random.shuffle(drawn)
    return drawn


def share_of(share: float, count: int) -> int:
    """Return a share of a count; at least one where both are above zero."""
    return max(1, round(share * count)) if share > 0 and count > 0 else 0


def with_repeats(shown: Sequence[Item], count: int, distance: int, random: Random) -> list[Item]:
    """Mix second showings of votes into a queue, each ``distance`` or more after the first.

    In a queue shorter than twice the distance, half its length is the distance. The side is drawn
    again.
    """
    apart = min(distance, len(shown) // 2)
    candidates = [
        position
        for position, item in enumerate(shown)
        if item.purpose == "vote" and apart > 0 and position + apart <= len(shown)
    ]
    chosen = random.sample(candidates, min(count, len(candidates)))
    placed: list[tuple[float, float, Item]] = [
        (float(position), 0.0, item) for position, item in enumerate(shown)
    ]
    for position, side in zip(chosen, sides(len(chosen), random), strict=True):
        first = shown[position]
        again = Item("", first.pair_id, first.queue, side, "repeat")
        # Before the item that is there now; other repeats in between only add to the distance.
        target = random.randint(position + apart, len(shown))
        placed.append((target - 0.5, random.random(), again))
    placed.sort(key=lambda entry: entry[:2])
    return [item for _, _, item in placed]


def _history(before: Sequence[Item]) -> tuple[Counter[str], Counter[frozenset[str]]]:
    """Return how many votes each person was given, and how many pairs every two people share."""
    loads: Counter[str] = Counter()
    people: dict[str, list[str]] = defaultdict(list)
    for item in before:
        if item.purpose == "vote" and item.person is not None:
            loads[item.person] += 1
            people[item.pair_id].append(item.person)
    together: Counter[frozenset[str]] = Counter()
    for names in people.values():
        together.update(
            frozenset((first, second)) for first in names for second in names if first < second
        )
    return loads, together


def _named(item: Item, secret: bytes) -> Item:
    text = "\x1f".join(("item", item.purpose, item.pair_id, item.queue))
    name = hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()[:24]
    return Item(name, item.pair_id, item.queue, item.shown_first, item.purpose, item.answer)


def pseudonym(secret: bytes, user_id: str) -> str:
    """Return the name under which a user's labels leave the campaign."""
    return "p-" + hmac.new(secret, f"person\x1f{user_id}".encode(), hashlib.sha256).hexdigest()[:8]
