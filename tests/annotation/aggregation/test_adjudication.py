"""Which pairs a senior labeller sees: each reason by hand, the order, and what it changes."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.aggregation.adjudication import (
    Case,
    adjudication_queue,
    flags_set,
    pairs_depending_on,
    queue_adjudication,
    unreliable_people,
)
from annotation.aggregation.aggregate import UNDECIDED, aggregate_labels, consensus_of
from annotation.aggregation.config import AdjudicationConfig, AggregationConfig
from annotation.aggregation.votes import sort_labels
from annotation.gold_answers import write_gold
from annotation.sources.merge import merge_labels
from plumbline.data.labels import CHOICES, Label, read_labels, write_labels
from plumbline.data.records import assistant, read_dataset, user, write_dataset
from plumbline.runs.artifacts import Manifest, Store
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage

LABEL = Label("p", "ana", "argilla", "a", "2026-01-05T09:00:00+00:00", "a")
MAJORITY = AggregationConfig()


def cast(table, purpose="vote"):
    """Read labels from pair -> "person:choice …"."""
    return [
        replace(LABEL, pair_id=pair_id, annotator=person, choice=choice, purpose=purpose)
        for pair_id, answers in table.items()
        for person, choice in (answer.split(":") for answer in answers.split())
    ]


def queue(labels, answers=None, aggregation=MAJORITY, **config):
    cases = adjudication_queue(
        labels, AdjudicationConfig(**config), aggregation, answers=answers or {}
    )
    return {case.pair_id: case for case in cases}


def test_disagreement_is_a_small_share_or_a_large_entropy():
    labels = cast(
        {
            "unanimous": "x:a y:a z:a",
            "two to one": "x:a y:a z:b",
            "all different": "x:a y:b z:tie",
            "even": "x:a y:b",
            "alone": "x:a",
        }
    )
    found = queue(labels)
    assert set(found) == {"all different", "even"}
    assert {case.reasons for case in found.values()} == {("disagreement",)}
    assert set(queue(labels, min_share=0.7)) == {"two to one", "all different", "even"}
    # Entropies: 0, 0.918, 1.585 and 1 bits. Without a likeliest answer a pair is queued anyway.
    assert set(queue(labels, min_share=0, max_entropy=0.9)) == {
        "two to one", "all different", "even",
    }  # fmt: skip
    assert set(queue(labels, min_share=0)) == {"all different", "even"}
    half = cast({"half": "x:a y:a z:b w:tie"})
    assert set(queue(half, min_share=0.5)) == set()
    assert set(queue(half, min_share=0.51)) == {"half"}


def test_the_votes_that_leave_most_open_come_first():
    labels = cast(
        {"q": "x:a y:b z:tie w:tie", "r": "x:a y:b z:tie", "p": "x:a y:b", "s": "x:a y:b"}
    )
    found = list(queue(labels).values())
    # Shares of log2(3): q has 1.5 bits, r log2(3), p and s one, ordered by their ids.
    assert [case.pair_id for case in found] == ["r", "q", "p", "s"]
    assert [case.priority for case in found] == pytest.approx(
        [1.0, 1.5 / math.log2(3), 1 / math.log2(3), 1 / math.log2(3)]
    )


#: Of the gold items x is right on all, y and z on none.
ANSWERS = {"g1": "a", "g2": "b", "g3": "a"}
GOLD = cast({"g1": "x:a y:b z:b", "g2": "x:b y:a z:a", "g3": "x:a y:b z:b"}, purpose="gold")


def test_people_who_fail_gold_items_are_suspect():
    config, ballot = AdjudicationConfig(), sort_labels(GOLD)
    assert unreliable_people(ballot, MAJORITY, config, ANSWERS) == {"argilla:y", "argilla:z"}
    strict = config.model_copy(update={"min_gold_items": 4})
    assert unreliable_people(ballot, MAJORITY, strict, ANSWERS) == set()
    lenient = config.model_copy(update={"min_gold_accuracy": 0.0})
    assert unreliable_people(ballot, MAJORITY, lenient, ANSWERS) == set()


def test_pairs_whose_outcome_hangs_on_suspects_are_queued():
    labels = cast(
        {
            "changed": "x:b y:a z:a",
            "same": "x:a y:a z:a",
            "theirs alone": "y:a z:a",
            "without them": "x:a w:a",
            "now even": "x:b w:a y:a",
        }
    )
    found = queue([*labels, *GOLD], ANSWERS)
    assert set(found) == {"changed", "theirs alone", "now even"}
    assert {case.reasons for case in found.values()} == {("gold_failure",)}
    assert found["theirs alone"].priority == 1.0  # certain, but for the people
    assert "same" not in found
    ballot = sort_labels([*labels, *GOLD])
    consensus = consensus_of(ballot, MAJORITY, set(ballot.votes), {}, 0)
    assert pairs_depending_on(set(), ballot, consensus, MAJORITY, ANSWERS, 0) == set()


def test_low_confidence_is_asked_of_methods_that_know_more_than_shares():
    # x is right on 3 of 3 gold items and so weighs ln 4; y and z weigh nothing.
    labels = cast({"p": "y:a z:a", "q": "x:a y:b"})
    weighted = AggregationConfig(method="weighted")
    found = queue([*labels, *GOLD], ANSWERS, weighted, min_gold_accuracy=0)
    assert found["p"].reasons == ("low_confidence",)
    # The votes on q are even, but the method is sure: 4 to 1.
    assert "low_confidence" not in found["q"].reasons
    assert queue(labels)["q"].reasons == ("disagreement",)
    assert "low_confidence" in queue([*labels, *GOLD], ANSWERS, weighted, min_confidence=0.9)[
        "q"
    ].reasons  # fmt: skip


def test_flags_set_by_anybody_queue_a_pair_before_all_others():
    labels = cast({"fine": "x:a y:a", "bad": "x:a y:a", "even": "x:a y:b", "private": "x:a y:a"})
    labels[3] = replace(labels[3], flags=("Unsafe", "spelling"))
    labels[6] = replace(labels[6], flags=("personal_data", "unsafe"))
    found = list(queue(labels).values())
    assert [case.pair_id for case in found] == ["bad", "private", "even"]
    assert found[0] == Case("bad", ("flag:unsafe",), 2.0)
    assert found[1].reasons == ("flag:personal data", "flag:unsafe")
    assert flags_set(labels, ["Personal-Data"]) == {"private": ("Personal-Data",)}
    assert set(queue(labels, flags=())) == {"even"}


def test_a_flag_counts_also_where_nobody_voted():
    labels = [replace(LABEL, purpose="repeat", flags=("unsafe",))]
    assert queue(labels) == {"p": Case("p", ("flag:unsafe",), 3.0)}
    assert queue([]) == {}


def test_what_was_adjudicated_is_not_asked_again():
    labels = cast({"p": "x:a y:b", "q": "x:a y:b"})
    assert set(queue([*labels, *cast({"p": "chief:tie"}, purpose="adjudication")])) == {"q"}


@given(
    st.lists(
        st.tuples(st.sampled_from("pqrst"), st.sampled_from("wxyz"), st.sampled_from(CHOICES)),
        unique_by=lambda answer: answer[:2],
    )
)
def test_queues_are_in_order_and_depend_on_no_order_of_labels(answers):
    labels = [replace(LABEL, pair_id=p, annotator=x, choice=c) for p, x, c in answers]
    found = adjudication_queue(labels, AdjudicationConfig(), MAJORITY)
    assert found == adjudication_queue(labels[::-1], AdjudicationConfig(), MAJORITY)
    assert [case.priority for case in found] == sorted((c.priority for c in found), reverse=True)
    assert all(case.reasons and 0 <= case.priority <= 4 for case in found)


# --- The stages, from votes over the queue to the changed outcome


def artifact(folder, store, kind, name="1"):
    manifest = Manifest(
        kind=kind, id=f"{kind}-{name}", schema_version=1, stage="test", arguments={}, inputs={},
        seed=None, data_seed=0, metrics={}, versions={}, machine={}, seconds=0.0,
        peak_memory_bytes=0, files={},
    )  # fmt: skip
    store.mkdir(exist_ok=True)
    return Store(store).publish(folder, manifest)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def pairs(tmp_path, store):
    rows = [
        {
            "pair_id": f"p{n}",
            "prompt": [user(f"Question {n}?")],
            "a": [assistant("yes")],
            "b": [assistant("no")],
        }
        for n in range(30)
    ]
    write_dataset(tmp_path / "new", {"train": rows}, kind="prompts", title="Pairs", description="")
    return artifact(tmp_path / "new", store, "pairs")


@pytest.fixture
def labels(tmp_path, store):
    """p0 is even, p1 hangs on unreliable_people, p2 is flagged; all others are plain."""
    table = {f"p{n}": "x:a w:a" for n in range(30)}
    table |= {"p0": "x:a w:b", "p1": "x:b y:a z:a", "elsewhere": "x:a w:b"}
    cast_labels = [
        replace(one, flags=("unsafe",)) if (one.pair_id, one.annotator) == ("p2", "w") else one
        for one in cast(table)
    ]
    folder = tmp_path / "labels"
    folder.mkdir()
    flagged_gold = replace(GOLD[0], flags=("unsafe",))  # which is none of these pairs
    write_labels(folder, [*cast_labels, flagged_gold, *GOLD[1:]])
    write_gold(folder, ANSWERS)
    return artifact(folder, store, "labels")


def make_queue(tmp_path, pairs, labels, **config):
    made = Stage(tmp_path / "queue", Reporter(quiet=True))
    figures = queue_adjudication(
        made,
        config=AdjudicationConfig(**config),
        aggregation=MAJORITY,
        pairs=pairs,
        labels=labels,
        data_seed=0,
    )
    return figures, read_dataset(made.folder, "train")


def test_the_queue_is_pairs_with_reasons_the_most_valuable_first(tmp_path, pairs, labels):
    figures, rows = make_queue(tmp_path, pairs, labels)
    assert [(row["pair_id"], row["reasons"]) for row in rows] == [
        ("p2", ["flag:unsafe"]),
        ("p1", ["gold_failure"]),
        ("p0", ["disagreement"]),
    ]
    assert rows[0]["a"] == [assistant("yes")]
    assert set(rows[0]) == {"pair_id", "prompt", "a", "b", "reasons", "priority"}
    assert (figures["queued"], figures["beyond_budget"], figures["flag"]) == (3, 0, 1)


def test_a_budget_takes_the_first_and_counts_the_others(tmp_path, pairs, labels):
    figures, rows = make_queue(tmp_path, pairs, labels, budget=1)
    assert [row["pair_id"] for row in rows] == ["p2"]
    assert (figures["queued"], figures["beyond_budget"]) == (1, 2)


def test_an_empty_queue_is_a_dataset_too(tmp_path, store, pairs):
    folder = tmp_path / "plain"
    folder.mkdir()
    write_labels(folder, cast({"p0": "x:a y:a"}))
    figures, rows = make_queue(tmp_path, pairs, artifact(folder, store, "labels", "plain"))
    assert rows == []
    assert figures["queued"] == 0


def test_adjudication_changes_the_outcome_it_should_and_the_votes_stay(
    tmp_path, store, pairs, labels
):
    _, queued = make_queue(tmp_path, pairs, labels)
    # The senior labeller prefers B wherever asked, but for p2, where both are bad.
    choices = {row["pair_id"]: "both_bad" if row["pair_id"] == "p2" else "b" for row in queued}
    folder = tmp_path / "decisions"
    folder.mkdir()
    write_labels(
        folder,
        [
            replace(LABEL, pair_id=p, annotator="chief", choice=c, purpose="adjudication")
            for p, c in choices.items()
        ],
    )
    decided = artifact(folder, store, "labels", "decisions")
    merged = Stage(tmp_path / "merged", Reporter(quiet=True))
    merge_labels(merged, labels=[labels, decided], pairs=pairs)
    assert sum(label.purpose == "adjudication" for label in read_labels(merged.folder)) == 3

    def outcomes(name, artifact):
        made = Stage(tmp_path / name, Reporter(quiet=True))
        aggregate_labels(made, config=MAJORITY, pairs=pairs, labels=artifact, data_seed=0)
        rows = [row for split in ("train", "test") for row in read_dataset(made.folder, split)] + [
            json.loads(line) for line in (made.folder / UNDECIDED).read_text().splitlines()
        ]
        return {row["pair_id"]: row for row in rows}

    before = outcomes("before", labels)
    after = outcomes("after", artifact(merged.folder, store, "labels", "merged"))
    choice = lambda row: row.get("chosen_side", row.get("outcome"))  # noqa: E731
    changed = {p: (choice(before[p]), choice(after[p])) for p in before if before[p] != after[p]}
    assert changed == {"p0": (None, "b"), "p1": ("a", "b"), "p2": ("a", "both_bad")}
    for pair_id in before:
        for column in ("votes", "tally", "voted"):
            assert after[pair_id][column] == before[pair_id][column]
        assert after[pair_id]["decided_by"] == ("adjudication" if pair_id in changed else "votes")
