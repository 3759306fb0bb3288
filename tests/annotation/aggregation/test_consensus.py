"""Votes to outcomes: majorities and weights by hand, Dawid-Skene against its own paper."""

from __future__ import annotations

import json
import math
import random
from collections import Counter, defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation.aggregation import crowd_models as crowd_models
from annotation.aggregation.consensus import entropy, outcome, reach_consensus
from annotation.aggregation.counted_vote import CountedVote
from annotation.aggregation.methods import METHODS
from annotation.aggregation.reliability import (
    Score,
    agreement_with_others,
    gold_scores,
    laplace,
    reliabilities,
    vote_weight,
)
from plumbline.data.labels import CHOICES
from plumbline.errors import DataError

MODELS = ("dawid_skene", "glad", "mace")

#: Table 1 of Dawid and Skene (1979): fitness for anaesthesia of 45 patients, one number each. Its
#: digits: the first observer's three ratings, then one each of observers 2 to 5.
# fmt: off
ANAESTHETISTS = (
    1111111, 3334334, 1122122, 2223121, 2223222, 2223322, 1222111, 3333433, 2222223,
    2322223, 4444444, 2223343, 1111111, 2223212, 1211111, 1112111, 1111111, 1111111,
    2222221, 2221322, 2222222, 2222221, 2223222, 2212222, 1111111, 1111111, 2322222,
    1111111, 1111111, 1121121, 1111111, 3333233, 1111111, 2222222, 2223232, 4334343,
    2212232, 2323233, 3333432, 1111111, 1111111, 1212111, 2322222, 1211111, 2222222,
)
# fmt: on
#: Their classes 1 to 4 as our choices, whose meaning no method knows.
CLASSES = dict(zip("1234", CHOICES, strict=True))


@pytest.fixture
def few_rounds():
    """Models that stop early: enough where it does not matter what they come to."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("ROUNDS", 5), ("GLAD_ROUNDS", 1), ("RESTARTS", 1)):
            patch.setattr(crowd_models, name, value)
        yield


def vote(pair_id, person, choice):
    return CountedVote(pair_id, person, choice)


def votes_from(table):
    """Read votes from pair -> "person:choice …"."""
    return [
        vote(pair_id, *answer.split(":"))
        for pair_id, answers in table.items()
        for answer in answers.split()
    ]


def anaesthetists():
    return [
        vote(f"patient {number:02d}", f"observer {max(1, column - 2)}", CLASSES[digit])
        for number, digits in enumerate(ANAESTHETISTS, 1)
        for column, digit in enumerate(str(digits), 1)
    ]


def crowd(seed=0, pairs=300, overlap=3, skills=(0.9, 0.85, 0.8, 0.5, 0.5, 0.5)):
    """Draw votes of people who are right this often; return them and the truth."""
    source = random.Random(seed)
    votes, truth = [], {}
    for number in range(pairs):
        pair_id = f"pair {number}"
        truth[pair_id] = source.choice("ab")
        for person in source.sample(range(len(skills)), overlap):
            right = source.random() < skills[person]
            wrong = "b" if truth[pair_id] == "a" else "a"
            votes.append(vote(pair_id, f"person {person}", truth[pair_id] if right else wrong))
    return votes, truth


def accuracy(consensus, truth):
    return sum(consensus.outcomes[pair_id].choice == t for pair_id, t in truth.items()) / len(truth)


# --- Majority


def test_majorities_by_hand():
    found = reach_consensus(
        votes_from({"p": "x:a y:a z:b", "q": "x:a y:b", "r": "x:tie y:tie z:a", "s": "x:both_bad"}),
        "majority",
    ).outcomes
    assert [found[pair].choice for pair in "pqrs"] == ["a", None, "tie", "both_bad"]
    assert found["p"].probabilities == pytest.approx(
        {"a": 2 / 3, "b": 1 / 3, "tie": 0, "both_bad": 0}
    )
    assert found["q"].confidence == 0.5
    assert found["s"].confidence == 1.0


def test_the_majority_of_pandalm_s_annotators_is_as_published(real_file):
    rows = json.loads(real_file("pandalm/testset-v1.json").read_text())
    choices = {0: "tie", 1: "a", 2: "b"}
    votes = [
        vote(str(row["idx"]), f"annotator{n}", choices[row[f"annotator{n}"]])
        for row in rows
        for n in (1, 2, 3)
    ]
    found = reach_consensus(votes, "majority").outcomes
    assert Counter(one.choice for one in found.values()) == {"tie": 105, "a": 422, "b": 472}


def test_uncertainty_is_normalized_entropy():
    assert entropy([0.5, 0.25, 0.25, 0.0]) == pytest.approx(1.5)
    assert outcome({"a": 0.5, "b": 0.5}).uncertainty == pytest.approx(1)
    assert outcome({"a": 0.5, "b": 0.25, "tie": 0.25, "both_bad": 0.0}).uncertainty == 0.75
    assert outcome({"a": 1.0}).uncertainty == 0


# --- Weights


def test_a_vote_s_weight_is_the_log_odds():
    assert vote_weight(0.75, 2) == pytest.approx(math.log(3))
    assert vote_weight(0.75, 4) == pytest.approx(math.log(9))
    assert vote_weight(0.5, 2) == 0
    assert vote_weight(0.2, 2) == 0  # votes are not turned round
    for wrong in ((0.0, 2), (1.0, 2), (0.7, 1)):
        with pytest.raises(ValueError, match="has no weight"):
            vote_weight(*wrong)


def test_agreement_leaves_the_person_s_own_vote_out():
    votes = votes_from({"p": "x:a y:a z:b", "q": "x:a y:b", "r": "x:b", "s": "x:a y:a z:a w:b"})
    # p: for x the others are a, b (no majority); likewise for y; for z they are a, a.
    # q: each other's opposite. r: nobody else. s: x, y, z see two against one; w sees a, a, a.
    assert agreement_with_others(votes) == {
        "x": Score(1, 2), "y": Score(1, 2), "z": Score(1, 2), "w": Score(0, 1),
    }  # fmt: skip


def test_gold_scores_and_where_reliability_comes_from():
    gold = votes_from({"g1": "x:a y:b", "g2": "x:b y:b", "unknown": "x:a"})
    answers = {"g1": "a", "g2": "b"}
    assert gold_scores(gold, answers) == {"x": Score(2, 2), "y": Score(1, 2)}
    found = reliabilities(votes_from({"p": "x:a z:a", "q": "w:b"}), gold, answers)
    assert found["x"] == (0.75, Score(2, 2), "gold")  # (2 + 1) / (2 + 2)
    assert found["z"] == (pytest.approx(2 / 3), Score(1, 1), "others")
    assert found["w"] == (pytest.approx(4 / 5), Score(0, 0), "everybody")  # 3 of 3 in all
    assert laplace(Score(0, 0)) == 0.5
    assert "y" not in found


def test_a_weighted_majority_by_hand():
    # Gold makes x right with 9/10 and y, z with 6/10: odds of 9 against 1.5 * 1.5.
    answers = {f"g{n}": "a" for n in range(8)}
    right = {"x": 8, "y": 5, "z": 5}
    gold = [
        vote(f"g{n}", person, "a" if n < count else "b")
        for person, count in right.items()
        for n in range(8)
    ]
    votes = votes_from({"p": "x:a y:b z:b", "q": "x:b y:b z:a"})
    found = reach_consensus(votes, "weighted", gold=gold, answers=answers)
    assert reach_consensus(votes, "majority").outcomes["p"].choice == "b"
    assert found.outcomes["p"].choice == "a"
    assert found.outcomes["p"].confidence == pytest.approx(9 / (9 + 1.5 * 1.5))
    assert found.outcomes["q"].confidence == pytest.approx(13.5 / (13.5 + 1.5))
    people = reliabilities(votes, gold, answers)
    assert {reliability.basis for reliability in people.values()} == {"gold"}


def test_whoever_is_at_chance_weighs_nothing_and_leaves_no_outcome():
    answers = {f"g{n}": "a" for n in range(4)}
    gold = [vote(f"g{n}", "x", "b") for n in range(4)] + [vote(f"g{n}", "y", "a") for n in range(4)]
    found = reach_consensus(
        votes_from({"p": "x:a y:b", "q": "x:a"}), "weighted", gold=gold, answers=answers
    ).outcomes
    assert found["p"].choice == "b"
    assert found["q"].choice is None


# --- Models of the people


@pytest.fixture(scope="module")
def fitness():
    return reach_consensus(anaesthetists(), "dawid_skene").outcomes


def test_dawid_skene_on_the_anaesthetists_as_published(fitness):
    found = fitness
    means = {c: sum(one.probabilities[c] for one in found.values()) / 45 for c in CHOICES}
    # Dawid and Skene (1979): the marginal probabilities of the four classes.
    assert [round(means[choice], 2) for choice in CHOICES] == [0.40, 0.42, 0.11, 0.07]
    # Patient 36 was rated 3 four times and 4 three times, and yet belongs to class 4: observer 2,
    # who says 4, says so of nobody else. Here the model and the majority part.
    assert found["patient 36"].choice == CLASSES["4"]
    assert (
        reach_consensus(anaesthetists(), "majority").outcomes["patient 36"].choice == CLASSES["3"]
    )


def em_by_the_book(votes, rounds):
    """Equations 2.3, 2.4 and 2.5 of Dawid and Skene (1979), without logarithms or tables."""
    pairs = sorted({v.pair_id for v in votes})
    choices = sorted({v.choice for v in votes})
    people = {v.person for v in votes}
    cast = defaultdict(Counter)
    for v in votes:
        cast[v.pair_id][v.person, v.choice] += 1
    belief = {
        i: {j: sum(n for (_, c), n in cast[i].items() if c == j) / cast[i].total() for j in choices}
        for i in pairs
    }
    for _ in range(rounds):
        prior = {j: sum(belief[i][j] for i in pairs) / len(pairs) for j in choices}
        error = {
            (k, j): {
                c: sum(belief[i][j] * cast[i][k, c] for i in pairs)
                / (sum(belief[i][j] * cast[i][k, d] for i in pairs for d in choices) or 1)
                for c in choices
            }
            for k in people
            for j in choices
        }
        for i in pairs:
            likely = {
                j: prior[j] * math.prod(error[k, j][c] ** n for (k, c), n in cast[i].items())
                for j in choices
            }
            belief[i] = {j: value / sum(likely.values()) for j, value in likely.items()}
    return belief


def test_dawid_skene_equals_the_equations(fitness):
    expected = em_by_the_book(anaesthetists(), 100)
    for pair_id, belief in expected.items():
        assert dict(fitness[pair_id].probabilities) == pytest.approx(belief, abs=1e-6)


@pytest.mark.parametrize("method", [*MODELS, "weighted"])
def test_models_beat_the_majority_where_half_the_people_toss_coins(method, monkeypatch):
    for name, value in (("ROUNDS", 10), ("GLAD_ROUNDS", 3), ("RESTARTS", 2)):
        monkeypatch.setattr(crowd_models, name, value)
    gains = []
    for seed in range(2):
        votes, truth = crowd(seed, pairs=200)
        majority, model = (reach_consensus(votes, name) for name in ("majority", method))
        assert model.method == method
        assert model.note is None
        gains.append(accuracy(model, truth) - accuracy(majority, truth))
    assert sum(gains) / len(gains) > 0.03


def test_gold_items_teach_dawid_skene_who_turns_the_scale_round(monkeypatch):
    monkeypatch.setattr(crowd_models, "ROUNDS", 20)
    # x always says the opposite of y. Without gold nobody can say who is right.
    votes = [
        vote(f"p{n}", person, choice)
        for n in range(20)
        for person, choice in (("x", "ab"[n % 2]), ("y", "ba"[n % 2]))
    ]
    answers = {"g0": "a", "g1": "b", "g2": "a", "g3": "b"}
    gold = [vote(g, "x", a) for g, a in answers.items()]
    gold += [vote(g, "y", "b" if a == "a" else "a") for g, a in answers.items()]
    blind = reach_consensus(votes, "dawid_skene")
    assert {one.choice for one in blind.outcomes.values()} == {None}
    found = reach_consensus(votes, "dawid_skene", gold=gold, answers=answers).outcomes
    assert [found[f"p{n}"].choice for n in range(4)] == ["a", "b", "a", "b"]
    assert set(found) == {f"p{n}" for n in range(20)}  # a gold item is not an outcome


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_votes_does_not_matter_and_nothing_is_printed(
    method, few_rounds, capfd, recwarn
):
    votes, _ = crowd(5, pairs=20)
    shuffled = random.Random(1).sample(votes, len(votes))
    first, second = (reach_consensus(v, method, seed=3) for v in (votes, shuffled))
    assert first == second
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_mace_does_not_care_which_name_sorts_first(few_rounds):
    # crowd-kit keeps its tables in step only where names appear in sorted order.
    votes, truth = crowd(2, pairs=80, skills=(0.95, 0.9, 0.9, 0.5, 0.5))
    renamed = [v._replace(person=f"person {9 - int(v.person[-1])}") for v in votes]
    found, again = (reach_consensus(v, "mace", seed=0) for v in (votes, renamed))
    assert abs(accuracy(found, truth) - accuracy(again, truth)) < 0.01


@pytest.mark.parametrize("method", [method for method in METHODS if method != "majority"])
@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"p": "x:a", "q": "x:b"}, "only one person voted"),
        ({"p": "x:a y:a", "q": "x:a y:a"}, "all votes are the same"),
        ({"p": "x:a", "q": "y:b"}, "no pair has two votes"),
    ],
)
def test_where_nothing_can_be_learnt_of_people_it_is_the_majority_and_says_so(method, table, why):
    votes = votes_from(table)
    # A gold item of which nobody knows the answer tells nothing either.
    found = reach_consensus(votes, method, gold=[vote("g", "x", "a")], answers={"other": "a"})
    assert found.note == f"majority instead of {method}: {why}"
    assert found.method == "majority"
    assert found.outcomes == reach_consensus(votes, "majority").outcomes


@pytest.mark.parametrize("method", METHODS)
def test_no_vote_is_an_error(method):
    with pytest.raises(DataError, match="no vote to count"):
        reach_consensus([], method)


some_votes = st.lists(
    st.builds(
        CountedVote, st.sampled_from("pqrs"), st.sampled_from("xyz"), st.sampled_from(CHOICES)
    ),
    min_size=1,
    max_size=14,
    unique_by=lambda v: (v.pair_id, v.person),
)


@pytest.mark.parametrize("method", METHODS)
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(votes=some_votes)
def test_few_votes_still_give_probabilities(method, few_rounds, votes):
    found = reach_consensus(votes, method).outcomes
    assert set(found) == {v.pair_id for v in votes}
    for one in found.values():
        assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-6)
        assert one.choice is None or one.probabilities[one.choice] == one.confidence
