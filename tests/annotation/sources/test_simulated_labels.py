"""Labels, simulated labellers and majorities: by hand and by frequency."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from annotation.aggregation.aggregate import aggregate_labels, best_possible, preference
from annotation.aggregation.config import AggregationConfig
from annotation.aggregation.votes import plurality
from annotation.sources.config import LabelerConfig, LabelingConfig
from annotation.sources.simulated_labels import (
    majority_probability,
    outcome_probability,
    probability_of_a,
    simulate_labels,
)
from plumbline.data.labels import Label, read_labels, write_labels
from plumbline.data.records import assistant, read_dataset, write_dataset
from plumbline.dropped import Dropped
from plumbline.runs.artifacts import Artifact, Manifest, Store
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.world.clerks import Style, answer
from plumbline.world.data import prompts
from plumbline.world.gold import GoldUtility

LABEL = Label(
    pair_id="p-0",
    annotator="ana",
    source="simulated",
    choice="a",
    created_at="2026-01-05T09:00:00+00:00",
    shown_first="b",
)
GOLD = GoldUtility(0)


def test_labels_come_back_as_they_were(tmp_path):
    labels = [
        LABEL,
        replace(
            LABEL, choice="b", rationale="shorter", strength=2, aspects={"tone": "b"}, flags=("x",)
        ),
    ]
    write_labels(tmp_path, labels)
    assert read_labels(tmp_path) == labels


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_choices_follow_bradley_terry_by_hand():
    fair = LabelerConfig(name="fair", temperature=0.5)
    assert probability_of_a(fair, (2.0, "x"), (1.0, "y")) == pytest.approx(sigmoid(2))
    fond = LabelerConfig(name="fond", temperature=1.0, likes_length=0.1)
    assert probability_of_a(fond, (1.0, "a b c"), (1.0, "d")) == pytest.approx(sigmoid(0.2))
    careless = LabelerConfig(name="careless", temperature=0.5, careless=0.4)
    assert probability_of_a(careless, (2.0, "x"), (1.0, "y")) == pytest.approx(
        0.6 * sigmoid(2) + 0.2
    )


def test_sides_may_be_swapped():
    labeler = LabelerConfig(name="x", temperature=0.7, likes_length=0.03, careless=0.2)
    a, b = (1.3, "one two"), (0.4, "three")
    assert probability_of_a(labeler, a, b) + probability_of_a(labeler, b, a) == pytest.approx(1)


def test_a_majority_s_probability_by_enumeration():
    p = [0.9, 0.6, 0.3]
    expected = sum(
        math.prod(q if vote else 1 - q for q, vote in zip(p, votes, strict=True))
        for votes in itertools.product([0, 1], repeat=3)
        if sum(votes) >= 2
    )
    assert majority_probability(p) == pytest.approx(expected)
    assert majority_probability([0.8, 0.8]) == pytest.approx(0.64 + 0.5 * 2 * 0.8 * 0.2)


def test_the_outcome_s_probability_is_the_mean_over_who_might_vote():
    p = [0.9, 0.6, 0.3]
    assert outcome_probability(p, 3) == majority_probability(p)
    assert outcome_probability(p, 1) == pytest.approx(0.6)
    pairs = [majority_probability(two) for two in ([0.9, 0.6], [0.9, 0.3], [0.6, 0.3])]
    assert outcome_probability(p, 2) == pytest.approx(sum(pairs) / 3)


def test_majorities():
    votes = [replace(LABEL, choice=choice) for choice in ("a", "b", "a")]
    assert plurality(label.choice for label in votes) == "a"
    assert plurality(label.choice for label in votes[:2]) is None
    assert plurality([]) is None
    row = {"pair_id": "p", "prompt": [], "a": [assistant("x")], "b": [assistant("y")]}
    made = preference(row, "a", votes)
    assert (made["chosen"], made["rejected"]) == ([assistant("x")], [assistant("y")])
    assert made["vote_share"] == pytest.approx(2 / 3)


def test_the_best_possible_judge_by_hand():
    rows = [{"pair_id": "p", "chosen_side": "a"}, {"pair_id": "q", "chosen_side": "a"}]
    found = best_possible(rows, {"p": 0.9, "q": 0.2})
    assert found["best_possible"] == 0.5
    assert found["best_possible_expected"] == pytest.approx((0.9 + 0.8) / 2)


def artifact(folder, store, kind):
    """Publish a folder as an artefact."""
    manifest = Manifest(
        kind=kind, id=f"{kind}-1", schema_version=1, stage="test", arguments={}, inputs={},
        seed=None, data_seed=0, metrics={}, versions={}, machine={}, seconds=0.0,
        peak_memory_bytes=0, files={},
    )  # fmt: skip
    store.mkdir(exist_ok=True)
    return Store(store).publish(folder, manifest)


@pytest.fixture
def pairs(tmp_path) -> Artifact:
    """Pairs of a perfect and a rude answer, the perfect one at either side."""
    rows = []
    for number, prompt in enumerate(prompts(0, 240, "preferences")):
        good, bad = (
            [assistant(answer(GOLD.shop, prompt, style))]
            for style in (Style(), Style(opening="", closing="Make it quick."))
        )
        a, b = (good, bad) if number % 2 else (bad, good)
        rows.append({"pair_id": f"p-{number}", "prompt": prompt, "a": a, "b": b})
    folder = tmp_path / "new"
    write_dataset(folder, {"train": rows}, kind="prompts", title="Pairs", description="")
    return artifact(folder, tmp_path / "store", "pairs")


def simulate(stage, pairs, **config):
    figures = simulate_labels(
        stage, config=LabelingConfig(**config), pairs=pairs, utility=GOLD, data_seed=0
    )
    return figures, read_labels(stage.folder)


def test_labelers_agree_with_the_gold_as_often_as_their_temperature_says(stage, pairs):
    # A closing that is rude costs 0.75 * 2 points: politeness 1 against -1.
    labeler = {"name": "one", "temperature": 1.5}
    figures, labels = simulate(stage, pairs, votes=1, labelers=[labeler])
    gap = 0.75 * 2
    assert figures["agreement_with_gold"] == pytest.approx(sigmoid(gap / 1.5), abs=0.08)
    assert len(labels) == 240
    assert {label.source for label in labels} == {"simulated"}
    assert 80 < sum(label.choice == "a" for label in labels) < 160
    assert 80 < sum(label.shown_first == "a" for label in labels) < 160


def test_nobody_votes_twice_on_a_pair_and_votes_depend_on_the_data_seed_alone(stage, pairs):
    _, labels = simulate(stage, pairs)
    keys = [(label.pair_id, label.annotator) for label in labels]
    assert len(set(keys)) == len(keys) == 3 * 240
    assert {label.annotator for label in labels} == {
        "fair", "hasty", "fond-of-length", "careless",
    }  # fmt: skip
    _, again = simulate(stage, pairs)
    assert again == labels
    assert any("polite" in (label.rationale or "") for label in labels)


def test_votes_become_preferences_split_by_prompt(stage, pairs, tmp_path):
    simulate(stage, pairs)
    labels = artifact(stage.folder, tmp_path / "store", "labels")
    made = Stage(tmp_path / "aggregate", Reporter(quiet=True))
    figures = aggregate_labels(
        made, config=AggregationConfig(), pairs=pairs, labels=labels, data_seed=0
    )
    assert figures["train_rows"] + figures["test_rows"] + figures["dropped_rows"] == 240
    assert 0.75 < figures["best_possible"] <= 1
    train = read_dataset(made.folder, "train")
    wins = sum("Thank you!" in row["chosen"][0]["content"] for row in train) / len(train)
    assert wins > 0.8


def test_ties_and_missing_votes_are_counted(stage, pairs, tmp_path):
    _, labels = simulate(stage, pairs, votes=2)
    write_labels(stage.folder, [label for label in labels if label.pair_id != "p-0"])
    made_labels = artifact(stage.folder, tmp_path / "store", "labels")
    made = Stage(tmp_path / "aggregate", Reporter(quiet=True))
    aggregate_labels(
        made, config=AggregationConfig(min_votes=2), pairs=pairs, labels=made_labels, data_seed=0
    )
    reasons = Dropped.read(made.folder).reasons()
    assert reasons["has fewer than min_votes (2) votes"] == 1
    assert reasons["has no majority for either response"] > 10
