"""The embedded world: deterministic, learnable from text alone, and able to judge any text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.data.records import assistant, problem_with_row, prompt_id, user
from plumbline.errors import ConfigError
from plumbline.world.clerks import FILLERS, RUDE, Style, answer
from plumbline.world.corpus import corpus
from plumbline.world.data import USES, demonstrations, prompts, share_of
from plumbline.world.gold import COST_PER_WORD, GoldUtility, gold_score
from plumbline.world.requests import KINDS, read, total
from plumbline.world.shop import FACTS, PRODUCTS, Product, Shop

GOLD = GoldUtility(0)
SHOP = Shop(
    {name: Product(name, price=7, aisle=3, stock=20, guarantee=2) for name in PRODUCTS}, delivery=4
)
SUM = [user("What do 3 hammers cost with delivery?")]
RIGHT_SUM = "Certainly. 3 hammers cost 3 x 7 = 21. Delivered: 21 + 4 = 25. Answer: $25. Thank you!"


def test_everything_follows_from_the_data_seed():
    assert demonstrations(3, 40) == demonstrations(3, 40)
    assert corpus(3, 40) == corpus(3, 40)
    assert demonstrations(3, 40) != demonstrations(4, 40)
    assert Shop.from_seed(3) == Shop.from_seed(3)
    assert Shop.from_seed(3) != Shop.from_seed(4)


def test_nobody_s_prompts_are_anyone_else_s():
    shares = {
        share: {prompt_id(p) for p in prompts(0, 600, share)}
        for share in ("demonstrations", "preferences", "heldout")
    }
    assert all(len(ids) == 600 for ids in shares.values())
    assert len(set.union(*shares.values())) == 1800
    assert all(share_of(i) == share for share, ids in shares.items() for i in ids)


def test_more_prompts_begin_with_the_same_ones():
    assert prompts(0, 60, "heldout")[:30] == prompts(0, 30, "heldout")


def test_there_are_as_many_of_each_kind_and_form():
    kinds = [read(p).kind for p in prompts(0, 90, "heldout")]
    assert {kind: kinds.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, 30)
    forms = {row["form"] for row in demonstrations(0, 30)}
    assert forms == {"single_turn", "chain_of_thought", "multi_turn"}


def test_model_answers_are_perfect_and_true():
    for prompt in prompts(0, 300, "demonstrations"):
        score = gold_score(GOLD.shop, prompt, answer(GOLD.shop, prompt, Style()))
        assert score.utility == pytest.approx(4.5), prompt


def test_demonstrations_are_true_but_uneven():
    rows = demonstrations(0, 300)
    assert not any(problem_with_row(row, "messages") for row in rows)
    scores = [
        gold_score(GOLD.shop, row["messages"][:-1], row["messages"][-1]["content"]) for row in rows
    ]
    assert min(score.correct for score in scores) >= 0
    mean = sum(score.utility for score in scores) / len(scores)
    assert 2 < mean < 3.7
    assert any(filler in row["messages"][-1]["content"] for row in rows for filler in FILLERS)


def test_a_sum_by_hand():
    request = read(SUM)
    assert (request.kind, request.count, request.product) == ("sum", 3, "hammers")
    assert total(SHOP, request) == 3 * 7 + 4


@pytest.mark.parametrize(
    ("response", "correct"),
    [
        (RIGHT_SUM, 1),
        ("Answer: $25.", 1),
        ("3 hammers cost 3 x 7 = 20. Delivered: 20 + 4 = 25. Answer: $25.", 0),  # two false steps
        ("Answer: $26.", -1),
        ("Answer: $25. Answer: $26.", 0),
        ("It is twenty-five.", 0),
    ],
)
def test_sums_are_judged_by_result_and_steps(response, correct):
    assert gold_score(SHOP, SUM, response).correct == correct


@pytest.mark.parametrize(
    ("response", "correct", "complete"),
    [
        ("The saws cost $7. The saws are in aisle 3.", 1, 1),
        ("The saws cost $7.", 0.5, 0.5),
        ("The saws cost $8.", -0.5, 0.5),
        (
            "The saws cost $7. The saws have a guarantee of 9 years.",
            0,
            0.5,
        ),  # false
        ("Good question.", 0, 0),
    ],
)
def test_facts_are_judged_by_what_was_asked(response, correct, complete):
    prompt = [user("How much are the saws, and where are the saws?")]
    score = gold_score(SHOP, prompt, response)
    assert (score.correct, score.complete) == (correct, complete)


ORDER = [
    user("I am Ben and I want to order 3 saws."),
    assistant("When will you come?"),
    user("On Monday."),
    assistant("Noted."),
    user("Sorry, I need 5 saws."),
    assistant("All right."),
    user("What is my order now?"),
]


@pytest.mark.parametrize(
    ("response", "correct"),
    [
        ("Order: 5 saws for Ben on Monday.", 1),
        ("Order: 3 saws for Ben on Monday.", 0.5),  # what was said last holds
        ("Order: 5 saws for Ben.", 0.75),
        ("Order: 5 drills for Ana on Friday.", -0.5),
    ],
)
def test_orders_carry_slots_over_turns(response, correct):
    assert gold_score(SHOP, ORDER, response).correct == correct


def test_manners_format_and_brevity_by_hand():
    polite = gold_score(SHOP, SUM, RIGHT_SUM)
    assert (polite.polite, polite.format, polite.brevity) == (1, 1, 0)
    assert gold_score(SHOP, SUM, f"{RIGHT_SUM} {RUDE[0]}").polite == -1
    assert gold_score(SHOP, SUM, "Hello. Answer: $25.").polite == 0.5
    assert gold_score(SHOP, SUM, "answer: 25").format == pytest.approx(1 / 5)
    long = gold_score(SHOP, SUM, "word " * 30)
    assert long.brevity == pytest.approx(COST_PER_WORD * 10)
    assert gold_score(SHOP, SUM, "word " * 500).brevity == 2


def test_an_order_is_read_back_once():
    once, twice = "Order: 5 saws for Ben on Monday.", "Order: 5 saws. Order: 5 saws for Ben."
    assert gold_score(SHOP, ORDER, once).format == 1
    assert gold_score(SHOP, ORDER, twice).format == 3 / 4


@given(st.text(max_size=300), st.integers(0, 11))
def test_any_text_is_judged_within_bounds(response, number):
    prompt = prompts(0, 12, "heldout")[number]
    score = gold_score(GOLD.shop, prompt, response)
    assert -1 <= score.correct <= 1
    assert 0 <= score.complete <= 1
    assert -1 <= score.polite <= 1
    assert 0 <= score.format <= 1
    assert -5.5 <= score.utility <= 4.5


@pytest.mark.parametrize("text", ["", "Sing me a song.", "How much is the moon?"])
def test_a_prompt_that_asks_nothing_the_shop_knows_is_judged_on_manners(text):
    score = gold_score(SHOP, [user(text)], "Certainly. I cannot help with that. Thank you!")
    assert (score.correct, score.complete, score.polite) == (0, 0, 1)


def test_every_part_is_explained_and_adds_up():
    parts = GOLD.explain(SUM, RIGHT_SUM)
    assert sum(parts.values()) == pytest.approx(GOLD.score([SUM], [RIGHT_SUM])[0])


def test_every_fact_of_every_product_can_be_asked_and_read_back():
    facts = {
        (request.product, fact)
        for prompt in prompts(0, 900, "demonstrations")
        if (request := read(prompt)).kind == "facts"
        for fact in request.facts
    }
    assert facts == {(product, fact) for product in PRODUCTS for fact in FACTS}


@pytest.mark.parametrize("share", USES)
def test_more_prompts_than_the_world_has_name_the_setting(share):
    with pytest.raises(ConfigError, match=r"different ones") as failure:
        prompts(0, 5_000, share)
    has = int(re.search(r"has ([\d,]+) different", str(failure.value))[1].replace(",", ""))
    assert len(prompts(0, has, share)) == has
    assert "Lower " in str(failure.value)
