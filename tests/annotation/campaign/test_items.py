"""Who is shown what: the properties that a campaign's design must have, whatever is drawn."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.campaign.config import CampaignConfig
from annotation.campaign.items import (
    RESERVE,
    SHARED,
    assign,
    person_of,
    plan,
    plan_adjudication,
    pseudonym,
    queue_of,
    share_of,
    sides,
)

SECRET = b"a secret for tests"
PEOPLE = ("ana", "ben", "cem", "dora")
GOLD = {f"g-{number}": "a" for number in range(40)}


def pairs(count):
    return [f"p-{number}" for number in range(count)]


def by_queue(items):
    queues = defaultdict(list)
    for item in items:
        if item.queue != RESERVE:
            queues[item.queue].append(item)
    return queues


@given(
    count=st.integers(1, 60),
    people=st.integers(1, 8),
    data=st.data(),
    seed=st.integers(0, 1000),
)
def test_everybody_gets_as_many_pairs_and_nobody_a_pair_twice(count, people, data, seed):
    names = [f"person-{number}" for number in range(people)]
    overlap = data.draw(st.integers(1, people))
    assigned = assign(pairs(count), names, overlap, Random(seed))
    assert list(assigned) == pairs(count)
    assert all(len(set(who)) == len(who) == overlap for who in assigned.values())
    loads = Counter(name for who in assigned.values() for name in who)
    assert max(loads.values()) - min(loads[name] for name in names) <= 1


def test_every_two_people_share_as_many_pairs():
    assigned = assign(pairs(600), PEOPLE, 2, Random(0))
    together = Counter(frozenset(who) for who in assigned.values())
    counts = [together[frozenset(two)] for two in itertools.combinations(PEOPLE, 2)]
    # 600 pairs over 6 couples; drawing people at random would leave a spread of about ten.
    assert sum(counts) == 600
    assert max(counts) - min(counts) <= 2


def test_who_gets_the_odd_pair_is_drawn():
    odd = Counter(assign(["x"], PEOPLE, 1, Random(seed))["x"][0] for seed in range(200))
    assert set(odd) == set(PEOPLE)
    assert min(odd.values()) > 25


def test_loads_go_on_from_before_but_newcomers_need_not_catch_up():
    first = assign(pairs(10), PEOPLE[:3], 2, Random(0))  # 20 votes over three: 7, 7, 6
    loads = Counter(name for who in first.values() for name in who)
    fewest = min(loads, key=loads.get)
    second = assign(["x"], PEOPLE[:3], 1, Random(1), loads)
    assert second["x"] == [fewest]
    joined = assign(pairs(100), PEOPLE, 1, Random(0), Counter(ana=50, ben=50, cem=50))
    new = Counter(name for who in joined.values() for name in who)
    assert 25 <= new["dora"] <= 26


@given(count=st.integers(0, 50), seed=st.integers(0, 1000))
def test_each_side_comes_first_half_of_the_time(count, seed):
    drawn = Counter(sides(count, Random(seed)))
    assert sum(drawn.values()) == count
    assert abs(drawn["a"] - drawn["b"]) <= 1


def test_which_side_has_one_more_is_drawn():
    extra = Counter(Counter(sides(1, Random(seed)))["a"] for seed in range(400))
    assert 150 < extra[1] < 250


@pytest.mark.parametrize(
    ("share", "count", "expected"), [(0.05, 100, 5), (0.05, 3, 1), (0.0, 100, 0), (0.5, 0, 0)]
)
def test_shares_are_rounded_but_never_to_nothing(share, count, expected):
    assert share_of(share, count) == expected


@settings(max_examples=60)
@given(
    count=st.integers(1, 80),
    overlap=st.integers(1, 4),
    gold_share=st.sampled_from([0.0, 0.05, 0.3]),
    repeat_share=st.sampled_from([0.0, 0.1, 0.5]),
    distance=st.integers(1, 30),
    seed=st.integers(0, 100),
)
def test_queues_have_what_they_should(count, overlap, gold_share, repeat_share, distance, seed):
    far = {"repeat_distance": distance} if repeat_share else {}
    config = CampaignConfig(
        people=PEOPLE,
        overlap=overlap,
        gold_share=gold_share,
        repeat_share=repeat_share,
        seed=seed,
        **far,
    )
    made = plan(pairs(count), GOLD, config, SECRET)
    votes = Counter(item.pair_id for item in made.items if item.purpose == "vote")
    assert votes == dict.fromkeys(pairs(count), overlap)
    for queue, items in by_queue(made.items).items():
        assert person_of(queue) in PEOPLE
        purposes = Counter(item.purpose for item in items)
        assert purposes["gold"] == min(share_of(gold_share, purposes["vote"]), len(GOLD))
        first = {item.pair_id: place for place, item in enumerate(items) if item.purpose == "vote"}
        assert len(first) == purposes["vote"]
        again = {
            item.pair_id: place for place, item in enumerate(items) if item.purpose == "repeat"
        }
        assert len(again) == purposes["repeat"] <= share_of(repeat_share, purposes["vote"])
        apart = min(distance, (purposes["vote"] + purposes["gold"]) // 2)
        assert all(place - first[pair_id] >= apart for pair_id, place in again.items())
        assert {item.answer for item in items if item.purpose == "gold"} <= {"a"}
        assert {item.answer for item in items if item.purpose != "gold"} <= {None}


def test_repeats_are_there_and_mixed_in():
    config = CampaignConfig(people=PEOPLE, overlap=2, repeat_share=0.2, repeat_distance=10)
    items = by_queue(plan(pairs(200), GOLD, config, SECRET).items)[queue_of("ana")]
    repeats = [place for place, item in enumerate(items) if item.purpose == "repeat"]
    assert len(repeats) == 20
    assert max(repeats) - min(repeats) > 50
    gold = [place for place, item in enumerate(items) if item.purpose == "gold"]
    assert max(gold) - min(gold) > 50


def test_the_sides_of_a_pair_s_people_balance_and_repeats_are_drawn_anew():
    config = CampaignConfig(people=PEOPLE, overlap=4, repeat_share=1.0, repeat_distance=1)
    made = plan(pairs(100), {}, config, SECRET)
    firsts = defaultdict(Counter)
    for item in made.items:
        if item.purpose == "vote":
            firsts[item.pair_id][item.shown_first] += 1
    assert set(map(frozenset, (c.items() for c in firsts.values()))) == {
        frozenset({("a", 2), ("b", 2)})
    }
    first = {(i.queue, i.pair_id): i.shown_first for i in made.items if i.purpose == "vote"}
    same = [first[i.queue, i.pair_id] == i.shown_first for i in made.items if i.purpose == "repeat"]
    assert 0.3 < sum(same) / len(same) < 0.7


def test_a_shared_queue_has_every_pair_once():
    config = CampaignConfig(gold_share=0.1, repeat_share=0.1)
    queues = by_queue(plan(pairs(100), GOLD, config, SECRET).items)
    assert list(queues) == [SHARED]
    purposes = Counter(item.purpose for item in queues[SHARED])
    assert purposes == {"vote": 100, "gold": 10, "repeat": 10}


def test_ids_tell_nothing_and_are_never_the_same():
    config = CampaignConfig(people=PEOPLE, overlap=2, repeat_share=0.5)
    items = plan(pairs(100), GOLD, config, SECRET).items
    ids = [item.id for item in items]
    assert len(set(ids)) == len(ids)
    assert all(len(name) == 24 and set(name) <= set("0123456789abcdef") for name in ids)
    # A sorted list of ids says nothing about purposes: repeats are spread over it evenly.
    ranked = [item.purpose for item in sorted(items, key=lambda item: item.id)]
    places = [place for place, purpose in enumerate(ranked) if purpose == "repeat"]
    assert 0.4 < sum(places) / len(places) / len(ranked) < 0.6
    other = plan(pairs(100), GOLD, config, b"another secret").items
    assert not set(ids) & {item.id for item in other}


def test_the_same_seed_draws_the_same_and_another_seed_another():
    config = CampaignConfig(people=PEOPLE, overlap=2)
    made = plan(pairs(50), GOLD, config, SECRET)
    assert plan(pairs(50), GOLD, config, SECRET) == made
    other = plan(pairs(50), GOLD, config.model_copy(update={"seed": 1}), SECRET)
    assert [item.pair_id for item in other.items] != [item.pair_id for item in made.items]


def test_an_extension_gives_nobody_a_gold_item_twice():
    config = CampaignConfig(people=PEOPLE, overlap=2, gold_share=0.3)
    gold = dict(list(GOLD.items())[:6])
    first = plan(pairs(20), gold, config, SECRET).items  # ten votes each: three gold items
    second = plan([f"q-{n}" for n in range(40)], gold, config, SECRET, first)
    given_out = Counter(
        (i.queue, i.pair_id) for i in (*first, *second.items) if i.purpose == "gold"
    )
    assert set(given_out.values()) == {1}
    assert any("3 gold items, not 6; there are no more" in note for note in second.notes)


def test_gold_that_nobody_got_is_kept_in_reserve():
    config = CampaignConfig(people=("ana",), overlap=1, gold_share=0.1, repeat_share=0)
    items = plan(pairs(10), {"g-1": "a", "g-2": "tie"}, config, SECRET).items
    assert Counter(item.queue for item in items if item.purpose == "gold") == {
        queue_of("ana"): 1,
        RESERVE: 1,
    }


def test_a_senior_labeler_s_queue_keeps_the_order():
    items = plan_adjudication(pairs(30), "eva", CampaignConfig(), SECRET).items
    assert [item.pair_id for item in items] == pairs(30)
    assert {item.queue for item in items} == {queue_of("eva", adjudication=True)}
    assert Counter(item.shown_first for item in items) == {"a": 15, "b": 15}
    assert {item.person for item in items} == {"eva"}


def test_pseudonyms_stay_the_same_and_tell_nothing():
    assert pseudonym(SECRET, "user-1") == pseudonym(SECRET, "user-1")
    assert pseudonym(SECRET, "user-1") != pseudonym(SECRET, "user-2")
    assert pseudonym(SECRET, "user-1") != pseudonym(b"another", "user-1")
    assert pseudonym(SECRET, "user-1").startswith("p-")
    assert len({pseudonym(SECRET, f"user-{n}") for n in range(2000)}) == 2000
