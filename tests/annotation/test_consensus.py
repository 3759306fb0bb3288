"""Votes to outcomes: majorities and weights by hand, Dawid-Skene against its own paper."""

from __future__ import annotations

import json
import math
import random
from collections import Counter, defaultdict
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.aggregate import UNDECIDED, aggregate_labels, preference, soft_label
from annotation.config import AggregationConfig, Method
from annotation.consensus import entropy, outcome, reach_consensus
from annotation.labels import CHOICES, Label, write_labels
from annotation.reliability import (
    Score,
    agreement_with_others,
    gold_scores,
    laplace,
    reliabilities,
    vote_weight,
)
from annotation.votes import (
    CountedVote,
    counted,
    counted_votes,
    plurality,
    read_gold,
    sort_labels,
    tally,
    write_gold,
)
from plumbline.artefacts import Manifest, Store
from plumbline.errors import DataError
from plumbline.progress import Reporter
from plumbline.records import Dropped, assistant, read_dataset, user, write_dataset
from plumbline.stages import Stage

METHODS: tuple[Method, ...] = get_args(Method)
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


def test_uncertainty_is_normalised_entropy():
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
    assert {one.basis for one in found.reliability.values()} == {"gold"}


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
def test_models_beat_the_majority_where_half_the_people_toss_coins(method):
    shares = []
    for seed in range(2):
        votes, truth = crowd(seed, pairs=200)
        majority, model = (reach_consensus(votes, name) for name in ("majority", method))
        assert model.method == method and model.note is None
        shares.append((accuracy(majority, truth), accuracy(model, truth)))
    gain = sum(model - majority for majority, model in shares) / len(shares)
    assert gain > 0.03


def test_gold_items_teach_dawid_skene_who_turns_the_scale_round():
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
def test_the_order_of_votes_does_not_matter_and_nothing_is_printed(method, capfd, recwarn):
    votes, _ = crowd(5, pairs=20)
    shuffled = random.Random(1).sample(votes, len(votes))
    first, second = (reach_consensus(v, method, seed=3) for v in (votes, shuffled))
    assert first == second
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_mace_does_not_care_which_name_sorts_first():
    # crowd-kit keeps its tables in step only where names appear in sorted order.
    votes, truth = crowd(2, pairs=100, skills=(0.95, 0.9, 0.9, 0.5, 0.5))
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
    found = reach_consensus(votes, method)
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
@settings(max_examples=4, deadline=None)
@given(votes=some_votes)
def test_few_votes_still_give_probabilities(method, votes):
    found = reach_consensus(votes, method).outcomes
    assert set(found) == {v.pair_id for v in votes}
    for one in found.values():
        assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-6)
        assert one.choice is None or one.probabilities[one.choice] == one.confidence


# --- Labels to votes


LABEL = Label("p", "ana", "argilla", "a", "2026-01-05T09:00:00+00:00", "a")


def label(choice="a", **changes):
    return replace(LABEL, choice=choice, **changes)


def test_ties_and_bad_pairs_count_as_the_config_says():
    def kinds(**settings):
        config = AggregationConfig(**settings)
        return [counted(choice, config) for choice in CHOICES]

    assert kinds() == ["a", "b", "tie", "both_bad"]
    assert kinds(ties="abstain") == ["a", "b", None, "both_bad"]
    assert kinds(both_bad="tie") == ["a", "b", "tie", "tie"]
    assert kinds(both_bad="tie", ties="abstain") == ["a", "b", None, None]
    assert kinds(both_bad="abstain") == ["a", "b", "tie", None]


def test_labels_are_sorted_by_what_they_are_for_and_counted_once():
    labels = [
        label("a"),
        label("b", created_at="2026-01-05T09:00:05Z"),  # ana thinks again
        label("a", purpose="repeat"),
        label("b", annotator="bo", purpose="repeat"),
        label("a", source="file"),  # another ana
        label("b", pair_id="g", purpose="gold", created_at="2026-01-06T09:00:00+00:00"),
        label("a", pair_id="g", purpose="gold"),
        label("tie", annotator="chief", purpose="adjudication"),
    ]
    ballot = sort_labels(labels)
    assert [(v.source, v.choice) for v in ballot.votes["p"]] == [("argilla", "b"), ("file", "a")]
    assert [gold.choice for gold in ballot.gold] == ["a"]  # the first answer, not the later
    assert [one.choice for one in ballot.decisions["p"]] == ["tie"]
    assert (ballot.repeats, ballot.superseded) == (2, 1)
    assert sort_labels([labels[1], labels[0]]).votes["p"][0].choice == "b"
    assert tally(labels[:3]) == {"a": 2, "b": 1, "tie": 0, "both_bad": 0}
    assert [v.person for v in counted_votes(ballot.votes["p"], AggregationConfig())] == [
        "argilla:ana", "file:ana",
    ]  # fmt: skip


def test_a_time_that_is_none_cannot_decide_which_vote_is_later():
    with pytest.raises(DataError, match="'yesterday' is not ISO 8601"):
        sort_labels([label("a"), label("b", created_at="yesterday")])


def test_known_answers_come_back_and_are_checked(tmp_path):
    assert read_gold(tmp_path) == {}
    write_gold(tmp_path, {"g": "a"})
    assert read_gold(tmp_path) == {"g": "a"}
    (tmp_path / "gold.json").write_text('{"g": "left"}')
    with pytest.raises(DataError, match="answer of g is 'left'"):
        read_gold(tmp_path)


def test_plurality():
    assert plurality(["a", "b", "a"]) == "a"
    assert plurality(["a", "b"]) is None
    assert plurality(["tie"]) == "tie"
    assert plurality([]) is None


# --- Preferences


def test_soft_labels_by_hand():
    probabilities = {"a": 0.6, "b": 0.2, "tie": 0.2}
    assert soft_label(probabilities, "a", 4) == pytest.approx(0.75)
    assert soft_label(probabilities, "b", 4) == pytest.approx(0.25)
    # One imagined vote a side beside four: (4 * 0.75 + 1) / 6.
    assert soft_label(probabilities, "a", 4, prior_votes=1) == pytest.approx(4 / 6)
    row = {"pair_id": "p", "prompt": [], "a": [assistant("x")], "b": [assistant("y")]}
    votes = [
        label("a"),
        label("a", annotator="bo"),
        label("b", annotator="cy"),
        label("tie", annotator="di"),
    ]
    made = preference(row, "a", votes)
    assert made["soft_label"] == made["vote_share"] == pytest.approx(2 / 3)
    assert made["confidence"] == 0.5  # two of four: the tie was a vote too
    assert preference(row, "a", votes, prior_votes=1)["soft_label"] == pytest.approx(3 / 5)


def artefact(folder, store, kind):
    manifest = Manifest(
        kind=kind, id=f"{kind}-1", schema_version=1, stage="test", arguments={}, inputs={},
        seed=None, data_seed=0, metrics={}, versions={}, machine={}, seconds=0.0,
        peak_memory_bytes=0, files={},
    )  # fmt: skip
    store.mkdir(exist_ok=True)
    return Store(store).publish(folder, manifest)


@pytest.fixture
def aggregate(tmp_path):
    """Aggregate labels on pairs ``p0`` … ``p39``; return figures, rows, undecided and dropped."""
    rows = [
        {
            "pair_id": f"p{n}",
            "prompt": [user(f"Question {n}?")],
            "a": [assistant("yes")],
            "b": [assistant("no")],
        }
        for n in range(40)
    ]
    write_dataset(tmp_path / "new", {"train": rows}, kind="prompts", title="Pairs", description="")
    pairs = artefact(tmp_path / "new", tmp_path / "store", "pairs")

    def run(labels, answers=None, **settings):
        folder = tmp_path / "labels"
        folder.mkdir()
        write_labels(folder, labels)
        if answers:
            write_gold(folder, answers)
        made = Stage(tmp_path / "made", Reporter(quiet=True))
        figures = aggregate_labels(
            made,
            config=AggregationConfig(**settings),
            pairs=pairs,
            labels=artefact(folder, tmp_path / "store", "labels"),
            data_seed=0,
        )
        decided = {
            row["pair_id"]: row
            for split in ("train", "test")
            for row in read_dataset(made.folder, split)
        }
        lines = (made.folder / UNDECIDED).read_text().splitlines()
        undecided = {row["pair_id"]: row for row in map(json.loads, lines)}
        return figures, decided, undecided, Dropped.read(made.folder).reasons()

    return run


def ballots(**special):
    """Two votes for a on every pair but those given as a text of choices."""
    labels = []
    for n in range(40):
        choices = special.get(f"p{n}", "a a").split()
        labels += [
            label(choice, pair_id=f"p{n}", annotator=f"person {k}")
            for k, choice in enumerate(choices)
        ]
    return labels


def test_pairs_that_prefer_neither_are_kept_apart_with_the_reason(aggregate):
    figures, decided, undecided, dropped = aggregate(
        ballots(p0="tie tie a", p1="both_bad both_bad", p2="a b", p3="", p4="a a tie b")
    )
    assert set(decided) == {f"p{n}" for n in range(4, 40)}
    assert {pair: row["outcome"] for pair, row in undecided.items()} == {
        "p0": "tie", "p1": "both_bad", "p2": None, "p3": None,
    }  # fmt: skip
    assert dropped == {
        "is a tie, which prefers neither response": 1,
        "has two bad responses, of which neither is preferred": 1,
        "has no majority for either response": 1,
        "has fewer than min_votes (1) votes": 1,
    }
    assert {row["reason"] for row in undecided.values()} == set(dropped)
    assert undecided["p0"]["tally"] == {"a": 1, "b": 0, "tie": 2, "both_bad": 0}
    assert undecided["p0"]["a"] == [assistant("yes")]
    assert (figures["ties"], figures["both_bad"], figures["dropped_rows"]) == (1, 1, 4)
    assert decided["p4"]["vote_share"] == pytest.approx(2 / 3)
    assert decided["p4"]["confidence"] == 0.5


def test_abstentions_do_not_compete(aggregate):
    _, decided, undecided, _ = aggregate(
        ballots(p0="tie tie a", p1="both_bad both_bad b", p2="tie tie"),
        ties="abstain", both_bad="abstain",
    )  # fmt: skip
    assert (decided["p0"]["chosen_side"], decided["p1"]["chosen_side"]) == ("a", "b")
    assert decided["p0"]["votes"] == 3
    assert set(undecided) == {"p2"}


def test_a_senior_labeller_decides_beside_the_votes(aggregate):
    chief = {"annotator": "chief", "purpose": "adjudication"}
    figures, decided, undecided, dropped = aggregate(
        [
            *ballots(p0="a a b", p1="a b", p2="a a", p3="", p4="a a"),
            label("b", pair_id="p0", **chief),
            label("a", pair_id="p1", **chief),
            label("tie", pair_id="p2", **chief),
            label("b", pair_id="p3", **chief),
            label("a", pair_id="p4", **chief),
            label("b", pair_id="p5", **chief),
            label("a", pair_id="p5", annotator="vice", purpose="adjudication"),
        ]
    )
    overruled = decided["p0"]
    assert (overruled["chosen_side"], overruled["decided_by"]) == ("b", "adjudication")
    assert overruled["chosen"] == [assistant("no")]
    # The votes stand as they were cast.
    assert overruled["tally"] == {"a": 2, "b": 1, "tie": 0, "both_bad": 0}
    assert (overruled["votes"], overruled["voted"]) == (3, "a")
    assert overruled["vote_share"] == overruled["confidence"] == pytest.approx(1 / 3)
    assert overruled["soft_label"] == 1.0
    assert (decided["p1"]["chosen_side"], decided["p1"]["voted"]) == ("a", None)
    assert (undecided["p2"]["outcome"], undecided["p2"]["voted"]) == ("tie", "a")
    nobody = decided["p3"]
    assert (nobody["votes"], nobody["vote_share"], nobody["confidence"]) == (0, None, None)
    assert decided["p4"]["decided_by"] == "adjudication"
    assert undecided["p5"]["reason"] == "was adjudicated in different ways"
    assert decided["p6"]["decided_by"] == "votes"
    assert (figures["adjudicated"], figures["overruled"]) == (6, 3)
    assert sum(dropped.values()) == 2


def test_gold_items_and_repeats_are_no_votes(aggregate):
    gold = [label("b", pair_id="p0", annotator=f"g{n}", purpose="gold") for n in range(5)]
    repeats = [label("b", pair_id="p1", annotator="person 0", purpose="repeat")] * 5
    strangers = [label("a", pair_id="elsewhere"), label("a", pair_id="also", purpose="gold")]
    figures, decided, undecided, dropped = aggregate(
        [*ballots(p0="", p2="b a b"), *gold, *repeats, *strangers], answers={"p0": "b"}
    )
    assert undecided["p0"]["reason"] == "is a gold item, on which nobody voted"
    assert (decided["p1"]["chosen_side"], decided["p1"]["votes"]) == ("a", 2)
    assert dropped["is a label on a pair that is not among the pairs"] == 1
    assert figures["repeats"] == 5


def test_gold_accuracy_reaches_the_outcome_of_the_stage(aggregate):
    gold, answers = [], {f"g{n}": "a" for n in range(8)}
    for n in range(8):
        gold.append(label("a", pair_id=f"g{n}", annotator="person 0", purpose="gold"))
        for poor in ("person 1", "person 2"):
            wrong = "a" if n < 5 else "b"
            gold.append(label(wrong, pair_id=f"g{n}", annotator=poor, purpose="gold"))
    _, decided, _, _ = aggregate(
        [*ballots(p0="b a a", p1="b b b"), *gold], answers=answers, method="weighted"
    )
    assert decided["p0"]["chosen_side"] == "b"
    assert decided["p0"]["vote_share"] == pytest.approx(1 / 3)
    # Weights: log-odds of 9/10 against those of 6/10 twice.
    assert decided["p0"]["soft_label"] == pytest.approx(9 / (9 + 1.5**2))


@pytest.mark.parametrize("method", MODELS)
def test_models_make_preferences(aggregate, method):
    varied = ballots(**{f"p{n}": "b b a" if n % 3 else "a b a" for n in range(30)})
    figures, decided, undecided, _ = aggregate(varied, method=method)
    assert len(decided) + len(undecided) == 40
    assert 0.5 < figures["mean_confidence"] <= 1


def test_a_fallback_is_said(tmp_path, aggregate, monkeypatch):
    said = []
    monkeypatch.setattr(Stage, "say", lambda self, text: said.append(text))
    aggregate(ballots(), method="glad")
    assert said == ["majority instead of glad: all votes are the same"]
