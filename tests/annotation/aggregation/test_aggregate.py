"""Labels to votes and votes to preferences: by hand, with what is kept apart and who decided."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from annotation.aggregation import crowd_models
from annotation.aggregation.aggregate import (
    UNDECIDED,
    aggregate_labels,
    aspect_shares,
    preference,
    soft_label,
)
from annotation.aggregation.config import AggregationConfig
from annotation.aggregation.votes import counted, counted_votes, plurality, sort_labels, tally
from annotation.gold_answers import read_gold, write_gold
from plumbline.data.labels import CHOICES, Label, write_labels
from plumbline.data.records import assistant, read_dataset, user, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.runs.artifacts import Manifest, Store
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage

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


def test_graded_votes_become_a_margin():
    def margin(*votes, chosen="a"):
        labels = [label(choice, strength=strength) for choice, strength in votes]
        row = {"pair_id": "p", "prompt": [], "a": [], "b": []}
        return preference(row, chosen, labels).get("margin", "no column")

    assert margin(("a", 3), ("a", 1)) == 2.0
    assert margin(("a", 3), ("tie", None), ("b", 1)) == pytest.approx(2 / 3)
    assert margin(("b", 2), ("a", 1), chosen="b") == 0.5
    assert margin(("a", 1), ("b", 3), ("a", 1)) == 0.0
    assert margin(("a", 2), ("a", None)) == 2.0  # who was not asked says nothing
    assert margin(("a", None), ("tie", None)) == "no column"


def artifact(folder, store, kind):
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
    pairs = artifact(tmp_path / "new", tmp_path / "store", "pairs")

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
            labels=artifact(folder, tmp_path / "store", "labels"),
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


def test_names_that_differ_in_capitals_alone_are_said(aggregate, tmp_path):
    votes = [
        label("a", pair_id=f"p{n}", annotator=name)
        for n in range(40)
        for name in ("Ana", "ana", "Jos\u00e9", "Jose\u0301", "ben")
    ]
    aggregate(votes)
    (card,) = (path.read_text() for path in tmp_path.glob("made/**/README.md"))
    assert "Counted as 2 people: 'Ana', 'ana'. Counted as 2 people: 'Jose\u0301'" in card
    assert "'ben'" not in card


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


def test_a_senior_labeler_decides_beside_the_votes(aggregate):
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


@pytest.mark.parametrize("method", ["dawid_skene", "glad", "mace"])
def test_models_make_preferences(aggregate, method, monkeypatch):
    for name, value in (("ROUNDS", 5), ("GLAD_ROUNDS", 1), ("RESTARTS", 1)):
        monkeypatch.setattr(crowd_models, name, value)
    varied = ballots(**{f"p{n}": "b b a" if n % 3 else "a b a" for n in range(30)})
    figures, decided, undecided, _ = aggregate(varied, method=method)
    assert len(decided) + len(undecided) == 40
    assert 0.5 < figures["mean_confidence"] <= 1


def test_a_fallback_is_said(tmp_path, aggregate, monkeypatch):
    said = []
    monkeypatch.setattr(Stage, "say", lambda self, text: said.append(text))
    aggregate(ballots(), method="glad")
    assert said == ["majority instead of glad: all votes are the same"]


def test_choices_on_aspects_become_shares_of_the_chosen_response():
    labels = [
        label("a", aspects={"helpful": "a", "honest": "tie"}),
        label("b", aspects={"helpful": "b", "honest": "a"}),
        label("a", aspects={"helpful": "a", "honest": "both_bad"}),
    ]
    expected = {"aspect_helpful": 2 / 3, "aspect_honest": 3 / 4}
    assert aspect_shares(labels, "a") == pytest.approx(expected)
    assert aspect_shares(labels, "b")["aspect_helpful"] == pytest.approx(1 / 3)
    assert aspect_shares([label()], "a") == {}
