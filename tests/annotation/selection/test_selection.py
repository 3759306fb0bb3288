"""Choosing pairs to label: scores by hand, batches by hand, and what must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from annotation.selection.acquisition import (
    DISAGREEMENT_MEASURES,
    STRATEGIES,
    closeness,
    mutual_information,
    preference_probabilities,
    vote_variance,
)
from annotation.selection.batch import select
from annotation.selection.config import SelectionConfig
from annotation.selection.features import WordFeatures
from annotation.selection.select_pairs import score_deltas, select_pairs
from plumbline.data.labels import Label, write_labels
from plumbline.data.records import assistant, read_dataset, user, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import ConfigError, DataError
from plumbline.runs.artifacts import Artifact, Manifest, Store
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage


def logit(p):
    return math.log(p / (1 - p))


def entropy(p):
    return -sum(q * math.log(q) for q in (p, 1 - p) if q)


# --- what a pair is worth ------------------------------------------------------------------


def test_probabilities_by_hand():
    deltas = np.array([[0.0, 2.0, -2.0]])
    assert preference_probabilities(deltas)[0] == pytest.approx(
        [0.5, 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))]
    )
    assert preference_probabilities(deltas, temperature=2.0)[0, 1] == pytest.approx(
        1 / (1 + math.exp(-1))
    )
    assert preference_probabilities(np.array([[1e4, -1e4]]))[0].tolist() == [1.0, 0.0]


def test_disagreement_by_hand():
    probabilities = np.array([[0.9, 0.5, 1.0, 0.8], [0.1, 0.5, 0.0, 0.8]])
    assert vote_variance(probabilities) == pytest.approx([0.16, 0, 0.25, 0])
    # ln 2 - H(0.9): each member is sure, and they contradict each other. At (1, 0) it is all of
    # ln 2. Where both say 0.5, or both 0.8, a label tells nothing of who is right.
    assert mutual_information(probabilities) == pytest.approx(
        [math.log(2) - entropy(0.9), 0, math.log(2), 0]
    )


def test_mutual_information_of_three_members_by_hand():
    p = [0.2, 0.7, 0.6]
    expected = entropy(0.5) - (entropy(0.2) + entropy(0.7) + entropy(0.6)) / 3
    assert mutual_information(np.array([p]).T)[0] == pytest.approx(expected)


def test_margin_by_hand():
    deltas = np.array([[1.0, -3.0, 0.5], [2.0, 3.0, 0.5]])
    assert closeness(deltas) == pytest.approx([-1.5, 0.0, -0.5])


def test_margin_and_disagreement_differ_where_all_agree_that_it_is_a_toss_up():
    """Pair 0 is a coin toss to everybody; on pair 1 the members contradict each other."""
    deltas = np.array([[0.0, 3.0], [0.0, -2.9]])
    features = np.eye(2)
    first = {
        strategy: select(
            SelectionConfig(strategy=strategy, count=1), ["p", "q"], deltas, features, seed=0
        ).chosen
        for strategy in ("margin", "disagreement")
    }
    assert first == {"margin": [0], "disagreement": [1]}


@pytest.mark.parametrize("measure", ["mutual_information", "variance"])
def test_the_order_is_that_of_disagreement(measure):
    p = np.array([[0.6, 0.95, 0.5, 0.8], [0.5, 0.05, 0.5, 0.4]])
    deltas = np.vectorize(logit)(p)
    config = SelectionConfig(strategy="disagreement", count=3, measure=measure)
    found = select(config, list("wxyz"), deltas, np.eye(4), seed=0)
    assert found.chosen == [1, 3, 0]
    score = vote_variance if measure == "variance" else mutual_information
    assert found.worth == pytest.approx(score(p)[[1, 3, 0]].tolist(), abs=1e-8)


@given(st.lists(st.lists(st.floats(-30, 30), min_size=4, max_size=4), min_size=1, max_size=6))
def test_bounds_and_symmetries_of_disagreement(deltas):
    probabilities = preference_probabilities(np.array(deltas))
    information, variance = mutual_information(probabilities), vote_variance(probabilities)
    assert (information >= 0).all() and (information <= math.log(2) + 1e-12).all()
    assert (variance >= 0).all() and (variance <= 0.25 + 1e-12).all()
    # Pinsker's inequality: each member is that far from their mean, in nats.
    assert (information >= 2 * variance - 1e-9).all()
    for score in (mutual_information, vote_variance):
        assert score(1 - probabilities) == pytest.approx(score(probabilities), abs=1e-12)
        assert score(probabilities[::-1]) == pytest.approx(score(probabilities), abs=1e-12)
    if len(deltas) == 1:
        assert information == pytest.approx(0, abs=1e-12)


# --- how a batch is drawn ------------------------------------------------------------------


def test_k_center_by_hand():
    """Directions at 0, 10, 90 and 180 degrees; the most disputed is at 10.

    The first is the most disputed, as nothing is labelled. Furthest from 10 is 180 (170 away),
    then 90 (80 from 10, 90 from 180), and 0 last.
    """
    angles = np.deg2rad([0, 10, 90, 180])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    deltas = np.array([[1.0, 3.0, 1.5, 2.0], [-1.0, -3.0, -1.5, -2.0]])
    config = SelectionConfig(strategy="diverse", count=4, near_identical=None)
    assert select(config, list("abcd"), deltas, features, seed=0).chosen == [1, 3, 2, 0]


def test_k_center_keeps_away_from_what_is_labeled():
    """With the pair at 180 degrees labelled, 0 is the furthest; then 90 from both, then 10."""
    angles = np.deg2rad([0, 10, 90, 180])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    deltas = np.array([[1.0, 3.0, 1.5, 2.0], [-1.0, -3.0, -1.5, -2.0]])
    config = SelectionConfig(strategy="diverse", count=4, near_identical=None)
    found = select(config, list("abcd"), deltas, features, labeled={"d"}, seed=0)
    assert found.chosen == [0, 2, 1]


def test_k_center_takes_candidates_by_disagreement_and_lengths_do_not_count():
    """Of six pairs, the two most disputed are candidates; f is further from c, but undisputed."""
    features = np.array([[1, 0], [9, 1], [0, 1], [1, 1], [2, 1], [0, -5]], dtype=float)
    deltas = np.array([[5.0, 4, 1, 1, 1, 0], [-5.0, -4, -1, -1, -1, 0]])
    config = SelectionConfig(strategy="diverse", count=1, candidates=2, near_identical=None)
    ids = list("abcdef")
    assert select(config, ids, deltas, features, seed=0).chosen == [0]
    # With c (at 90 degrees) labelled, a is 90 away and b 84; b's length changes nothing.
    assert select(config, ids, deltas, features, labeled={"c"}, seed=0).chosen == [0]
    everything = config.model_copy(update={"candidates": 6})
    assert select(everything, ids, deltas, features, labeled={"c"}, seed=0).chosen == [5]
    features[0] *= 100
    assert select(config, ids, deltas, features, labeled={"c"}, seed=0).chosen == [0]


def test_nearly_identical_pairs_are_refused_and_the_next_best_is_taken():
    features = np.array([[1, 0], [1, 0.01], [0, 1], [1, 0]], dtype=float)
    deltas = np.array([[4.0, 3.0, 1.0, 2.0], [-4.0, -3.0, -1.0, -2.0]])
    for strategy in ("disagreement", "diverse"):
        config = SelectionConfig(strategy=strategy, count=2, near_identical=0.99)
        found = select(config, list("abcd"), deltas, features, seed=0)
        assert found.chosen == [0, 2]
    disputed = SelectionConfig(strategy="disagreement", count=2, near_identical=0.99)
    assert select(disputed, list("abcd"), deltas, features, seed=0).near_identical == [1, 3]
    anything = disputed.model_copy(update={"near_identical": None})
    assert select(anything, list("abcd"), deltas, features, seed=0).chosen == [0, 1]
    # Only exact copies, at 1; and fewer than asked for rather than the same twice.
    copies = SelectionConfig(strategy="disagreement", count=4, near_identical=1.0)
    assert select(copies, list("abcd"), deltas, features, seed=0).chosen == [0, 1, 2]


def test_uniform_gives_every_pair_the_same_chance():
    ids = [f"p-{n}" for n in range(10)]
    config = SelectionConfig(strategy="uniform", count=3)
    deltas, features = np.zeros((0, 10)), np.eye(10)
    counts = np.zeros(10)
    for seed in range(1000):
        counts[select(config, ids, deltas, features, seed=seed).chosen] += 1
    # 300 expected; the deviation of a binomial is 14.5, and four of them are 58.
    assert abs(counts - 300).max() < 58
    assert select(config, ids, deltas, features, seed=1) == select(
        config, ids, deltas, features, seed=1
    )


@st.composite
def pools(draw):
    """A pool with ties, copies and labelled pairs, and a strategy."""
    count = draw(st.integers(1, 14))
    rows = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    members = draw(st.integers(2, 4))
    value = st.integers(-3, 3)
    deltas = [draw(st.lists(value, min_size=count, max_size=count)) for _ in range(members)]
    angles = np.array(rows) * 0.7
    ids = [f"id-{n}" for n in range(count)]
    strategy = draw(st.sampled_from(list(STRATEGIES)))
    spread = {"candidates": draw(st.integers(1, 3))} if STRATEGIES[strategy].spreads else {}
    config = SelectionConfig(
        strategy=strategy,
        count=draw(st.integers(1, 6)),
        **spread,
        near_identical=draw(st.sampled_from([None, 0.98])),
    )
    return (
        config,
        ids,
        np.array(deltas, dtype=float),
        np.stack([np.cos(angles), np.sin(angles)], axis=1),
        set(draw(st.lists(st.sampled_from(ids)))),
        draw(st.integers(0, 5)),
        draw(st.permutations(range(count))),
    )


@settings(max_examples=300, deadline=None)
@given(pools())
def test_what_holds_for_every_batch(pool):
    config, ids, deltas, features, labeled, seed, order = pool
    found = select(config, ids, deltas, features, labeled=labeled, seed=seed)
    chosen = [ids[place] for place in found.chosen]
    free = set(ids) - labeled

    # Nothing twice, nothing labelled, and as many as there are.
    assert len(set(chosen)) == len(chosen) <= config.count
    assert set(chosen) <= free
    if config.near_identical is None:
        assert len(chosen) == min(config.count, len(free))
    else:
        directions = {tuple(np.round(features[place], 6)) for place in found.chosen}
        assert len(directions) == len(chosen)
        others = {tuple(np.round(features[ids.index(name)], 6)) for name in free}
        assert len(chosen) == min(config.count, len(others))
    measure = DISAGREEMENT_MEASURES[config.measure]
    worth = STRATEGIES[config.strategy].worth(deltas, measure, config.temperature)
    assert found.worth == pytest.approx(worth[found.chosen].tolist(), abs=1e-8)

    # The order in which pairs lie does not matter, nor that of the members.
    moved = select(
        config,
        [ids[place] for place in order],
        deltas[::-1, order],
        features[list(order)],
        labeled=labeled,
        seed=seed,
    )
    assert [ids[order[place]] for place in moved.chosen] == chosen

    # Nor does which response is A, or whether features are sparse.
    assert select(config, ids, -deltas, features, labeled=labeled, seed=seed).chosen == (
        found.chosen
    )
    sparse = csr_array(features)
    assert select(config, ids, deltas, sparse, labeled=labeled, seed=seed) == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": ["a", "a"]}, "same id"),
        ({"deltas": np.zeros((2, 3))}, r"shape \(2, 3\)"),
        ({"features": np.eye(3)}, "features of 3 pairs"),
        ({"deltas": np.zeros((1, 2))}, "needs 2 members, not 1"),
        ({"deltas": np.array([[0, 1], [np.nan, 0]])}, "not a finite"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    arguments = {"ids": ["a", "b"], "deltas": np.zeros((2, 2)), "features": np.eye(2)} | change
    with pytest.raises(ValueError, match=message):
        select(SelectionConfig(strategy="disagreement"), **arguments, seed=0)


# --- features ------------------------------------------------------------------------------


def pair(prompt, a, b, **more):
    return {"prompt": [user(prompt)], "a": [assistant(a)], "b": [assistant(b)], **more}


def cosines(rows):
    features = WordFeatures().embed(rows).toarray()
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features @ features.T


def test_features_do_not_know_which_side_is_which():
    found = cosines(
        [pair("Why?", "So it goes.", "Because 3."), pair("Why?", "Because 3.", "So it goes.")]
    )
    assert found[0, 1] == pytest.approx(1.0)


def test_features_tell_pairs_apart_by_one_number_and_by_what_differs():
    found = cosines(
        [
            pair("What do the ropes cost?", "They cost $12.", "They cost $12. Thank you!"),
            pair("What do the ropes cost?", "They cost $13.", "They cost $13. Thank you!"),
            pair("What do the ropes cost?", "They cost $12.", "They cost $13."),
            pair("Who wrote Faust?", "Goethe did.", "I am not sure."),
        ]
    )
    assert found[0, 1] < 0.98
    assert found[0, 2] < found[0, 1]  # there it is politeness that differs, here the price
    assert found[0, 3] < 0.2


def test_features_see_marks():
    found = cosines([pair("Really?", "It is.", "No."), pair("Really!", "It is.", "No!")])
    assert found[0, 1] < 0.9


def test_the_three_blocks_weigh_the_same():
    """Where only the prompts are alike, or only the responses, the share says so."""
    rows = [
        pair("alpha beta", "gamma delta", "epsilon zeta"),
        pair("alpha beta", "eta theta", "iota kappa"),
        pair("lambda mu", "gamma delta", "epsilon zeta"),
    ]
    found = cosines(rows)
    assert found[0, 1] == pytest.approx(1 / 3, abs=1e-6)
    assert found[0, 2] == pytest.approx(2 / 3, abs=1e-6)


# --- the stage -----------------------------------------------------------------------------


class Fixed:
    """A scorer that adds up what it was told of each response, and an offset of its own."""

    name = "fixed"

    def __init__(self, scores, offset=0.0):
        self.scores, self.offset, self.calls = scores, offset, 0

    def score(self, prompts, responses):
        self.calls += 1
        return [self.scores[response] + self.offset for response in responses]


def publish(home, folder, kind):
    manifest = Manifest(
        kind=kind, id=f"{kind}-{len(list(home.glob('*')))}", schema_version=1, stage="test",
        arguments={}, inputs={}, seed=None, data_seed=0, metrics={}, versions={}, machine={},
        seconds=0.0, peak_memory_bytes=0, files={},
    )  # fmt: skip
    return Store(home).publish(folder, manifest)


WORDS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen"]


def pool_rows():
    return [
        pair(f"About the {word}?", f"{word} one", f"{word} two", pair_id=f"p-{n}", extra=n)
        for n, word in enumerate(WORDS)
    ]


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture
def pairs(tmp_path, store) -> Artifact:
    folder = tmp_path / "pairs"
    write_dataset(folder, {"train": pool_rows()}, kind="prompts", title="Pairs", description="")
    return publish(store, folder, "pairs")


def members(*deltas_by_pair, offset=0.0):
    """Scorers by what each thinks of each pair: A scores the delta, B nothing."""
    return [
        Fixed(
            {f"{w} one": d for w, d in zip(WORDS, deltas, strict=True)}
            | {f"{w} two": 0.0 for w in WORDS},
            offset * (number + 1),
        )
        for number, deltas in enumerate(deltas_by_pair)
    ]


AGREE = (1.0, 2.0, 0.5, 1.0, 2.0, 3.0, 0.1, 0.2)
DIFFER = (1.0, -2.0, 0.5, -1.0, 2.0, -3.0, 0.1, 0.2)  # on bee, dog and fox, by 4, 2 and 6


def labels_of(tmp_path, store, *pair_ids):
    folder = tmp_path / f"labels-{len(pair_ids)}"
    folder.mkdir()
    labels = [
        Label(name, "ana", "file", "a", "2026-01-05T09:00:00+00:00", "a") for name in pair_ids
    ]
    write_labels(folder, labels)
    return publish(store, folder, "labels")


def test_the_stage_writes_the_chosen_in_order_and_counts_the_others(stage, pairs, store, tmp_path):
    figures = select_pairs(
        stage,
        config=SelectionConfig(strategy="disagreement", count=2),
        pairs=pairs,
        scorers=members(AGREE, DIFFER),
        labeled=[labels_of(tmp_path, store, "p-5")],
        labeled_ids=["p-0", "not-here"],
        seed=0,
    )
    rows = read_dataset(stage.folder, "train")
    assert [row["pair_id"] for row in rows] == ["p-1", "p-3"]
    assert [row["extra"] for row in rows] == [1, 3]
    p = 1 / (1 + math.exp(-2))
    assert rows[0]["selection_score"] == pytest.approx(math.log(2) - entropy(p), abs=1e-8)
    assert {row["selection_strategy"] for row in rows} == {"disagreement"}
    dropped = Dropped.read(stage.folder)
    assert dropped.reasons() == {"was not chosen this time": 4, "is labelled already": 2}
    assert {row["row"]: row["record"] for row in dropped.rows}[6] == "p-5"
    assert (figures["pairs"], figures["pool"], figures["labeled_already"]) == (2, 8, 2)
    assert figures["mean_score"] == pytest.approx(np.mean([r["selection_score"] for r in rows]))


def test_a_constant_that_a_member_adds_to_all_scores_changes_nothing(tmp_path, pairs):
    chosen = []
    for offset in (0.0, 8.0):
        made = Stage(tmp_path / f"at-{offset}", Reporter(quiet=True))
        select_pairs(
            made,
            config=SelectionConfig(strategy="margin", count=8, near_identical=None),
            pairs=pairs,
            scorers=members(AGREE, DIFFER, offset=offset),
            seed=0,
        )
        rows = read_dataset(made.folder, "train")
        chosen.append([(row["pair_id"], row["selection_score"]) for row in rows])
    assert chosen[0] == chosen[1]


def test_batch_after_batch_no_pair_is_chosen_twice(tmp_path, store, pairs):
    """Each batch is given as labelled to the next, as pairs; the last is smaller, and says so."""
    batches = []
    for number, strategy in enumerate(("uniform", "disagreement", "diverse")):
        made = Stage(tmp_path / strategy, Reporter(quiet=True))
        figures = select_pairs(
            made,
            config=SelectionConfig(strategy=strategy, count=3),
            pairs=pairs,
            scorers=members(AGREE, DIFFER),
            labeled=list(batches),
            seed=number,
        )
        batches.append(publish(store, made.folder, "pairs"))
    chosen = [row["pair_id"] for batch in batches for row in read_dataset(batch.path, "train")]
    assert sorted(chosen) == [f"p-{n}" for n in range(8)]
    assert (figures["pairs"], figures["asked_for"]) == (2, 3)
    with pytest.raises(DataError, match=r"All 8 pairs .* labelled already"):
        select_pairs(
            Stage(tmp_path / "more", Reporter(quiet=True)),
            config=SelectionConfig(count=1),
            pairs=pairs,
            labeled=batches,
            seed=0,
        )


def test_uniform_asks_no_model_and_others_need_theirs(stage, pairs):
    scorers = members(AGREE)
    select_pairs(stage, config=SelectionConfig(count=2), pairs=pairs, scorers=scorers, seed=0)
    assert scorers[0].calls == 0
    for strategy, count in (("disagreement", 1), ("diverse", 1), ("margin", 0)):
        with pytest.raises(ConfigError, match=rf"'{strategy}'.*it got {count}\."):
            select_pairs(
                stage,
                config=SelectionConfig(strategy=strategy),
                pairs=pairs,
                scorers=scorers[:count],
                seed=0,
            )


def test_a_stage_that_was_killed_asks_no_member_twice(stage, pairs):
    rows = read_dataset(pairs.path, "train")
    scorers = members(AGREE, DIFFER)
    scorers[1].scores = {}
    with pytest.raises(KeyError):
        score_deltas(stage, rows, scorers)
    again = members(AGREE, DIFFER)
    assert score_deltas(stage, rows, again).tolist() == [list(AGREE), list(DIFFER)]
    assert [scorer.calls for scorer in again] == [0, 2]


def test_an_embedder_of_one_s_own_is_used(stage, pairs):
    class Alike:
        def embed(self, rows):
            return np.ones((len(rows), 3))

    figures = select_pairs(
        stage, config=SelectionConfig(count=4), pairs=pairs, embedder=Alike(), seed=0
    )
    assert (figures["pairs"], figures["near_identical"]) == (1, 7)
    assert Dropped.read(stage.folder).reasons() == {
        "is nearly identical to a pair that was chosen": 7
    }


def test_a_model_that_diverged_is_named(stage, pairs):
    scorers = members(AGREE, DIFFER)
    scorers[1].scores["cat one"] = math.nan
    with pytest.raises(DataError, match=r"number 2\).*1 of 8 pairs, the first of them p-2"):
        select_pairs(
            stage, config=SelectionConfig(strategy="margin"), pairs=pairs, scorers=scorers, seed=0
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows + rows[2:3], "p-2 stands in rows 3, 9"),
        (lambda rows: [row | {"pair_id": None} if n == 4 else row for n, row in enumerate(rows)],
         "row 5: the pair has no 'pair_id'"),
    ],
)  # fmt: skip
def test_pools_in_which_a_label_would_be_ambiguous_are_refused(
    stage, tmp_path, store, change, message
):
    folder = tmp_path / "odd"
    rows = change(pool_rows())
    write_dataset(folder, {"train": rows}, kind="prompts", title="Pairs", description="")
    odd = publish(store, folder, "pairs")
    with pytest.raises(DataError, match=message):
        select_pairs(stage, config=SelectionConfig(), pairs=odd, seed=0)


def test_what_is_given_as_labeled_must_be_about_pairs(stage, tmp_path, store, pairs):
    folder = tmp_path / "prompts"
    write_dataset(
        folder, {"train": [{"prompt": [user("Hi?")]}]}, kind="prompts", title="P", description=""
    )
    prompts = publish(store, folder, "prompts")
    with pytest.raises(DataError, match="1 rows without a 'pair_id'"):
        select_pairs(stage, config=SelectionConfig(), pairs=pairs, labeled=[prompts], seed=0)
